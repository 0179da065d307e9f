"""The matrix products that attention is made of, batched over all leading axes."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

MASKED = -1e30  # finite: a row without any visible key stays finite, and its result is never used


def product(a: Array, b: Array, over: tuple[int, int]) -> Array:
    """Matrix product of the last two axes, in the type of `b`, summed in float32 at least.

    Args:
      a: [*batch, m, n].
      b: [*batch, k, l].
      over: the axis of each that is summed over, −1 or −2; the other one stays, that of `a` first.
    """
    batch = tuple(range(a.ndim - 2))
    contract = ((a.ndim + over[0],), (b.ndim + over[1],))
    accumulate = jnp.promote_types(b.dtype, jnp.float32)
    return jax.lax.dot_general(a.astype(b.dtype), b, (contract, (batch, batch)), preferred_element_type=accumulate)


def masked_logits(rows: Array, keys: Array, mask: Array | np.ndarray) -> Array:
    """Logits of `rows` [*batch, M, H] against `keys` [*batch, T, H], `MASKED` where `mask` is False."""
    return jnp.where(mask, product(rows, keys, (-1, -1)), MASKED)
