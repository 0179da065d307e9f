"""Ad script → frames, sound and mp4. Everything random derives from the script's seed."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from evads_jax.data import media
from evads_jax.data.render import drawing, fonts
from evads_jax.data.render.script import SCENE_SECONDS, AdScript, Scene
from evads_jax.data.render.speech import tone

SIDE = 128
RATE = 2
# Speech of rendered ads is a tone per sentence, on every machine, so that shards do not depend on what is installed.
AUDIO = "tones"

PRODUCT_SCALE = (39, 45)  # pixels to a unit of the silhouettes, which are about two units wide or high
_MARGIN = 4  # the camera moves within so many pixels around the frame
_CANVAS = SIDE + 2 * _MARGIN


def draw_video(script: AdScript, path: str | Path) -> None:
    """Writes an ad as an mp4 of 128×128 pixels, two frames a second, with a tone for each sentence."""
    media.write_mp4(path, draw_frames(script), RATE, speak_tones([scene.sentences for scene in script.scenes]))


def draw_frames(script: AdScript) -> list[np.ndarray]:
    """The frames of an ad, uint8 [128, 128, 3]."""
    rng = np.random.default_rng([script.seed % 2**64, 1])
    colour = drawing.saturated(script.colour.key, rng)
    return [frame for scene in script.scenes for frame in _draw_scene(script, scene, colour, rng)]


def _draw_scene(script: AdScript, scene: Scene, colour: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    background = drawing.draw_setting(scene.setting.key, _CANVAS, rng).clip(0, 255).astype(np.uint8)
    canvas = Image.fromarray(background)
    skin = drawing.surface(script.material.key, colour * rng.uniform(0.92, 1.05), _CANVAS, rng)
    place = _CANVAS / 2 + rng.uniform(-3, 3, 2) + (0, 4)
    drawing.draw_card(canvas, (place[0], place[1]), rng.uniform(48, 52))
    drawing.draw_product(
        canvas, script.product.key, skin, (place[0], place[1]), rng.uniform(*PRODUCT_SCALE), rng.uniform(-0.07, 0.07)
    )
    # The prop stands in front, in one of the lower corners; the overlay at the top, where the camera always sees it.
    across, down = rng.uniform(40, 44, 2)
    prop = (_CANVAS / 2 + rng.choice([-1, 1]) * across, _CANVAS / 2 + down)
    drawing.draw_prop(canvas, scene.prop.key, prop, rng.uniform(16, 18))
    draw_overlay(canvas, scene.overlay, middle=2 * _MARGIN + 8)
    return _pan(np.asarray(canvas), rng)


def _pan(canvas: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Frames of a camera that drifts over the canvas."""
    count = SCENE_SECONDS * RATE
    start, stop = rng.uniform(0, 2 * _MARGIN, (2, 2))
    frames = []
    for k in range(count):
        top, left = np.round(start + (stop - start) * k / (count - 1)).astype(int)
        frames.append(np.ascontiguousarray(canvas[top : top + SIDE, left : left + SIDE]))
    return frames


def draw_overlay(image: Image.Image, lines: Sequence[str], middle: float) -> None:
    """Writes texts side by side on a dark strip around the height `middle`."""
    text, font = "  ".join(lines), fonts.font(11, False)
    left, top, right, bottom = font.getbbox(text, anchor="mm")
    x = image.width / 2
    draw = ImageDraw.Draw(image)
    draw.rectangle((x + left - 3, middle + top - 2, x + right + 3, middle + bottom + 2), fill=(20, 20, 20))
    draw.text((x, middle), text, font=font, fill=(255, 255, 255), anchor="mm")


def speak_tones(scenes: Sequence[Sequence[str]]) -> np.ndarray:
    """A tone per sentence, its pitch from the sentence's text; each scene's sentences share its time evenly."""
    samples = SCENE_SECONDS * media.SAMPLE_RATE
    return np.concatenate([tone(text, samples // len(texts)) for texts in scenes for text in texts])


def decode_video(script: AdScript, **sampling: Any) -> media.Media:
    """Draws an ad into a temporary mp4 and reads it back, so that its record comes the way a real video's does.

    Args:
      script: the ad.
      **sampling: how `media.decode` takes frames.
    """
    with tempfile.TemporaryDirectory(prefix="ad-") as folder:
        path = Path(folder) / "ad.mp4"
        draw_video(script, path)
        result = media.decode(path, **sampling)
    if isinstance(result, media.MediaFailure):
        raise RuntimeError(f"a drawn ad could not be read back: {result.kind}: {result.detail}")
    return result
