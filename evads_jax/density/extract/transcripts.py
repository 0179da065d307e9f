"""Transcripts that the user brings: SRT, WebVTT, JSON (segments or E-VAds events), or E-VAds event lines.

JSON is a list, or an object with a list under `segments` or `events`, of `{"start", "end", "text"}` (seconds) or
`{"start", "end", "asr"}`. A .txt holds lines as in the annotations: `Time 3s: ASR Text: "…"`.
"""

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

from evads_jax.data.annotations import Malformed
from evads_jax.data.annotations.grammar import parse_lines
from evads_jax.density.extract.timeline import Segment

_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{1,3})"
_CUE = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}")
_MARKUP = re.compile(r"<[^>]*>|\{\\[^}]*\}")


class UnreadableTranscript(ValueError):
    """A transcript that cannot be understood; the message says why in a few words."""


def read_transcript(path: str | Path) -> tuple[Segment, ...]:
    """The segments of a transcript in order of time.

    Raises:
        UnreadableTranscript: the file is not there, not UTF-8, of an unknown kind, or not what its kind promises.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableTranscript(f"{path.name} is not readable as UTF-8") from error
    if path.suffix.lower() not in READERS:
        raise UnreadableTranscript(f"{path.name} is none of {', '.join(READERS)}")
    try:
        segments = READERS[path.suffix.lower()](text)
    except (Malformed, ValueError, KeyError, TypeError) as error:
        raise UnreadableTranscript(f"{path.name}: {error}") from error
    if any(not 0 <= s.start <= s.end for s in segments):
        raise UnreadableTranscript(f"{path.name}: a segment ends before it starts")
    return tuple(sorted((s for s in segments if s.text), key=lambda s: (s.start, s.end)))


def _cues(text: str) -> list[Segment]:
    """Cues of SRT and WebVTT: a line of times, then lines of text up to an empty one; markup is dropped."""
    segments, lines = [], iter(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    for line in lines:
        if not (match := _CUE.match(line)):
            continue
        start, end = (_seconds(match.groups()[i : i + 4]) for i in (0, 4))
        words = []
        for content in lines:
            if not content.strip():
                break
            words.append(_MARKUP.sub("", content).strip())
        segments.append(Segment(start, end, html.unescape(" ".join(words)).strip()))
    if not segments and text.strip() and not text.lstrip().startswith("WEBVTT"):
        raise ValueError("no cue with «start --> end»")
    return segments


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds = (int(part or 0) for part in parts[:3])
    return hours * 3600 + minutes * 60 + seconds + float(f"0.{parts[3]}")


def _json(text: str) -> list[Segment]:
    found = json.loads(text)
    rows = found.get("segments", found.get("events")) if isinstance(found, dict) else found
    if not isinstance(rows, list):
        raise ValueError("no list of segments")
    return [_row(row) for row in rows]


def _row(row: dict) -> Segment:
    if not isinstance(row, dict):
        raise ValueError("a segment is not an object")
    if "text" in row:
        return Segment(float(row["start"]), float(row["end"]), str(row["text"]).strip())
    # An E-VAds event spans whole seconds, the last one included.
    return Segment(float(row["start"]), float(row.get("end", row["start"])) + 1, str(row.get("asr") or "").strip())


def _event_lines(text: str) -> list[Segment]:
    events = parse_lines(text.strip("\n"))
    return [Segment(e.start, e.end + 1, e.asr or "") for e in events]


READERS: dict[str, Callable[[str], list[Segment]]] = {
    ".srt": _cues,
    ".vtt": _cues,
    ".json": _json,
    ".txt": _event_lines,
}
