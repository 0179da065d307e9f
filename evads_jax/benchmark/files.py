"""The files of an evaluation: what is asked (`Split`), JSON lines that survive a kill, and reading results back.

    W/evaluation/<stage>/questions.jsonl     what is asked, with references
    W/evaluation/<stage>/predictions.jsonl   one completion per question and sample, appended as they come
    W/evaluation/<stage>/verdicts.jsonl      one judged answer per question and sample, appended as they come
    W/evaluation/<stage>/verdicts_<x>.jsonl  the same answers judged again: repeat1, repeat2, …, second_<digest>
    W/evaluation/<stage>/protocol.json       how the completions were made; others' are set aside, never mixed in
    W/evaluation/<stage>/summary.json        the figures

A stage evaluated with its frames blanked has a folder of its own, `<stage>_blanked`; the best constant answers have
`chance`.
"""

import dataclasses
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evads_jax import storage, whole
from evads_jax.data.records import Example, Records
from evads_jax.errors import UserError

CHANCE = "chance"
STAGES = ("base", "sft", "control", "mg_grpo")
_BLANKED = "_blanked"


class NoVideo(Exception):
    """A record's video is not there or cannot be read; the message says why. Its questions are still counted."""


@dataclasses.dataclass(frozen=True)
class Split:
    """The questions of an evaluation; everything but the frames is kept in memory.

    Attributes:
      records: the videos; read again whenever frames are needed. Reading one may raise `NoVideo`.
      places: (record, question) of each question, video by video.
      examples: the questions, in the same order.
      facts: slot → value of the script behind each question's video; empty for real videos.
      hash: of videos, questions, references and rubrics; results of different hashes are not comparable.
    """

    records: Records
    places: tuple[tuple[int, int], ...]
    examples: tuple[Example, ...]
    facts: tuple[Mapping[str, str], ...]
    hash: str

    @classmethod
    def of(cls, records: Records) -> "Split":
        """The split that consists of all questions of some videos.

        Raises:
          UserError: two questions have the same id.
        """
        videos = (records[i] for i in range(len(records)))
        return cls._of(records, ((tuple(video.examples()), video.facts) for video in videos))

    @classmethod
    def annotated(cls, records: Records, rows: Sequence[tuple[Example, ...]]) -> "Split":
        """The split of annotated videos that are not opened for it.

        Args:
          records: the videos.
          rows: the questions of each of them.

        Raises:
          UserError: two questions have the same id.
        """
        return cls._of(records, ((examples, {}) for examples in rows))

    @classmethod
    def _of(cls, records: Records, videos: Iterable[tuple[tuple[Example, ...], Mapping[str, str]]]) -> "Split":
        places, examples, facts, digest = [], [], [], hashlib.sha256()
        for i, (rows, known) in enumerate(videos):
            for j, example in enumerate(rows):
                places.append((i, j))
                examples.append(example)
                facts.append(known)
                q = example.question
                rubric = [dataclasses.astuple(point) for point in q.rubric]
                digest.update(json.dumps([example.video, q.id, q.question, q.answer, q.clues, rubric]).encode())
        seen: set[str] = set()
        for example in examples:
            if example.question.id in seen:
                raise UserError(f"two questions have the id {example.question.id!r}", example.video, "make ids unique")
            seen.add(example.question.id)
        return cls(records, tuple(places), tuple(examples), tuple(facts), digest.hexdigest()[:16])

    @property
    def videos(self) -> list[str]:
        """The video of each question."""
        return [example.video for example in self.examples]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluated stage, read from its folder.

    Attributes:
      name: the folder's name: the stage, `<stage>_blanked` or `chance`.
      folder: the folder.
      summary: `summary.json`.
      verdicts: the lines of `verdicts.jsonl`, in the order of the split.
    """

    name: str
    folder: Path
    summary: dict[str, Any]
    verdicts: list[dict[str, Any]]

    def completions(self) -> dict[str, str]:
        """Answer id (`answer_id`) → raw completion; those that failed are left out."""
        rows = read_lines(self.folder / "predictions.jsonl")
        return {answer_id(row): row["completion"] for row in rows if row["completion"] is not None}

    def questions(self) -> dict[str, dict[str, Any]]:
        """Question id → what was asked: question, reference, clues; empty for a folder of an earlier version."""
        return {row["id"]: row for row in read_lines(self.folder / "questions.jsonl")}


def answer_id(row: Mapping[str, Any]) -> str:
    """What names a row of predictions or verdicts: the question's id; of a further sample, with its number."""
    return name_sample(row["id"], row.get("sample", 0))


def name_sample(question: str, sample: int) -> str:
    """The name of a sampled answer to a question; the first has the question's own."""
    return f"{question}#{sample}" if sample else question


def folder(workdir: Path, stage: str, blank_frames: bool = False) -> Path:
    """Where a stage's evaluation lies."""
    return workdir / "evaluation" / (stage + _BLANKED * blank_frames)


def load(workdir: Path) -> dict[str, Evaluation]:
    """All finished evaluations of a run by name, in the order of the stages, each followed by its blanked one.

    Raises:
      UserError: the run has none, or a summary cannot be read.
    """
    found = {}
    for path in sorted((workdir / "evaluation").glob("*/summary.json")):
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError("not a summary", str(path), "remove it and run the evaluation again") from error
        name = path.parent.name
        found[name] = Evaluation(name, path.parent, summary, read_lines(path.parent / "verdicts.jsonl"))
    if not found:
        raise UserError("no evaluation here", storage.name_of(workdir), "give the folder of a finished run")
    order = [CHANCE, *(name for stage in STAGES for name in (stage, stage + _BLANKED))]
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file of lines; a missing file has none, and lines cut by a kill are left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def to_json(value: Any, indent: int | None = None) -> str:
    """A value as readable JSON; in ASCII where it holds half a surrogate pair, which no file can.

    Raises:
      ValueError: it holds a number that is not finite.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent, allow_nan=False)
    return text


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends rows and forces them to the disk, after closing a line that a kill has cut.

    Raises:
      UserError: the file cannot be written.
    """
    text = "".join(to_json(row) + "\n" for row in rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+") as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                text = "\n" + text
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"cannot write: {error.strerror}", str(path), "make room and start again") from error


def write(path: Path, content: str | bytes) -> None:
    """Replaces a file as a whole.

    Raises:
      UserError: the file cannot be written.
    """
    try:
        whole.write(path, content)
    except OSError as error:
        raise UserError(f"cannot write: {error.strerror}", str(path), "make room and start again") from error


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays (npz), whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)  # type: ignore[arg-type]  # names of arrays
    write(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """What `write_arrays` wrote.

    Raises:
      OSError, ValueError: there is no such file, or it is broken.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (EOFError, zipfile.BadZipFile) as error:  # an empty file, one that was cut
        raise ValueError(f"no file of arrays: {error}") from error


def config_hash(config: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that name a config (as plain nested mappings)."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:12]
