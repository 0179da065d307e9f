"""Audio → words. Audio goes through windows of one length, on the 16-bit grid on which shards keep it as FLAC.

Because both sources are put on that grid, an mp4 and the shard made of it give the same windows, bit for bit.
"""

import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from evads_jax.data.media import SAMPLE_RATE
from evads_jax.density.extract.timeline import Segment
from evads_jax.density.settings import SpeechSettings
from evads_jax.errors import UserError

WINDOW_SECONDS = 30  # what Whisper hears at a time


@dataclasses.dataclass(frozen=True)
class Window:
    """A stretch of audio.

    Attributes:
        start: seconds into the video.
        length: seconds that are audio; the rest of the window is silence.
        samples: float32 [WINDOW_SECONDS · SAMPLE_RATE].
    """

    start: float
    length: float
    samples: np.ndarray


def windows(audio: np.ndarray) -> Iterator[Window]:
    """Cuts audio into windows of one shape, the last one padded with silence.

    Args:
        audio: float32 16 kHz mono, from a file or from FLAC.
    """
    size = WINDOW_SECONDS * SAMPLE_RATE
    on_grid = (np.round(np.clip(audio, -1, 1) * 32767).astype(np.int16) / 32767).astype(np.float32)
    for first in range(0, len(on_grid), size):
        part = on_grid[first : first + size]
        yield Window(first / SAMPLE_RATE, len(part) / SAMPLE_RATE, np.pad(part, (0, size - len(part))))


class Transcriber(Protocol):
    """Hears a window."""

    def __call__(self, window: Window) -> list[Segment]:
        """Segments with times in seconds from the window's start."""


class WhisperTranscriber:
    """faster-whisper from a local model folder, behind its voice-activity detector (extra `asr`)."""

    def __init__(self, settings: SpeechSettings):
        if not installed():
            raise UserError("faster-whisper is not installed", "config.asr.engine", "pip install 'evads_jax[asr]'")
        if not settings.model or not (Path(settings.model) / "model.bin").is_file():
            raise UserError(
                "no faster-whisper model", settings.model or "config.asr.model", "name a folder that holds model.bin"
            )
        from faster_whisper import WhisperModel

        self._model = WhisperModel(settings.model, device="cpu", local_files_only=True)
        self._language = settings.language

    def __call__(self, window: Window) -> list[Segment]:
        """See `Transcriber`."""
        # Greedy and without the text of the window before: the result depends on the window alone.
        found, _ = self._model.transcribe(
            window.samples,
            language=self._language,
            vad_filter=True,
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
        )
        return [Segment(s.start, min(s.end, window.length), s.text.strip()) for s in found if s.start < window.length]


def installed() -> bool:
    """Whether the extra `asr` is there."""
    return importlib.util.find_spec("faster_whisper") is not None


def transcribe(audio: np.ndarray, transcriber: Transcriber) -> list[Segment]:
    """What is said in a whole track, in times of the track."""
    return [
        Segment(window.start + s.start, window.start + max(s.start, s.end), s.text)
        for window in windows(audio)
        for s in transcriber(window)
        if s.text
    ]
