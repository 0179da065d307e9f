"""Random resized crop, colour jitter and flip, on the device, each image with draws of its own."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from evads_jax.errors import UserError

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow weighs the channels


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is drawn for an image. The released code has these kinds and jitter 0.4; the crop is torchvision's default.

    Attributes:
      area: smallest and largest share of the image that a crop covers.
      ratio: largest width to height of a crop, and its inverse the smallest.
      jitter: brightness, contrast and saturation are multiplied by 1 ± at most this.
      flip: probability of a left-right flip.
    """

    area: tuple[float, float] = (0.08, 1.0)
    ratio: float = 4 / 3
    jitter: float = 0.4
    flip: float = 0.5

    def __post_init__(self):
        """Refuses what cannot be drawn.

        Raises:
          UserError: naming the field.
        """
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise UserError(f"no crop covers {self.area}", "augmentation.area", "0 < smallest ≤ largest ≤ 1")
        if self.ratio < 1 or not 0 <= self.jitter < 1 or not 0 <= self.flip <= 1:
            raise UserError(f"an augmentation that cannot be drawn: {self}", "augmentation")


def augment(
    images: UInt8[Array, "B H W 3"], key: jax.Array, size: int, augmentation: Augmentation
) -> Float[Array, "B size size 3"]:
    """Random views of images, in 0…1.

    Args:
      images: 8-bit RGB of any size.
      key: the draws.
      size: height and width of a view.
      augmentation: what is drawn.
    """
    one = functools.partial(_augment_one, size=size, settings=augmentation)
    return jax.vmap(one)(images, jax.random.split(key, images.shape[0]))


def _augment_one(image: Array, key: jax.Array, *, size: int, settings: Augmentation) -> Array:
    crop_key, jitter_key, flip_key = jax.random.split(key, 3)
    view = _crop(image.astype(jnp.float32) / 255, crop_key, size, settings)
    brightness, contrast, saturation = 1 + settings.jitter * jax.random.uniform(jitter_key, (3,), minval=-1.0)
    view = jnp.clip(view * brightness, 0, 1)
    view = jnp.clip(_blend(view, (view @ jnp.array(_GREY)).mean(), contrast), 0, 1)
    view = jnp.clip(_blend(view, (view @ jnp.array(_GREY))[..., None], saturation), 0, 1)
    return jnp.where(jax.random.bernoulli(flip_key, settings.flip), view[:, ::-1], view)


def _blend(view: Array, other: Array, factor: Array) -> Array:
    return factor * view + (1 - factor) * other


def _crop(image: Array, key: jax.Array, size: int, settings: Augmentation) -> Array:
    """A box of random area and shape at a random place, resampled bilinearly with antialiasing.

    A box that does not fit is cut to the image, where torchvision draws again.
    """
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    height, width = image.shape[:2]
    area = jax.random.uniform(area_key, minval=settings.area[0], maxval=settings.area[1]) * height * width
    ratio = jnp.exp(math.log(settings.ratio) * jax.random.uniform(ratio_key, minval=-1.0))
    box = jnp.minimum(jnp.stack([jnp.sqrt(area / ratio), jnp.sqrt(area * ratio)]), jnp.array([height, width]))
    corner = jax.random.uniform(place_key, (2,)) * (jnp.array([height, width]) - box)
    scale = size / box
    view = jax.image.scale_and_translate(image, (size, size, 3), (0, 1), scale, -corner * scale, "bilinear")
    return jnp.clip(view, 0, 1)
