"""A stand-in video for annotated rows whose video is not at hand: its overlay text and its speech at their seconds.

It shows no product: nothing that a question asks of the pixels can be seen in it, only what the annotation itself
writes. It lets the whole pipeline run on real annotations; it is no data to measure understanding on.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from evads_jax.data import media
from evads_jax.data.records import Event, Example
from evads_jax.data.render import drawing, fonts, speech, vocabulary

HEIGHT, WIDTH = 224, 128
RATE = 1
_TEXT = 12
_LINES = 13
_LONGEST = 600  # seconds; a stated duration beyond it is not believed


def draw_standin(example: Example, path: str | Path, language: str) -> None:
    """Writes the stand-in of a row's video: 224×128 pixels, one frame a second.

    Args:
      example: any row of the video; overlays come from `example.evidence`.
      path: the mp4 to write.
      language: of the speech, "zh" or "en".
    """
    events = example.evidence
    duration = min(example.duration or max((e.end + 1 for e in events), default=1), _LONGEST)
    # The same words are spoken whether the policy's or the judge's list is at hand.
    sound = speech.speak(events, duration, language)
    media.write_mp4(path, _frames(example.video, events, duration), RATE, sound)


def overlays() -> str:
    """How overlays are written on this machine: "cjk", or "latin" where no font has Chinese letters."""
    return "cjk" if fonts.cjk_font() else "latin"


def _frames(video: str, events: tuple[Event, ...], duration: int) -> Iterator[np.ndarray]:
    digest = hashlib.blake2b(video.encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))
    shown: Event | None = None
    frame = _write(_background(rng), ())
    for second in range(duration):
        event = next((e for e in events if e.start <= second <= e.end), None)
        if event is not shown:
            frame = _write(_background(rng), event.ocr if event else ())
        shown = event
        yield frame


def _background(rng: np.random.Generator) -> Image.Image:
    setting = vocabulary.SETTINGS[rng.integers(len(vocabulary.SETTINGS))]
    tile = drawing.draw_setting(setting.key, HEIGHT, rng)[:, :WIDTH]
    return Image.fromarray(tile.clip(0, 255).astype(np.uint8))


def _write(background: Image.Image, texts: tuple[str, ...]) -> np.ndarray:
    image = background.copy()
    if lines := _wrap(texts):
        draw = ImageDraw.Draw(image)
        draw.rectangle((4, 8, WIDTH - 4, 12 + len(lines) * (_TEXT + 3)), fill=(20, 20, 20))
        for row, line in enumerate(lines):
            draw.text((7, 10 + row * (_TEXT + 3)), line, font=fonts.font(_TEXT, True), fill=(255, 255, 255))
    return np.asarray(image)


def _wrap(texts: tuple[str, ...]) -> list[str]:
    """Overlay texts as lines that fit the frame; what does not fit below is not shown."""
    lines: list[str] = []
    for text in texts:
        written = text if overlays() == "cjk" else fonts.latin(text)
        width = 9 if any(ord(c) > 0x2E80 for c in written) else 18
        lines += [written[i : i + width] for i in range(0, len(written), width)][: _LINES - len(lines)]
    return lines
