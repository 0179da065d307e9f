r"""A `VideoRecord` as bytes: a JSON header that holds all text, then the media files one after the other.

    b"EVR1" · header length (4 bytes, big endian) · header (UTF-8 JSON, sorted keys) · frame 0 · frame 1 · … · audio

The header's `blobs` are the lengths of the frames and, last, of the audio (null without one). The same record gives
the same bytes.
"""

import dataclasses
import json
import struct
from typing import Any

from evads_jax.data.records import Event, Question, RubricPoint, VideoRecord

MAGIC = b"EVR1"


def header(record: VideoRecord) -> str:
    """Everything of a record but its media, as JSON."""
    fields = {
        field.name: _plain(getattr(record, field.name))
        for field in dataclasses.fields(record)
        if field.name not in ("frames", "audio")
    }
    fields["blobs"] = [*map(len, record.frames), None if record.audio is None else len(record.audio)]
    return json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def pack(record: VideoRecord) -> bytes:
    """A record as bytes."""
    text = header(record).encode()
    return b"".join((MAGIC, struct.pack(">I", len(text)), text, *record.frames, record.audio or b""))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, dict) else value


def unpack(data: bytes) -> VideoRecord:
    """The record of some bytes.

    Raises:
      ValueError: the bytes are no record.
    """
    if data[:4] != MAGIC or len(data) < 8:
        raise ValueError(f"not a record: it begins with {data[:4]!r}")
    start = 8 + struct.unpack(">I", data[4:8])[0]
    text = data[8:start].decode()
    blobs = []
    for length in json.loads(text)["blobs"]:
        blobs.append(data[start : start + (length or 0)])
        start += length or 0
    if start != len(data):
        raise ValueError(f"a record of {len(data)} bytes announces {start}")
    return assemble(text, tuple(blobs[:-1]), blobs[-1])


def assemble(text: str, frames: tuple[bytes, ...], audio: bytes) -> VideoRecord:
    """The record of a header and its media.

    Args:
      text: what `header` gave.
      frames: JPEG files.
      audio: FLAC file; ignored where the header says that there is none.
    """
    fields = json.loads(text)
    silent = fields.pop("blobs")[-1] is None
    return VideoRecord(
        frames=frames,
        audio=None if silent else audio,
        times=tuple(fields.pop("times")),
        questions=tuple(_question(question) for question in fields.pop("questions")),
        events=tuple(_event(event) for event in fields.pop("events")),
        judge_events=None if (judge := fields.pop("judge_events")) is None else tuple(_event(e) for e in judge),
        **fields,
    )


def _event(fields: dict[str, Any]) -> Event:
    return Event(fields["start"], fields["end"], tuple(fields["ocr"]), fields["asr"])


def _question(fields: dict[str, Any]) -> Question:
    rubric = tuple(
        RubricPoint(p["slot"], tuple(p["accepted"]), tuple(p["rivals"]), p["core"]) for p in fields.pop("rubric")
    )
    return Question(rubric=rubric, **fields)
