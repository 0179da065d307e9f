"""Choosing a token from logits by the inverse of the cumulative distribution: one uniform number per token."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from evads_jax.sampling.config import SamplingConfig

_BLOCK = 64


def choose(
    logits: Float[Array, "n V"], uniform: Float[Array, " n"], sampling: SamplingConfig
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """One token per row and its log-probability.

    The log-probability is the model's own: at temperature 1 and with nothing cut off, whatever `sampling` says, so
    that it equals what `qwen_vl.score` gives the same token.

    Args:
      logits: float32 at least.
      uniform: numbers in [0, 1); unused at temperature 0.
      sampling: temperature and top-p.
    """
    logits = logits - logits.max(axis=-1, keepdims=True)
    if sampling.temperature == 0:
        token = jnp.argmax(logits, axis=-1)
    else:
        weights = jnp.exp(logits / sampling.temperature)
        token = inverse_cdf(nucleus(weights, sampling.top_p), uniform)
    chosen = jnp.take_along_axis(logits, token[:, None], axis=1)[:, 0]
    return token.astype(jnp.int32), (chosen - jnp.log(jnp.exp(logits).sum(axis=-1))).astype(jnp.float32)


def inverse_cdf(weights: Float[Array, "n V"], uniform: Float[Array, " n"]) -> Int[Array, " n"]:
    """The first token at which the cumulative weight exceeds `uniform` of the total; never one of weight 0."""
    cumulative = jnp.where(weights > 0, cumulative_sum(weights), 0)
    threshold = uniform[:, None] * cumulative.max(axis=-1, keepdims=True)
    return jnp.argmax(cumulative > threshold, axis=-1)


def nucleus(weights: Float[Array, "n V"], top_p: float) -> Float[Array, "n V"]:
    """Weights with those outside the smallest most likely set that reaches `top_p` of the total set to 0.

    Tokens that tie with the set's least likely one stay in.
    """
    if top_p >= 1:
        return weights
    ordered = jnp.sort(weights, axis=-1, descending=True)
    before = jnp.cumsum(ordered, axis=-1) - ordered
    kept = before < top_p * weights.sum(axis=-1, keepdims=True)
    least = jnp.where(kept, ordered, jnp.inf).min(axis=-1, keepdims=True)
    return jnp.where(weights >= least, weights, 0)


def cumulative_sum(x: Float[Array, "n V"]) -> Float[Array, "n V"]:
    """Cumulative sum along rows as a matmul within blocks and a sum over blocks: on a CPU much faster than a scan."""
    n, V = x.shape
    blocks = -(-V // _BLOCK)
    x = jnp.pad(x, ((0, 0), (0, blocks * _BLOCK - V)))
    within = (x.reshape(n * blocks, _BLOCK) @ np.triu(np.ones((_BLOCK, _BLOCK), np.float32))).reshape(n, blocks, _BLOCK)
    totals = within[..., -1]
    offsets = jnp.cumsum(totals, axis=1) - totals
    return (within + offsets[..., None]).reshape(n, -1)[:, :V]
