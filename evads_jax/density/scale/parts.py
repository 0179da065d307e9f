"""A corpus in parts: a part is one work item, measured by one process, and one file of results.

    FOLDER/00007.jsonl       finished: the lines of its videos in order, written by renaming
    FOLDER/00007.partial     what a killed process had finished of it

The folder is named after everything that the results depend on, so what lies in it may be used again. Every runner
gives the same files, byte for byte.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from evads_jax.density.items import Item
from evads_jax.density.measure import Tools, measure
from evads_jax.density.measurement import Measurement, read_lines
from evads_jax.density.settings import MeasureSettings
from evads_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Part:
    """Some videos of a corpus.

    Attributes:
        number: its place in the corpus.
        items: its videos, in order.
    """

    number: int
    items: tuple[Item, ...]

    def done(self, folder: Path) -> Path:
        """The file of its results."""
        return folder / f"{self.number:05d}.jsonl"

    def partial(self, folder: Path, owner: str = "") -> Path:
        """The file of its results so far; `owner` keeps processes apart that might measure it at the same time."""
        return folder / f"{self.number:05d}{owner}.partial"


def partition(items: Sequence[Item], size: int) -> tuple[Part, ...]:
    """Cuts a corpus into parts: one a shard for shards, `size` videos otherwise."""
    groups: list[list[Item]] = []
    last: object = None
    for item in items:
        place = item.record[0] if item.record else None
        full = len(groups[-1]) >= size if groups and place is None else place != last
        if not groups or full:
            groups.append([])
        groups[-1].append(item)
        last = place
    return tuple(Part(number, tuple(group)) for number, group in enumerate(groups))


def safely(item: Item, tools: Tools, settings: MeasureSettings) -> Measurement:
    """`measure`, with an exception of any kind as the video's failure: one video must not end a job of millions."""
    try:
        return measure(item, tools, settings)
    except UserError:
        raise
    except Exception as error:
        return failed(item, "exception", f"{type(error).__name__}: {' '.join(str(error).split())}")


def failed(item: Item, kind: str, detail: str) -> Measurement:
    """The measurement of a video of which nothing could be had."""
    return Measurement(
        item.name,
        item.category,
        item.duration,
        missing=dict.fromkeys(("V_den", "A_den", "O_den"), kind),
        failure=(kind, detail),
    )


def run_part(
    part: Part,
    tools: Tools,
    settings: MeasureSettings,
    folder: Path,
    owner: str = "",
) -> Counter[str]:
    """Measures what is missing of a part.

    Args:
        part: the part.
        tools: the extractors.
        settings: the rules.
        folder: of the results.
        owner: see `Part.partial`.

    Returns:
        Kind of failure → failed videos of the whole part.

    Raises:
        UserError: the results cannot be written.
    """
    if not part.done(folder).exists():
        try:
            _finish(part, tools, settings, folder, owner)
        except OSError as error:
            what = f"cannot write what was measured: {error.strerror or error}"
            raise UserError(what, str(folder), "make room and start again") from error
    return count_failures(part, folder)


def _finish(part: Part, tools: Tools, settings: MeasureSettings, folder: Path, owner: str) -> None:
    partial = part.partial(folder, owner)
    finished = whole_lines(partial)
    # What is there of it tells of a process that has died over this part, perhaps of a video that it read ahead.
    tools.records.ahead = not partial.exists()
    with partial.open("wb") as file:
        file.writelines(line + b"\n" for line in finished)
        for item in part.items[len(finished) :]:
            found = safely(item, tools, settings)
            file.write(found.line().encode() + b"\n")
            file.flush()
    partial.replace(part.done(folder))


def has_media(parts: Iterable[Part]) -> bool:
    """Whether any video of a corpus has pictures or sound; a part whose videos are all broken has none of its own."""
    return any(item.path or item.record for part in parts for item in part.items)


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file that a killed process may have cut: without an unfinished last one."""
    if not path.exists():
        return []
    return path.read_bytes().split(b"\n")[:-1]


def count_failures(part: Part, folder: Path) -> Counter[str]:
    """Kind of failure → videos of a finished part."""
    broken = [line for line in whole_lines(part.done(folder)) if b'"failure":null' not in line]
    return Counter(json.loads(line)["failure"][0] for line in broken)


def read_part(part: Part, folder: Path) -> Iterator[Measurement]:
    """The measurements of a finished part."""
    return read_lines(part.done(folder))


def check_failures(kinds: Counter[str], total: int, max_bad_share: float) -> None:
    """Stops a job in which too many videos failed; one failure alone never does.

    Raises:
        UserError: more than `max_bad_share` of all `total` videos.
    """
    if kinds.total() > max(1.0, max_bad_share * total):
        named = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        raise UserError(
            f"{kinds.total()} of {total} videos failed ({named})",
            f"run.max_bad_share={max_bad_share:g}",
            "repair the videos or raise it; what was measured is kept",
        )
