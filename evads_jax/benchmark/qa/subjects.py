"""The videos that questions are written about: annotated ones, drawn ads, or one's own."""

import collections
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from evads_jax.benchmark.qa.prompting import Subject
from evads_jax.data import annotations, media, render
from evads_jax.data.annotations import grammar
from evads_jax.data.makers import by_video, locate
from evads_jax.data.records import Event
from evads_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Source:
    """A video without its frames, and how to get them.

    Attributes:
      subject: the video.
      decode: sampling arguments of `media.decode` → frames or why there are none; None where there is no video.
    """

    subject: Subject
    decode: Callable[..., media.Media | media.MediaFailure] | None = None


def find(config: ConfigDict) -> list[Source]:
    """The videos that a config names, at most `data.videos` of them (0 for all).

    Raises:
      UserError: unknown source, or missing or malformed files.
    """
    data = config.data
    sources = {"annotations": _annotated, "render": _drawn, "manifest": _own}
    if data.source not in sources:
        raise UserError(f"unknown source {data.source!r}", "data.source", "one of " + ", ".join(sources))
    found = sources[data.source](config)
    found = found[: data.limit] if data.limit else found
    if not found:
        raise UserError("no video", "data", "name at least one")
    names = collections.Counter(Path(source.subject.video).stem for source in found)
    if (most := names.most_common(1)[0])[1] > 1:
        raise UserError(f"{most[1]} videos are called {most[0]}", "data", "questions are named after their video")
    return found


def with_frames(source: Source, config: ConfigDict) -> Subject:
    """The video with the frames that writers see, spread evenly; without any where it has none."""
    subject, qa = source.subject, config.qa
    if source.decode is None or not qa.frames:
        return subject
    rate = qa.frames / max(subject.duration, 1.0)
    taken = source.decode(frame_rate=rate, max_frames=qa.frames, size=qa.frame_size)
    if isinstance(taken, media.MediaFailure):
        raise UserError(f"broken video: {taken.kind} {taken.detail}", subject.video, "replace it or leave it out")
    frames = zip(taken.times, map(media.encode_jpeg, taken.frames), strict=True)
    return dataclasses.replace(subject, frames=tuple((float(time), jpeg) for time, jpeg in frames))


def _annotated(config: ConfigDict) -> list[Source]:
    """The released annotations' videos with all their events; frames where `data.videos` has the files."""
    data = config.data
    if not data.annotations:
        raise UserError("no folder of annotations", "data.annotations", "name it")
    files = annotations.read_folder(data.annotations, tuple(data.splits))
    root = Path(data.videos) if data.videos else None
    found = []
    for split in data.splits:
        for rows in by_video(files[split].examples):
            first = rows[0]
            path = locate(root, first.video) if root else None
            duration = float(first.duration or max((event.end + 1 for event in first.evidence), default=0))
            subject = Subject(first.video, first.category, duration, first.evidence)
            found.append(Source(subject, None if path is None else _Decode(path)))
    return found


def _drawn(config: ConfigDict) -> list[Source]:
    """Drawn ads."""
    found = []
    for number in range(config.data.limit or 10):
        script = render.draw_script(config.run.seed * 100_003 + number, config.run.language, "test")
        duration = float(script.events[-1].end + 1)
        subject = Subject(f"ad-{number:05d}", script.category, duration, script.events)
        found.append(Source(subject, _Draw(script)))
    return found


def _own(config: ConfigDict) -> list[Source]:
    """One's own: a JSONL file of `video, duration[, category, events]`, videos beside it or in `data.videos`."""
    data = config.data
    path = Path(data.manifest or "")
    if not path.is_file():
        raise UserError("no such list of videos", str(path), "set data.manifest to a JSONL file")
    root = Path(data.videos) if data.videos else path.parent
    found, seen = [], set()
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if line.strip():
            try:
                subject = _subject(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(f"not a video's description ({error})", f"{path}, line {number}") from error
            if subject.video in seen:
                raise UserError(f"video {subject.video} stands here twice", f"{path}, line {number}")
            seen.add(subject.video)
            file = locate(root, subject.video)
            found.append(Source(subject, _Decode(file) if file.is_file() else None))
    return found


def _subject(fields: dict[str, Any]) -> Subject:
    """A video's description.

    Raises:
      ValueError, TypeError, KeyError: a field is missing or of another kind, or no event line can hold an event.
    """
    events = []
    for entry in fields.get("events", ()):
        event = Event(int(entry["start"]), int(entry["end"]), tuple(map(str, entry.get("ocr", ()))), entry.get("asr"))
        if grammar.parse_line(grammar.format_line(event)) != event:
            raise ValueError(f"event {entry} cannot be written as a line")
        events.append(event)
    category = fields.get("category")
    return Subject(
        str(fields["video"]), None if category is None else str(category), float(fields["duration"]), tuple(events)
    )


@dataclasses.dataclass(frozen=True)
class _Decode:
    """Frames of a file."""

    path: Path

    def __call__(self, **sampling: Any) -> media.Media | media.MediaFailure:
        return media.decode(self.path, **sampling)


@dataclasses.dataclass(frozen=True)
class _Draw:
    """Frames of a drawn ad."""

    script: render.AdScript

    def __call__(self, **sampling: Any) -> media.Media | media.MediaFailure:
        return render.decode_video(self.script, **sampling)
