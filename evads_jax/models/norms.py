"""The norms that the transformers here share: in float32 at least, returned in the type of their input."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def rms_norm(x: Float[Array, "... D"], scale: Float[Array, " D"], epsilon: float) -> Float[Array, "... D"]:
    """X / √(mean(x²) + ε) · scale."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + epsilon)
    return (wide * scale).astype(x.dtype)


def layer_norm(norm: Mapping[str, Array], x: Float[Array, "... D"], epsilon: float = 1e-5) -> Float[Array, "... D"]:
    """(x − mean(x)) / √(variance(x) + ε) · scale + bias, over the last axis.

    Args:
      norm: `scale` and `bias`, each [D].
      x: the input.
      epsilon: ε; the default is that of PyTorch, and of CLIP.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
    wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + epsilon)
    return (wide * norm["scale"] + norm["bias"]).astype(x.dtype)
