"""Asks a policy every question of a split, once, and keeps each completion as it comes.

Several processes take turns of a number of questions: each answers those of a turn that are its own, all are then told
the completions, and process 0 writes them, in the order in which a single process would have.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax

from evads_jax import processes
from evads_jax.benchmark.files import (
    NoVideo,
    Split,
    answer_id,
    append_lines,
    config_hash,
    name_sample,
    read_lines,
    to_json,
    write,
)
from evads_jax.data.records import VideoRecord

Log = Callable[[str], None]
NO_VIDEO, NO_PREDICTION = "no video", "no prediction"


@dataclasses.dataclass(frozen=True)
class Failed:
    """There is no completion; it counts as 0 where nothing may be left out.

    Attributes:
      kind: `NO_VIDEO` or `NO_PREDICTION`.
      reason: in a few words.
    """

    kind: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Reply:
    """A completion with what it took.

    Attributes:
      text: the completion.
      finished: whether it came to its end; None where that is not known.
      input_tokens, output_tokens, cost: what it took.
    """

    text: str
    finished: bool | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0


class Policy(Protocol):
    """What is evaluated, and answers in batches.

    Attributes:
      weights: names the parameters, e.g. "sft, step 1500"; completions of other weights are not gone on with.
      protocol: how it is asked: prompt format, sampling, limits, frames; equal for all that is compared. `samples`,
        where it is there, is the number of completions per question.
      batch: how many questions it likes to get at a time. With several processes a policy that has a `division`
        (`models.division`) of such batches computes together with the others'; every other one works by itself.
      dropped_lines: question id → event lines that its prompt lost to fit, of the questions asked so far.
    """

    weights: str
    protocol: Mapping[str, Any]
    batch: int

    @property
    def dropped_lines(self) -> Mapping[str, int]:
        """See the class."""
        ...

    def generate(self, items: Sequence[tuple[VideoRecord, int]]) -> list[str]:
        """The raw completion of each (video, index of a question); depends on the question alone, not its company.

        With more than one sample: `samples` completions of the first item, then of the second, …. With several
        processes it is called as often on each, perhaps with nothing to answer, and fails on all or on none.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Asked:
    """A completion that is wanted: `sample` of question number `question` of video number `video` of the split."""

    video: int
    question: int
    sample: int


@runtime_checkable
class StreamingPolicy(Protocol):
    """A policy that answers one question at a time, in any order, e.g. over a network; attributes as `Policy`."""

    weights: str
    protocol: Mapping[str, Any]

    def stream(
        self,
        wanted: Sequence[Asked],
        load: Callable[[int], VideoRecord],
        keep: Callable[[Asked, Reply | Failed], None],
    ) -> None:
        """Answers everything that is wanted.

        Args:
          wanted: video by video.
          load: gives a video's record, or raises `NoVideo`; may be called from any thread.
          keep: to be called, in this thread, with each answer as it comes; the answer is on the disk when it returns.
        """
        ...


def predict(
    policy: Policy | StreamingPolicy, split: Split, folder: Path, log: Log | None = None
) -> dict[str, str | Failed]:
    """Makes or completes `predictions.jsonl`.

    Questions that have their completions are not asked again; those that failed are. Completions of other weights,
    another protocol or another split, and verdicts on them, are renamed (`predictions.<hash>.jsonl`), not overwritten
    and not used until the same are asked for again. Another number of samples is no other protocol. With several
    processes the file is process 0's, which also is the only one that asks a policy over a network.

    Args:
      policy: the policy.
      split: the questions.
      folder: the evaluation's folder.
      log: gets a line now and then; of several processes that compute together, on all after the same turns.

    Returns:
      Answer id (`files.name_sample`) → raw completion or why there is none, for every question and sample.

    Raises:
      UserError: the folder cannot be written, or what the policy raises; nothing that came is lost.
    """
    samples = policy.protocol.get("samples", 1)
    protocol = {name: value for name, value in policy.protocol.items() if name != "samples"}
    identity = {"weights": policy.weights, "protocol": protocol, "split": split.hash}
    kept = _Kept(split, folder / "predictions.jsonl", samples, log)

    def begin() -> list[dict[str, Any]]:
        _set_aside_others(folder, identity)
        return read_lines(kept.path)

    kept.learn(processes.by_first(begin, "read the predictions", str(folder)))
    if isinstance(policy, StreamingPolicy):
        streaming = policy

        def ask() -> list[dict[str, Any]]:
            _stream(streaming, split, kept)
            return read_lines(kept.path)

        kept.learn(processes.by_first(ask, "ask the model", str(folder)))
    else:
        _generate(policy, split, kept, samples)
    return kept.all()


def turn(policy: Policy) -> tuple[int, Sequence[int]]:
    """How many questions all processes ask at a time, and which places among them are this process's."""
    division = getattr(policy, "division", None)
    if division is not None:
        return policy.batch, division.numbers
    size = policy.batch * jax.process_count()
    return size, range(jax.process_index(), size, jax.process_count())


class _Kept:
    """The rows of `predictions.jsonl`."""

    def __init__(self, split: Split, path: Path, samples: int, log: Log | None):
        self.path, self._name, self._log, self._samples = path, path.parent.name, log, samples
        self._questions = dict(zip(split.places, split.examples, strict=True))
        self._names = [name_sample(e.question.id, s) for e in split.examples for s in range(samples)]
        self._done: dict[str, str] = {}
        self._failed: dict[str, Failed] = {}
        self._count = 0  # of the names that are done

    def learn(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Takes note of rows of the file."""
        for row in rows:
            if "id" in row and row.get("completion") is not None:
                self._done[answer_id(row)] = row["completion"]
            elif "id" in row:
                self._failed[answer_id(row)] = Failed(row.get("kind", NO_PREDICTION), row.get("reason", ""))
        self._count = sum(name in self._done for name in self._names)

    def wanted(self) -> list[Asked]:
        """What has no completion yet."""
        return [
            Asked(*place, sample)
            for place, example in self._questions.items()
            for sample in range(self._samples)
            if name_sample(example.question.id, sample) not in self._done
        ]

    def note(
        self, answers: Iterable[tuple[Asked, Reply | Failed]], dropped: Mapping[str, int] | None = None
    ) -> list[dict[str, Any]]:
        """The rows of answers, to be written; none of a failure that is on record already."""
        rows = []
        for asked, answer in answers:
            example = self._questions[asked.video, asked.question]
            row: dict[str, Any] = {"id": example.question.id, "video": example.video}
            row |= {"sample": asked.sample} if asked.sample else {}
            name = answer_id(row)
            if isinstance(answer, Failed):
                if self._failed.get(name) != answer:
                    rows.append({**row, "completion": None, **dataclasses.asdict(answer)})
                self._failed[name] = answer
                continue
            self._count += name not in self._done
            row["completion"] = self._done[name] = answer.text
            if dropped is not None:
                row["dropped_lines"] = dropped.get(example.question.id, 0)
            else:
                row |= {k: v for k, v in dataclasses.asdict(answer).items() if k != "text"}
            rows.append(row)
        return rows

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Appends rows to the file."""
        if rows:
            append_lines(self.path, rows)

    def tell(self) -> None:
        """Logs how far it is."""
        if self._log:
            self._log(f"predict {self._name}: {self._count} of {len(self._names)} completions")

    def all(self) -> dict[str, str | Failed]:
        unasked = Failed(NO_PREDICTION, "not asked")
        return {
            name: self._done[name] if name in self._done else self._failed.get(name, unasked) for name in self._names
        }


def _generate(policy: Policy, split: Split, kept: _Kept, samples: int) -> None:
    """Turns of questions, task by task; one that lacks a sample gets all of them drawn again.

    A batch lasts as long as its longest completion, and those of one task are of like length.
    """
    load = functools.lru_cache(maxsize=2)(split.records.__getitem__)
    pending: dict[tuple[int, int], list[Asked]] = {}
    for asked in kept.wanted():
        pending.setdefault((asked.video, asked.question), []).append(asked)
    examples = dict(zip(split.places, split.examples, strict=True))
    places = sorted(pending, key=lambda place: (examples[place].question.task or "", place))
    size, own = turn(policy)
    for start in range(0, len(places), size):
        now = places[start : start + size]
        mine = [i for i in own if i < len(now)]
        said = _answer(policy, [now[i] for i in mine], load, samples)
        told = processes.values([[i, *answer] for i, answer in zip(mine, said, strict=True)])
        heard = {i: answer for part in reversed(told) for i, *answer in part}  # of two with one question, the first
        answers: list[tuple[Asked, Reply | Failed]] = []
        for i in sorted(heard, key=lambda i: (heard[i][0] is not None, i)):  # missing videos first
            texts, trouble, _ = heard[i]
            for asked in pending[now[i]]:
                answers.append((asked, Failed(NO_VIDEO, trouble) if texts is None else Reply(texts[asked.sample])))
        rows = kept.note(answers, {examples[now[i]].question.id: heard[i][2] for i in heard})
        processes.by_first(functools.partial(kept.write, rows), "write the predictions", str(kept.path))
        kept.tell()


def _answer(
    policy: Policy, places: Sequence[tuple[int, int]], load: Callable[[int], VideoRecord], samples: int
) -> list[tuple[list[str] | None, str, int]]:
    """Of each of this process's questions: its completions or why there are none, and the event lines it lost."""

    def read() -> list[VideoRecord | str]:
        found: list[VideoRecord | str] = []
        for video, _ in places:
            try:
                found.append(load(video))
            except NoVideo as error:
                found.append(str(error))
        return found

    found = processes.together(read, "read the videos of its questions", "data")
    pairs = zip(found, places, strict=True)
    items = [(record, question) for record, (_, question) in pairs if not isinstance(record, str)]
    completions = iter(policy.generate(items) if items or jax.process_count() > 1 else ())
    answers: list[tuple[list[str] | None, str, int]] = []
    for record, (_, question) in zip(found, places, strict=True):
        if isinstance(record, str):
            answers.append((None, record, 0))
        else:
            lost = policy.dropped_lines.get(record.questions[question].id, 0)
            answers.append(([next(completions) for _ in range(samples)], "", lost))
    return answers


def _stream(policy: StreamingPolicy, split: Split, kept: _Kept) -> None:
    def keep(asked: Asked, answer: Reply | Failed) -> None:
        kept.write(kept.note([(asked, answer)]))
        kept.tell()

    if wanted := kept.wanted():
        policy.stream(wanted, split.records.__getitem__, keep)


def _set_aside_others(folder: Path, identity: dict[str, Any]) -> None:
    path = folder / "protocol.json"
    identity = json.loads(json.dumps(identity))
    try:
        previous = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        previous = None
    if previous is not None and previous != identity:
        for old in [
            *folder.glob("predictions.jsonl"),
            *folder.glob("verdicts.jsonl"),
            *folder.glob("verdicts_*.jsonl"),
        ]:
            kind, further, rest = old.stem.partition("_")
            old.replace(folder / f"{kind}.{config_hash(previous)}{further}{rest}.jsonl")
    if previous != identity:
        write(path, to_json(identity, indent=2) + "\n")
    mark = f".{config_hash(identity)}"  # also where a kill came between writing and renaming
    for kept in list(folder.glob(f"*{mark}*.jsonl")):
        if not (back := kept.with_name(kept.name.replace(mark, ""))).exists():
            kept.replace(back)
