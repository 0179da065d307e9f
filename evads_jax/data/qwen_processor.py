"""From a video file or an image to the frames that a Qwen-VL checkpoint was trained to see.

Which frames, and of which size, is what the official processors of the two families take: transformers'
`Qwen2VLImageProcessor` (both), `Qwen2VLVideoProcessor` (Qwen2.5-VL) and `Qwen3VLVideoProcessor`. Frames are the same
ones, sizes are the same, and scaled pixels differ by at most one of the 256 levels: this is Pillow's bicubic filter,
theirs is torchvision's, which rounds its weights otherwise. Patches and normalisation are the model's own
(`models.qwen_vl.inputs.patchify`, `models.qwen_vl.vision`).
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from evads_jax.data import media
from evads_jax.errors import UserError

_MOST_UNLIKE = 200  # the longer side may be so many times the shorter

# Bounds of the released checkpoints, for folders that state none: pixels of an image, pixels of a video.
_BOUNDS = {
    "qwen3_vl": {"image": (65_536, 16_777_216), "video": (4_096, 25_165_824)},
    "qwen2_5_vl": {"image": (3_136, 12_845_056), "video": (3_136, 12_845_056)},
}


@dataclasses.dataclass(frozen=True)
class Processing:
    """How frames are chosen and scaled.

    Attributes:
      cell: sides become multiples of so many pixels: patch · merge.
      temporal_patch: frames of a temporal unit.
      min_pixels: the fewest pixels, of an image, of each frame of a video, or with `whole_video` of the whole of it.
      max_pixels: the most pixels, likewise.
      whole_video: Qwen3-VL's way: the bounds are shared by all frames, and the first and the last frame are always
        taken. Otherwise Qwen2.5-VL's: bounds for each frame, and frames at equal steps from the first.
      frame_rate: frames to take per second.
      min_frames: the fewest frames, where the video has so many.
      max_frames: the most frames.
    """

    cell: int
    temporal_patch: int
    min_pixels: int
    max_pixels: int
    whole_video: bool = False
    frame_rate: float = 2.0
    min_frames: int = 4
    max_frames: int = 768


@dataclasses.dataclass(frozen=True)
class ProcessedVideo:
    """The frames of a video that the model is shown.

    Attributes:
      frames: RGB, sides in multiples of `Processing.cell`.
      times: seconds of each: its number over the video's mean frame rate.
      seconds_per_unit: seconds that a temporal unit lasts, by the share of the frames that was taken.
    """

    frames: UInt8[np.ndarray, "F height width 3"]
    times: tuple[float, ...]
    seconds_per_unit: float


def read_processing(folder: str | Path, family: str, kind: str, cell: int, temporal_patch: int) -> Processing:
    """The processing that a checkpoint states, with the release's values for what it does not.

    Args:
      folder: the checkpoint.
      family: "qwen3_vl" or "qwen2_5_vl".
      kind: "image" or "video".
      cell: patch · merge of the model.
      temporal_patch: of the model.

    Raises:
      UserError: a processor's file cannot be read.
    """
    stated = read_processor(folder, kind)
    low, high = _BOUNDS[family][kind]
    size = stated.get("size") or {}
    chosen = {name: stated[name] for name in ("min_frames", "max_frames") if stated.get(name)}
    return Processing(
        cell=cell,
        temporal_patch=temporal_patch,
        min_pixels=stated.get("min_pixels") or size.get("shortest_edge") or low,
        max_pixels=stated.get("max_pixels") or size.get("longest_edge") or high,
        whole_video=family == "qwen3_vl" and kind == "video",
        frame_rate=float(stated.get("fps") or 2.0),
        **chosen,
    )


def read_processor(folder: str | Path, kind: str) -> dict[str, Any]:
    """What a checkpoint says of the processing of an "image" or a "video"; empty where it says nothing.

    Version 5 of transformers keeps both in processor_config.json; before, there was a file for each, and at first none
    for videos, when the one for images held for them too.

    Raises:
      UserError: the file cannot be read.
    """
    folder = Path(folder)
    together = folder / "processor_config.json"
    if together.is_file() and isinstance(found := read_json(together).get(f"{kind}_processor"), dict):
        return found
    for name in ("video_preprocessor_config.json",) * (kind == "video") + ("preprocessor_config.json",):
        if (folder / name).is_file():
            return read_json(folder / name)
    return {}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint folder.

    Raises:
      UserError: there is no such file, or it is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"no readable {path.name}", str(path), "give the folder of a downloaded checkpoint") from error
    except ValueError as error:
        raise UserError("not a JSON file", str(path), "get it anew") from error
    if not isinstance(content, dict):
        raise UserError("not a JSON object", str(path), "get it anew")
    return content


def read_video(path: str | Path, processing: Processing) -> ProcessedVideo:
    """Reads the frames of a video that the model is shown, scaled one by one as they are decoded.

    Raises:
      UserError: the file cannot be read or has no frame.
    """
    found = media.decode_at(
        path,
        lambda total, rate: sample_frames(total, rate, processing),
        lambda frame, count: resize(frame, fitted(frame.shape[0], frame.shape[1], processing, count)),
    )
    if isinstance(found, media.MediaFailure):
        raise UserError(f"the video cannot be shown: {found.kind}, {found.detail}", str(path), "give another file")
    # The mean distance of the frames that were taken; a lone frame fills its unit.
    sampled = len(found.indices) / found.total * found.rate
    return ProcessedVideo(
        np.stack(found.frames),
        tuple(index / found.rate for index in found.indices),
        processing.temporal_patch / sampled,
    )


def read_image(
    image: Image.Image | UInt8[np.ndarray, "height width 3"], processing: Processing
) -> UInt8[np.ndarray, "1 h w 3"]:
    """An image as the one frame that the model is shown; transparency is dropped, as in the reference."""
    pixels = np.asarray(image.convert("RGB")) if isinstance(image, Image.Image) else image
    return resize(pixels, fitted(pixels.shape[0], pixels.shape[1], processing))[None]


def sample_frames(total: int, rate: float, processing: Processing) -> Int[np.ndarray, " F"]:
    """The numbers of the frames to take.

    Args:
      total: frames of the video.
      rate: its mean frame rate.
      processing: how many, and spread how.
    """
    p = processing
    if p.whole_video:
        count = min(max(int(total / rate * p.frame_rate), p.min_frames), p.max_frames, total)
        return np.linspace(0, total - 1, count).round().astype(int)
    most = min(p.max_frames, total) // p.temporal_patch * p.temporal_patch
    wanted = min(max(total / rate * p.frame_rate, p.min_frames), most, total)
    count = math.floor(wanted / p.temporal_patch) * p.temporal_patch
    if not count:  # shorter than one unit, which the reference refuses
        return np.arange(total)
    # Through float32, in which the reference counts its steps.
    return np.arange(0, total, total / count).astype(np.float32).astype(int)


def fitted(height: int, width: int, processing: Processing, frames: int = 1) -> tuple[int, int]:
    """Height and width that an image or a video's frames are scaled to.

    Sides are rounded to multiples of the cell; what then has too many or too few pixels is scaled, its shape kept, to
    the largest or smallest size within the bounds.

    Args:
      height: of the original, in pixels.
      width: likewise.
      processing: the bounds.
      frames: how many frames share them, with `whole_video`.

    Raises:
      UserError: one side is more than 200 times the other.
    """
    p, cell = processing, processing.cell
    together, rounded = 1, 1
    if p.whole_video:
        together = max(frames, p.temporal_patch)
        rounded = round(together / p.temporal_patch) * p.temporal_patch
        if height < cell or width < cell:
            scale = max(cell / height, cell / width)
            height, width = int(height * scale), int(width * scale)
    if max(height, width) > _MOST_UNLIKE * min(height, width):
        raise UserError(f"a picture of {height}×{width} pixels", do=f"sides may differ {_MOST_UNLIKE}-fold at most")
    h, w = round(height / cell) * cell, round(width / cell) * cell
    if rounded * h * w > p.max_pixels:
        shrink = math.sqrt(together * height * width / p.max_pixels)
        h, w = (max(cell, math.floor(side / shrink / cell) * cell) for side in (height, width))
    elif rounded * h * w < p.min_pixels:
        grow = math.sqrt(p.min_pixels / (together * height * width))
        h, w = (math.ceil(side * grow / cell) * cell for side in (height, width))
    return h, w


def resize(
    pixels: UInt8[np.ndarray, "height width 3"], size: Sequence[int]
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Scales an image with a bicubic filter that is widened where it shrinks (anti-aliasing)."""
    height, width = size
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
