"""Attention over many keys, a tile of rows and a tile of keys at a time, with a backward pass of its own.

Forward, each tile of rows goes over the tiles of keys with a running maximum, sum and average, and only

    average = softmax(q kᵀ) v        lse = log Σ exp(q kᵀ)

are kept. Backward, the weights of a tile are computed again as exp(q kᵀ − lse), and with the gradients dA of the
average and dL of lse

    dv = weightsᵀ dA        d(q kᵀ) = weights · (dA vᵀ − Σ dA · average + dL)

(the algorithm of FlashAttention, arXiv 2205.14135 and 2307.08691, with the gradient of lse added). No array of all
logits exists in either pass. lse is a result like the other, with a gradient, so that attention to further keys can be
joined exactly. The pairs of tiles in which no row sees any key are left out: which ones, is known when the program is
compiled, as far as the mask is.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from evads_jax.models.attention.products import MASKED, masked_logits, product

TILE = 512  # tokens of a tile, of the rows as of the keys; the fastest from 2,112 tokens on (docs/performance.md)
# The longest prompts, in tokens, that are not cut, by the matrix products of both passes. The plain form keeps the
# weights and needs two forward and four backward, this one two and five. Of the n² pairs of tiles under a causal mask
# (n + 1) · n / 2 are computed: 7 · (n + 1) / 2n products against 6, a fifth less from three tiles on. For suffixes none
# is left out; only passes over logits in memory are saved, which weighs as much once these fit no cache.
PLAIN_PROMPT, PLAIN_SUFFIXES = 512, 2048


class Cut(NamedTuple):
    """How the work is cut, known when it is compiled.

    Attributes:
      rows: rows of a tile.
      keys: keys of a tile.
      pairs: the pairs (tile of rows, tile of keys) that are computed.
    """

    rows: int
    keys: int
    pairs: tuple[tuple[int, int], ...]


def attend(
    rows: Float[Array, "*batch M H"],
    keys: Float[Array, "*batch T H"],
    values: Float[Array, "*batch T H"],
    limits: Int[Array | np.ndarray, "*#batch #M"],
    per_token: int = 1,
) -> tuple[Float[Array, "*batch M H"], Float[Array, "*batch M"]]:
    """The average and the log-sum-exp of each row, both differentiable, float32 at least.

    A row that sees no key has a finite, meaningless average and a log-sum-exp of about `MASKED`.

    Args:
      rows: queries, scaled by 1/√H; a tile holds those of `TILE` tokens.
      keys: the keys that rows of the same batch place share.
      values: their values.
      limits: how many of the keys, from the first on, each row sees. As a NumPy array it also says which tiles need
        not be computed.
      per_token: consecutive rows that belong to one token: the query heads that share a key/value head.
    """
    M, T = rows.shape[-2], keys.shape[-2]
    tall, wide = per_token * _even(M // per_token), _even(T)
    known = isinstance(limits, np.ndarray)
    xp = np if known else jnp
    limits = xp.broadcast_to(limits, (*limits.shape[:-1], M))[..., None]
    limits = xp.pad(limits, [(0, 0)] * (limits.ndim - 2) + [(0, -M % tall), (0, 0)])
    every = [(i, j) for i in range(-(-M // tall)) for j in range(-(-T // wide))]
    if known:
        most = limits.reshape(-1, limits.shape[-2] // tall, tall).max(axis=(0, 2))
        every = [(i, j) for i, j in every if j * wide < most[i]]
    rows, keys, values = _padded(rows, tall), _padded(keys, wide), _padded(values, wide)
    average, lse = _attend(rows, keys, values, jnp.asarray(limits), Cut(tall, wide, tuple(every)))
    return average[..., :M, :], lse[..., :M, 0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(rows: Array, keys: Array, values: Array, limits: Array, cut: Cut) -> tuple[Array, Array]:
    wide = jnp.promote_types(values.dtype, jnp.float32)
    column = (*rows.shape[:-1], 1)
    best, total = jnp.full(column, MASKED, wide), jnp.zeros(column, wide)
    average = jnp.zeros((*rows.shape[:-1], values.shape[-1]), wide)

    def step(state, pair):
        i, j = pair
        best, total, average = (_take(x, i, cut.rows) for x in state)
        logits = _logits(rows, keys, limits, cut, i, j)
        top = jnp.maximum(best, logits.max(axis=-1, keepdims=True))
        weights, decay = jnp.exp(logits - top), jnp.exp(best - top)
        total = decay * total + weights.sum(axis=-1, keepdims=True)
        average = decay * average + product(weights, _take(values, j, cut.keys), (-1, -2))
        return tuple(_put(x, part, i, cut.rows) for x, part in zip(state, (top, total, average), strict=True)), None

    (best, total, average), _ = jax.lax.scan(step, (best, total, average), _pairs(cut))
    return average / total, best + jnp.log(total)


def _forward(rows: Array, keys: Array, values: Array, limits: Array, cut: Cut):
    average, lse = _attend(rows, keys, values, limits, cut)
    return (average, lse), (rows, keys, values, limits, average, lse)


def _backward(cut: Cut, kept, gradients):
    rows, keys, values, limits, average, lse = kept
    d_average, d_lse = gradients
    shift = d_lse - (d_average * average).sum(axis=-1, keepdims=True)
    narrow = d_average.astype(values.dtype)
    zeros = tuple(jnp.zeros(x.shape, average.dtype) for x in (rows, keys, values))

    def step(state, pair):
        i, j = pair
        row, key, value = _take(rows, i, cut.rows), _take(keys, j, cut.keys), _take(values, j, cut.keys)
        gradient = _take(narrow, i, cut.rows)
        weights = jnp.exp(_logits(rows, keys, limits, cut, i, j) - _take(lse, i, cut.rows))
        d_logits = weights * (product(gradient, value, (-1, -1)) + _take(shift, i, cut.rows))
        added = (
            (product(d_logits, key, (-1, -2)), i, cut.rows),
            (product(d_logits, row, (-2, -2)), j, cut.keys),
            (product(weights, gradient, (-2, -2)), j, cut.keys),
        )
        summed = (
            _put(x, _take(x, at, size) + part, at, size) for x, (part, at, size) in zip(state, added, strict=True)
        )
        return tuple(summed), None

    found, _ = jax.lax.scan(step, zeros, _pairs(cut))
    d_rows, d_keys, d_values = (x.astype(like.dtype) for x, like in zip(found, (rows, keys, values), strict=True))
    return d_rows, d_keys, d_values, None


_attend.defvjp(_forward, _backward)


def _logits(rows: Array, keys: Array, limits: Array, cut: Cut, i: Array, j: Array) -> Array:
    """Masked logits of one pair of tiles."""
    seen = j * cut.keys + jnp.arange(cut.keys) < _take(limits, i, cut.rows)
    return masked_logits(_take(rows, i, cut.rows), _take(keys, j, cut.keys), seen)


def _even(length: int) -> int:
    """The size of the fewest tiles of at most `TILE` that hold a length, as equal as can be."""
    return -(-length // -(-length // TILE))


def _padded(x: Array, size: int) -> Array:
    return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, -x.shape[-2] % size), (0, 0)])


def _pairs(cut: Cut) -> tuple[np.ndarray, np.ndarray]:
    rows, keys = np.asarray(cut.pairs, np.int32).T
    return rows, keys


def _take(x: Array, tile: Array, size: int) -> Array:
    """One tile of the axis before the last."""
    return jax.lax.dynamic_slice_in_dim(x, tile * size, size, axis=x.ndim - 2)


def _put(x: Array, part: Array, tile: Array, size: int) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(x, part, tile * size, axis=x.ndim - 2)
