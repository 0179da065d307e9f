"""From the files of the parts to the files that a user reads, a video at a time: a corpus may have millions.

Only what the statistics need of each video is held in memory; its curves and events stay in the files.
"""

import dataclasses
import itertools
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from evads_jax import whole
from evads_jax.density.items import Item
from evads_jax.density.measurement import Measurement, read_lines
from evads_jax.density.scale.parts import Part, read_part
from evads_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Results:
    """What a corpus gave.

    Attributes:
        items: the videos that count, in order.
        measurements: theirs, without curves and events.
        repeated: videos that were left out because another split holds them too.
    """

    items: tuple[Item, ...]
    measurements: tuple[Measurement, ...]
    repeated: int


def collect(parts: Iterable[Part], folder: Path, out: Path, each_once: bool) -> Results:
    """Writes videos.jsonl and failures.jsonl from finished parts.

    Args:
        parts: the corpus.
        folder: of the parts' results.
        out: where the two files go.
        each_once: leave out repetitions of a video: sft and rl of one's own data hold the same ones.
    """
    items, kept, repeated = list[Item](), list[Measurement](), 0
    seen = set[object]()
    with (
        whole.replacing(out / "videos.jsonl") as all_path,
        whole.replacing(out / "failures.jsonl") as failed_path,
        all_path.open("w", encoding="utf-8", newline="\n") as every,
        failed_path.open("w", encoding="utf-8", newline="\n") as failed,
    ):
        for part in parts:
            for item, m in zip(part.items, read_part(part, folder), strict=True):
                if each_once:
                    if (content := _content(m)) in seen:
                        repeated += 1
                        continue
                    seen.add(content)
                line = m.line() + "\n"
                every.write(line)
                if m.failure:
                    failed.write(line)
                items.append(item)
                kept.append(m.bare())
    return Results(tuple(items), tuple(kept), repeated)


def read_at(out: Path, places: Collection[int]) -> dict[int, Measurement]:
    """Place → the whole measurement there, from videos.jsonl."""
    with (out / "videos.jsonl").open(encoding="utf-8", newline="\n") as file:
        lines = itertools.islice(file, max(places, default=-1) + 1)
        return {i: Measurement.from_line(line) for i, line in enumerate(lines) if i in places}


def read_measured(path: str | Path) -> list[Measurement]:
    """Another run's videos.jsonl, without curves and events.

    Raises:
        UserError: it is none.
    """
    try:
        return [m.bare() for m in read_lines(Path(path))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError("not a readable videos.jsonl", str(path), "name one that this job wrote") from error


def read_questions(path: str | Path) -> list[dict[str, Any]]:
    """The user's questions, one object a line.

    Raises:
        UserError: they are not readable JSONL, or one names no video.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
        asked = [json.loads(line) for line in lines if line.strip()]
        if not all(isinstance(question["video"], str) for question in asked):
            raise ValueError("a video's name is a text")
        json.dumps(asked, ensure_ascii=False).encode()  # half a surrogate pair is JSON, and no text
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            "not readable as JSONL of questions", str(path), "each line is an object with a video"
        ) from error
    return asked


def write_events(out: Path, measurements: Iterable[Measurement], asked: Sequence[dict[str, Any]]) -> set[str]:
    """Writes the events of each video, and the user's questions with them.

    `questions.jsonl` is what `data.source=folder` reads for SFT, MG-GRPO and evaluation. A question keeps its own
    events and duration where nothing was found.

    Args:
        out: where events.jsonl and, with questions, questions.jsonl go.
        measurements: of all videos.
        asked: the questions; none: only the events are written.

    Returns:
        The videos of questions that were not measured.
    """
    wanted, found = {question["video"] for question in asked}, dict[str, dict[str, Any]]()
    with whole.replacing(out / "events.jsonl") as path, path.open("w", encoding="utf-8", newline="\n") as file:
        for m in measurements:
            events = [
                {k: v for k, v in dataclasses.asdict(e).items() if v} | {"start": e.start} for e in m.events or ()
            ]
            row = {"duration": None if m.duration is None else max(round(m.duration), 1), "events": events}
            file.write(json.dumps({"video": m.video, **row}, ensure_ascii=False) + "\n")
            if m.video in wanted:
                found[m.video] = {name: value for name, value in row.items() if value}
    if asked:
        merged = [json.dumps(q | found.get(q["video"], {}), ensure_ascii=False) + "\n" for q in asked]
        whole.write(out / "questions.jsonl", "".join(merged))
    return wanted - found.keys()


def _content(m: Measurement) -> object:
    """What tells a video from others of its name."""
    values = tuple(f"{name} {value:.5g}" for name, value in sorted(m.values.items()))
    return m.video, m.duration, m.frames, m.failure, values
