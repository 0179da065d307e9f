"""Features of a whole set of images, computed once and used by all episodes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from evads_jax.models import flor
from evads_jax.models.flor import FlorConfig

Params = dict[str, Any]


def embed(
    params: Params, config: FlorConfig, images: Any, batch: int = 128, mix: Float[Array, " L"] | None = None
) -> Float[Array, "M D"]:
    """The features of images, in the mode "test".

    Args:
      params: the network.
      config: its sizes.
      images: M 8-bit RGB images of the network's size; anything that has a length and gives slices as arrays
        [b, H, W, 3], so that they may be decoded as they are read.
      batch: images computed at one time; the last batch is filled up, so that there is one compilation.
      mix: θ of every layer in place of the mean weight (the mode "finetune"); for looking at the loss between norms.
    """
    found = []
    for start in range(0, len(images), batch):
        part = np.asarray(images[start : start + batch])
        filled = np.pad(part, ((0, batch - len(part)), (0, 0), (0, 0), (0, 0)))
        found.append(_embed(params, config, filled, mix)[: len(part)])
    return jnp.concatenate(found)


@functools.partial(jax.jit, static_argnums=1)
def _embed(params: Params, config: FlorConfig, images: Array, mix: Array | None) -> Array:
    mode = "test" if mix is None else "finetune"
    return flor.features(params, config, images.astype(jnp.float32) / 255, mode, mix=mix)[0]
