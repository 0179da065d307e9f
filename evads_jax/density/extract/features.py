"""Frames → one feature vector each. The name of the resulting density tells where the features come from."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import jax
import numpy as np
from PIL import Image

from evads_jax.density.settings import FeatureSettings
from evads_jax.errors import UserError
from evads_jax.models.dinov3.config import SIZES, DINOv3Config
from evads_jax.models.dinov3.model import image_features
from evads_jax.models.dinov3.parameters import Params, init
from evads_jax.models.dinov3.weights import load

BLOCKS = 8  # a frame is cut into 8 × 8 blocks
BLOCK_PIXELS = 8


class FrameFeatures(Protocol):
    """Maps frames to features.

    Attributes:
        metric: the name of the density made of them: "V_den" for trained DINOv3, a name of its own otherwise.
        frame_size: longer side at which frames are best decoded, in pixels.
    """

    metric: str
    frame_size: int

    def __call__(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """[F, D] float32 features of uint8 [H, W, 3] RGB frames."""


def make_features(settings: FeatureSettings) -> FrameFeatures | None:
    """The extractor that the settings name; None for "none".

    Raises:
        UserError: DINOv3 was asked for and there are no weights.
    """
    if settings.kind == "none":
        return None
    if settings.kind == "blocks":
        return BlockFeatures()
    if settings.kind == "dinov3_random":
        return DINOv3Features(*_drawn(), settings, metric="V_random")
    if not settings.model:
        raise UserError(
            "no DINOv3 weights", "config.visual.model", "name their folder, or set visual.features to blocks"
        )
    return DINOv3Features(*load(settings.model), settings, metric="V_den")


class DINOv3Features:
    """DINOv3 features in batches of few shapes, split over all devices of the process.

    What is left of a video after its full batches is padded to a multiple of a quarter of one: most short videos have
    fewer frames than a batch holds, and a frame that pads costs as much as one that shows something.
    """

    def __init__(self, params: Params, config: DINOv3Config, settings: FeatureSettings, metric: str):
        if settings.image_size % config.patch:
            raise UserError(
                f"an image of {settings.image_size} pixels is no multiple of the patch ({config.patch})",
                "config.visual.image_size",
            )
        self.metric, self.frame_size = metric, settings.image_size
        self._side, self._pool, self._config = settings.image_size, settings.pool, config
        devices = jax.local_device_count()
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        self._step = _up_to(devices, -(-settings.batch // 4))
        self._batch = _up_to(self._step, settings.batch)
        self._split = jax.NamedSharding(mesh, jax.P("data"))
        self._params = jax.device_put(params, jax.NamedSharding(mesh, jax.P()))

    def __call__(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """See `FrameFeatures`; frames are squeezed to a square, as DINOv3's own preprocessing does."""
        found = [np.zeros((0, self._config.width), np.float32)]
        for first in range(0, len(frames), self._batch):
            taken = frames[first : first + self._batch]
            images = np.zeros((_up_to(self._step, len(taken)), self._side, self._side, 3), np.uint8)
            for i, frame in enumerate(taken):
                images[i] = resized(frame, self._side)
            images = jax.device_put(images, self._split)
            features = image_features(self._params, self._config, images, pool=self._pool)
            found.append(np.asarray(features)[: len(taken)])
        return np.concatenate(found)


class BlockFeatures:
    """Mean colour and gradient of 8 × 8 blocks: a stand-in where there are no weights, never called V_den.

    Colours are taken around mid grey and gradients as horizontal and vertical strength; a constant 1 keeps an
    even grey picture from having no direction.
    """

    metric = "V_blocks"
    frame_size = 2 * BLOCKS * BLOCK_PIXELS

    def __call__(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """See `FrameFeatures`; D is 321."""
        rows = [self._one(frame) for frame in frames]
        return np.stack(rows) if rows else np.zeros((0, 5 * BLOCKS**2 + 1), np.float32)

    def _one(self, frame: np.ndarray) -> np.ndarray:
        image = resized(frame, BLOCKS * BLOCK_PIXELS).astype(np.float32) / 127.5 - 1
        grey = image.mean(axis=-1)
        down, right = np.abs(np.diff(grey, axis=0, append=grey[-1:])), np.abs(np.diff(grey, append=grey[:, -1:]))
        stacked = np.concatenate([image, down[..., None], right[..., None]], axis=-1)
        blocks = stacked.reshape(BLOCKS, BLOCK_PIXELS, BLOCKS, BLOCK_PIXELS, 5).mean(axis=(1, 3))
        return np.append(blocks.reshape(-1), np.float32(1))


def resized(frame: np.ndarray, side: int) -> np.ndarray:
    """A uint8 frame as a square of `side` pixels, bilinear with antialiasing."""
    if frame.shape[:2] == (side, side):
        return frame
    return np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.BILINEAR))


def _up_to(step: int, count: int) -> int:
    """The next multiple of `step`."""
    return -(-count // step) * step


@partial(jax.jit, static_argnums=0)
def _draw(config: DINOv3Config, seed: int) -> Params:
    return init(config, jax.random.key(seed))


def _drawn() -> tuple[Params, DINOv3Config]:
    """ViT-B of the true size with drawn weights: what the real path costs, not what it sees."""
    return _draw(SIZES["vit_b"], 0), SIZES["vit_b"]
