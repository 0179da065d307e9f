"""Frames → overlay texts, and the same overlay in several frames → one text.

A reading joins the overlay of an earlier frame when their boxes overlap enough and their texts differ by few edits;
an overlay's text is the reading that most of its frames agree on, the more confident one where they tie.
"""

import dataclasses
import importlib.util
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from evads_jax.density.settings import OcrSettings
from evads_jax.errors import UserError

KEEP_FRAMES = 2  # an overlay that was not read in so many frames is over


@dataclasses.dataclass(frozen=True)
class Reading:
    """One text in one frame.

    Attributes:
        text: what stands there.
        box: left, top, right, bottom in shares of the frame's sides.
        confidence: 0 to 1.
    """

    text: str
    box: tuple[float, float, float, float]
    confidence: float


class OverlayReader(Protocol):
    """Reads the texts of a frame."""

    def __call__(self, frame: np.ndarray) -> list[Reading]:
        """The readings of a uint8 [H, W, 3] RGB frame, top to bottom."""


class RapidOCRReader:
    """RapidOCR with the models that its package carries (extra `ocr`)."""

    def __init__(self) -> None:
        if not installed():
            raise UserError("RapidOCR is not installed", "config.ocr.engine", "pip install 'evads_jax[ocr]'")
        from rapidocr import RapidOCR

        self._engine = RapidOCR(params={"Global.log_level": "critical"})

    def __call__(self, frame: np.ndarray) -> list[Reading]:
        """See `OverlayReader`."""
        found = self._engine(np.ascontiguousarray(frame[..., ::-1]))  # it expects BGR
        if found.txts is None:
            return []
        height, width = frame.shape[:2]
        readings = []
        for corners, text, confidence in zip(found.boxes, found.txts, found.scores, strict=True):
            low, high = np.min(corners, axis=0) / (width, height), np.max(corners, axis=0) / (width, height)
            box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
            readings.append(Reading(" ".join(text.split()), box, float(confidence)))
        return sorted(readings, key=lambda r: (round(r.box[1], 2), r.box[0]))


def installed() -> bool:
    """Whether the extra `ocr` is there."""
    return all(importlib.util.find_spec(name) for name in ("rapidocr", "onnxruntime"))


def merge(
    frames: Sequence[Sequence[Reading]], times: Sequence[float], settings: OcrSettings, duration: float = 0.0
) -> dict[int, tuple[str, ...]]:
    """Overlay texts of each second; a second in which no frame was read has those of the frame before it.

    Args:
        frames: the readings of each frame.
        times: of the frames, in seconds.
        settings: `min_confidence`, `min_overlap` (IoU) and `max_distance` (edits per character of the longer text).
        duration: of the video, in seconds: so long its last frame stays.

    Returns:
        Second → texts in reading order, each overlay once.
    """
    tracks: list[_Track] = []
    for index, readings in enumerate(frames):
        taken: set[int] = set()
        for reading in readings:
            if reading.confidence < settings.min_confidence or not reading.text:
                continue
            track = _match(tracks, taken, reading, index, settings)
            if track is None:
                tracks.append(track := _Track())
            taken.add(id(track))
            track.add(index, reading)
    seconds: dict[int, list[tuple[float, float, str]]] = {}
    until = [*map(int, times[1:]), math.ceil(duration)]
    for track in tracks:
        text = track.text
        places: dict[int, tuple[float, float]] = {}
        for i, reading in track.readings:
            first = int(times[i])
            places |= dict.fromkeys(range(first, max(until[i], first + 1)), reading.box[:2])
        for second, (left, top) in places.items():
            seconds.setdefault(second, []).append((round(top, 2), left, text))
    return {second: tuple(text for _, _, text in sorted(found)) for second, found in sorted(seconds.items())}


def edit_distance(a: str, b: str) -> int:
    """Fewest insertions, deletions and replacements that turn `a` into `b`."""
    previous = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        current = [i]
        for j, right in enumerate(b, 1):
            current.append(min(previous[j] + 1, current[-1] + 1, previous[j - 1] + (left != right)))
        previous = current
    return previous[-1]


class _Track:
    """One overlay through the frames that show it."""

    def __init__(self) -> None:
        self.readings: list[tuple[int, Reading]] = []

    def add(self, index: int, reading: Reading) -> None:
        self.readings.append((index, reading))

    @property
    def last(self) -> tuple[int, Reading]:
        return self.readings[-1]

    @property
    def text(self) -> str:
        votes: dict[str, tuple[int, float]] = {}
        for _, reading in self.readings:
            count, confidence = votes.get(reading.text, (0, 0.0))
            votes[reading.text] = (count + 1, max(confidence, reading.confidence))
        return max(votes, key=lambda text: (*votes[text], text))


def _match(tracks: list[_Track], taken: set[int], reading: Reading, index: int, settings: OcrSettings) -> _Track | None:
    best, best_overlap = None, 0.0
    for track in tracks:
        seen, last = track.last
        if id(track) in taken or index - seen > KEEP_FRAMES:
            continue
        overlap = _overlap(last.box, reading.box)
        longest = max(len(last.text), len(reading.text))
        if overlap < settings.min_overlap or overlap <= best_overlap:
            continue
        if edit_distance(last.text, reading.text) <= settings.max_distance * longest:
            best, best_overlap = track, overlap
    return best


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)
