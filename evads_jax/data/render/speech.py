"""Speech for stand-in videos: espeak-ng where it is installed, else a tone per stretch of speech."""

import functools
import hashlib
import io
import shutil
import subprocess
from collections.abc import Iterable

import av
import numpy as np

from evads_jax.data.media import SAMPLE_RATE
from evads_jax.data.records import Event

_PROGRAM = "espeak-ng"
_VOICES = {"zh": "cmn", "en": "en-us"}
_LOUDNESS = 0.05
_LONGEST = 400  # letters of one event that are spoken; what is longer never fits its seconds


@functools.cache
def speaker() -> str:
    """What speaks on this machine: "espeak-ng" with its version, or "tones"."""
    if shutil.which(_PROGRAM) is None:
        return "tones"
    version = subprocess.run([_PROGRAM, "--version"], capture_output=True, text=True, check=False).stdout
    return " ".join(version.split("Data at")[0].split()) or _PROGRAM


def speak(events: Iterable[Event], duration: float, language: str) -> np.ndarray:
    """The speech of events at their seconds, float32 16 kHz mono, cut where the next second without it begins.

    Args:
      events: what is said, and when.
      duration: seconds of sound.
      language: "zh" or "en".
    """
    track = np.zeros(round(duration * SAMPLE_RATE), np.float32)
    for event in events:
        if not event.asr:
            continue
        start, end = event.start * SAMPLE_RATE, min((event.end + 1) * SAMPLE_RATE, len(track))
        if (room := end - start) > 0:
            voice = tone(event.asr, room) if speaker() == "tones" else _espeak(event.asr, language)[:room]
            track[start : start + len(voice)] = voice
    return track


def tone(text: str, length: int) -> np.ndarray:
    """A tone of `length` samples whose pitch derives from a text; it fades in and out."""
    time = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    fade = np.minimum(1, 20 * np.minimum(time, time[::-1]))
    digest = hashlib.blake2b(text.encode(), digest_size=2).digest()
    pitch = 160 + int.from_bytes(digest, "big") % 480
    return (_LOUDNESS * fade * np.sin(2 * np.pi * pitch * time, dtype=np.float32)).astype(np.float32)


def _espeak(text: str, language: str) -> np.ndarray:
    # The text goes through stdin: one that begins with a dash is no option.
    command = [_PROGRAM, "-v", _VOICES[language], "--stdin", "--stdout"]
    done = subprocess.run(command, input=text[:_LONGEST].encode(), capture_output=True, check=False)
    if done.returncode or not done.stdout:
        return np.zeros(0, np.float32)
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    with av.open(io.BytesIO(done.stdout), "r") as container:
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]) if frames else np.zeros(0, np.float32)
