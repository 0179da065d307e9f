"""The two norms of both families, in float32 at least and returned in the type of their input."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from evads_jax.models.qwen_vl.parameters import Params


def rms_norm(x: Float[Array, "... D"], scale: Float[Array, " D"], epsilon: float) -> Float[Array, "... D"]:
    """Returns x / √(mean(x²) + ε) · scale, in float32 at least, in the type of `x`."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + epsilon)
    return (wide * scale).astype(x.dtype)


def layer_norm(norm: Params, x: Float[Array, "n D"]) -> Float[Array, "n D"]:
    """Layer norm with ε = 1e-6, in float32 at least, returned in the type of `x`."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
    wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + 1e-6)
    return (wide * norm["scale"] + norm["bias"]).astype(x.dtype)


def vision_norm(norm: Params, x: Float[Array, "n D"]) -> Float[Array, "n D"]:
    """A layer norm where the parameters have a bias, else an RMSNorm; ε = 1e-6 in both."""
    return layer_norm(norm, x) if "bias" in norm else rms_norm(x, norm["scale"], 1e-6)
