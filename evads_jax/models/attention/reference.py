"""Attention with a mask, as short as the definition: what the fast forms in this folder are compared with."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def attention(
    q: Float[Array, "*batch M N H"],
    k: Float[Array, "*batch T K H"],
    v: Float[Array, "*batch T K H"],
    mask: Bool[Array, "*batch M T"],
) -> Float[Array, "*batch M N H"]:
    """softmax(q kᵀ) v per head over the keys that `mask` shows; query head n reads key/value head n // (N/K).

    Queries come scaled by 1/√H. Every row must see at least one key.
    """
    repeats = q.shape[-2] // k.shape[-2]
    k, v = (jnp.repeat(x, repeats, axis=-2) for x in (k, v))
    logits = jnp.einsum("...mnh,...tnh->...nmt", q, k)
    weights = jax.nn.softmax(jnp.where(mask[..., None, :, :], logits, -jnp.inf), axis=-1)
    return jnp.einsum("...nmt,...tnh->...mnh", weights, v)
