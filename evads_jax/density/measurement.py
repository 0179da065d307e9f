"""The result for one video: what `videos.jsonl` holds, one line each."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from evads_jax.data.records import Event

METRICS = ("V_den", "A_den", "O_den")
VISUAL = ("V_den", "V_random", "V_blocks")  # by what the features are: trained, drawn, blocks
DIGITS = 9  # of the numbers in a line: enough for any table, and the same text from every runner


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Densities of one video.

    Attributes:
        video, category: as the item names them.
        duration: seconds; None when it is not known.
        values: metric → value. "V_den" only from trained DINOv3 features; other features bear names of their own.
        missing: metric → why it has no value.
        curves: metric → value of each second.
        failure: (kind, detail) when the media could not be used; None otherwise.
        frames: frames that were looked at.
        bad_frames: frames whose features were not finite.
        events: what was extracted, when asked for.
    """

    video: str
    category: str | None
    duration: float | None
    values: Mapping[str, float] = dataclasses.field(default_factory=dict)
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, tuple[float | None, ...]] = dataclasses.field(default_factory=dict)
    failure: tuple[str, str] | None = None
    frames: int = 0
    bad_frames: tuple[int, ...] = ()
    events: tuple[Event, ...] | None = None

    def line(self) -> str:
        """The measurement as one line of JSON, the same text wherever it was computed."""
        fields = dataclasses.asdict(self)
        fields["values"] = {k: _rounded(v) for k, v in sorted(self.values.items())}
        fields["missing"] = dict(sorted(self.missing.items()))
        fields["curves"] = {k: [_rounded(v) for v in c] for k, c in sorted(self.curves.items())}
        fields["duration"] = _rounded(self.duration)
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))

    def bare(self) -> "Measurement":
        """Without curves and events: what statistics need, so that those of millions of videos fit in memory."""
        return dataclasses.replace(self, curves={}, events=None)

    @classmethod
    def from_line(cls, line: str) -> "Measurement":
        """The inverse of `line`, to the digits that it keeps."""
        fields = json.loads(line)
        events = fields["events"]
        return cls(
            **fields
            | {
                "curves": {k: tuple(c) for k, c in fields["curves"].items()},
                "failure": tuple(fields["failure"]) if fields["failure"] else None,
                "bad_frames": tuple(fields["bad_frames"]),
                "events": None
                if events is None
                else tuple(Event(e["start"], e["end"], tuple(e["ocr"]), e["asr"]) for e in events),
            }
        )


def read_lines(path: Path) -> Iterator[Measurement]:
    """The measurements of a finished file, one at a time.

    Raises:
        OSError, ValueError, KeyError, TypeError: the file cannot be read, or holds other lines.
    """
    with path.open(encoding="utf-8", newline="\n") as file:  # a text in them may hold other ends of lines
        yield from map(Measurement.from_line, file)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
