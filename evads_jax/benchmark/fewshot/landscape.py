"""The loss around a trained network, in the space of its representations.

Two walks, after the paper's analysis (its exact settings are open; these are ours):

1. `between_norms`: every norm layer at `w · own + (1 − w) · batch`, w from 0 to 1. A network of one norm uses that
   norm's scale and bias on both sides. FLoR's claim is that the middle is no hill.
2. `around`: each feature h becomes `h + ε ‖h‖ u`, u a random direction of length 1, so that ε = 1 is a change as large
   as the feature itself.

The loss is the cross-entropy of nearest prototypes over episodes, on source and targets alike, so that they can be
compared: `−log softmax(temperature · −‖q − p‖²)` of a query's class.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from evads_jax.benchmark.fewshot import prototypes
from evads_jax.benchmark.fewshot.episodes import Episodes
from evads_jax.benchmark.fewshot.features import embed
from evads_jax.models.flor import FlorConfig

Params = dict[str, Any]
_EDGE = 1e-12  # θ of w = 0 and 1 would be infinite


def loss(features: Float[Array, "M D"], episodes: Episodes, temperature: float, chunk: int = 64) -> float:
    """The mean cross-entropy of the queries of all episodes.

    Args:
      features: one an image, as the network gives them.
      episodes: which images are support and queries.
      temperature: what scores are multiplied by.
      chunk: episodes computed at one time.
    """
    return float(_loss(features, jnp.asarray(episodes.indices), episodes.shots, temperature, chunk))


def between_norms(
    params: Params,
    model: FlorConfig,
    images: Any,
    episodes: Episodes,
    weights: Sequence[float],
    temperature: float,
    batch: int = 128,
) -> list[float]:
    """The loss with every norm layer at each of some weights of the norm of one image.

    Args:
      params: the network.
      model: its sizes; any norm.
      images: uint8 [M, H, W, 3].
      episodes: drawn from them.
      weights: w, 0 … 1.
      temperature: of `loss`.
      batch: images computed at one time.
    """
    losses = []
    for weight in weights:
        inside = min(max(weight, _EDGE), 1 - _EDGE)
        mix = jnp.full(model.norm_layers, math.log(inside / (1 - inside)), jnp.float32)
        losses.append(loss(embed(params, model, images, batch, mix), episodes, temperature))
    return losses


def around(
    features: Float[Array, "M D"],
    episodes: Episodes,
    lengths: Sequence[float],
    draws: int,
    seed: int,
    temperature: float,
) -> list[float]:
    """The loss at each of some distances from the features, the mean over random directions.

    Args:
      features: one an image.
      episodes: which images are support and queries.
      lengths: ε.
      draws: directions for each image; the same for every length.
      seed: of the directions.
      temperature: of `loss`.
    """
    norms = jnp.linalg.norm(features, axis=-1, keepdims=True)
    total = np.zeros(len(lengths))
    for key in jax.random.split(jax.random.key(seed), draws):
        change = norms * prototypes.unit_length(jax.random.normal(key, features.shape))
        total += [loss(features + length * change, episodes, temperature) for length in lengths]
    return (total / draws).tolist()


@functools.partial(jax.jit, static_argnames=("shots", "chunk"))
def _loss(
    features: Array, indices: Int[Array, "E n k+q"], shots: int, temperature: float, chunk: int
) -> Float[Array, ""]:
    unit = prototypes.unit_length(features)

    def one(chosen: Int[Array, "n k+q"]) -> Float[Array, ""]:
        scores = prototypes.scores(unit[chosen[:, :shots]], unit[chosen[:, shots:]])
        logprobs = jax.nn.log_softmax(temperature * scores, axis=-1)
        return -jnp.einsum("cqc->", logprobs) / (logprobs.shape[0] * logprobs.shape[1])

    return jax.lax.map(one, indices, batch_size=chunk).mean()
