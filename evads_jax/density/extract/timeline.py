"""Times and texts → E-VAds events: whole seconds, runs of identical seconds joined."""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

from evads_jax.data.records import Event
from evads_jax.density.words import ONE_EACH

# A unit is never cut in two: one character of a script without spaces, or a run of anything else.
_ONE = "".join(f"{chr(low)}-{chr(high)}" for low, high in ONE_EACH)
_UNIT = re.compile(rf"[{_ONE}]\s*|[^\s{_ONE}]+\s*")


@dataclasses.dataclass(frozen=True)
class Segment:
    """Words and when they are spoken, in seconds."""

    start: float
    end: float
    text: str


def spread(segments: Iterable[Segment]) -> dict[int, str]:
    """The words of each second: a segment's units are laid evenly over its time, none is cut."""
    seconds: dict[int, list[str]] = {}
    for segment in segments:
        units = _UNIT.findall(segment.text.strip())
        length = max(segment.end - segment.start, 0.0)
        placed: dict[int, str] = {}
        for i, unit in enumerate(units):
            second = max(int(segment.start + (i + 0.5) / len(units) * length), 0)
            placed[second] = placed.get(second, "") + unit
        for second, text in placed.items():
            seconds.setdefault(second, []).append(text.strip())
    return {second: " ".join(texts) for second, texts in sorted(seconds.items())}


def to_events(overlays: Mapping[int, Sequence[str]], speech: Mapping[int, str]) -> tuple[Event, ...]:
    """Events of every second with an overlay or a word; equal neighbours without speech become one run."""
    rows = [
        (second, tuple(overlays.get(second, ())), speech.get(second) or None)
        for second in sorted(overlays.keys() | speech.keys())
    ]
    rows = [row for row in rows if row[1] or row[2]]
    events: list[Event] = []
    for second, ocr, asr in rows:
        last = events[-1] if events else None
        if last and asr is None and last.asr is None and last.ocr == ocr and last.end == second - 1:
            events[-1] = dataclasses.replace(last, end=second)
        else:
            events.append(Event(second, second, ocr, asr))
    return tuple(events)


def overlays_of(events: Iterable[Event]) -> dict[int, tuple[str, ...]]:
    """The overlays of each second of annotated events; where events overlap, those of all of them."""
    seconds: dict[int, tuple[str, ...]] = {}
    for event in events:
        for second in range(event.start, event.end + 1) if event.ocr else ():
            seconds[second] = seconds.get(second, ()) + event.ocr
    return seconds


def speech_of(events: Iterable[Event]) -> dict[int, str]:
    """The words of each annotated event, at its first second."""
    spoken = [(event.start, event.asr) for event in events if event.asr]
    grouped = itertools.groupby(sorted(spoken, key=lambda pair: pair[0]), key=lambda pair: pair[0])
    return {second: " ".join(text for _, text in group) for second, group in grouped}
