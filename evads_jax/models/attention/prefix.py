"""Attention of prompts, and of the groups of suffixes that share them, written as few large batched matmuls.

Keys and values are laid out [B, K, T, H]. The N/K query heads that share a key/value head are folded into the rows
of the matmul, so grouped-query attention never repeats a key. A suffix token attends to its prompt and, causally,
to its own suffix under one softmax: the two blocks of logits are exponentiated against a common maximum, and their
weighted values and their sums are added. Nothing is duplicated G-fold, and plain differentiation is exact.

Queries come scaled by 1/√H. Logits and softmax are float32 at least, whatever the inputs are.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

TILE = 1024  # tokens
MASKED = -1e30  # finite: a row without any visible key stays finite, and its result is never used


def prompt_attention(
    q: Float[Array, "B T N H"], k: Float[Array, "B K T H"], v: Float[Array, "B K T H"]
) -> Float[Array, "B T N H"]:
    """Causal attention of right-padded prompts; the rows of padded tokens are meaningless but finite.

    No length is needed: a real token never looks to its right, where the padding is. The logits of at most `TILE`
    tokens exist at one time, in the forward and in the backward pass.
    """
    T = q.shape[1]
    if T <= TILE:
        return _causal(q, k, v, np.tri(T, dtype=bool))
    tiles = -(-T // TILE)
    size = -(-T // tiles)
    padded = jnp.pad(q, ((0, 0), (0, tiles * size - T), (0, 0), (0, 0)))

    @jax.checkpoint
    def tile(queries, start):
        return _causal(queries, k, v, start + jnp.arange(size)[:, None] >= jnp.arange(T))

    queries = padded.reshape(q.shape[0], tiles, size, *q.shape[2:]).swapaxes(0, 1)
    out = jax.lax.map(lambda inputs: tile(*inputs), (queries, size * jnp.arange(tiles)))
    return out.swapaxes(0, 1).reshape(padded.shape)[:, :T]


def _causal(
    q: Float[Array, "B M N H"], k: Float[Array, "B K T H"], v: Float[Array, "B K T H"], mask: Array | np.ndarray
) -> Float[Array, "B M N H"]:
    """Attention of some tokens of each prompt to those of its tokens that the mask [M, T] shows."""
    B, M, N, H = q.shape
    K = k.shape[1]
    rows = q.reshape(B, M, K, N // K, H).transpose(0, 2, 1, 3, 4).reshape(B, K, M * (N // K), H)
    repeated = (np if isinstance(mask, np.ndarray) else jnp).repeat(mask, N // K, axis=0)
    out = _softmax_average([_logits(rows, k, repeated)], [v]).astype(q.dtype)
    return out.reshape(B, K, M, N // K, H).transpose(0, 2, 1, 3, 4).reshape(B, M, N, H)


def last_token_attention(
    q: Float[Array, "B N H"], k: Float[Array, "B K T H"], v: Float[Array, "B K T H"], lengths: Int[Array, " B"]
) -> Float[Array, "B N H"]:
    """Attention of one token per prompt, its last real one, to the whole prompt."""
    B, N, H = q.shape
    K, T = k.shape[1:3]
    logits = _logits(q.reshape(B, K, N // K, H), k, _real(lengths, T))
    return _softmax_average([logits], [v]).astype(q.dtype).reshape(B, N, H)


def masked_attention(
    q: Float[Array, "B N M H"], k: Float[Array, "B N T H"], v: Float[Array, "B N T H"], mask: Bool[Array, "B 1 #M T"]
) -> Float[Array, "B N M H"]:
    """Attention with a mask, heads before tokens and one key head per query head."""
    return _softmax_average([_logits(q, k, mask)], [v]).astype(q.dtype)


def suffix_attention(
    q: Float[Array, "B G S N H"],
    prompt_k: Float[Array, "B K T H"],
    prompt_v: Float[Array, "B K T H"],
    lengths: Int[Array, " B"],
    own_k: Float[Array, "B K G U H"],
    own_v: Float[Array, "B K G U H"],
    own_mask: Bool[Array, "S U"],
) -> Float[Array, "B G S N H"]:
    """Attention of each suffix to [its prompt | itself] with one softmax.

    Scoring passes whole suffixes (U = S and a causal mask), decoding one new token (S = 1) over a cache of U.

    Args:
      q: queries of the suffix tokens.
      prompt_k: keys of the prompts, once per prompt.
      prompt_v: values of the prompts.
      lengths: real tokens of each prompt.
      own_k: keys of the suffixes.
      own_v: values of the suffixes.
      own_mask: which of its own suffix's tokens each query sees.
    """
    B, G, S, N, H = q.shape
    K, T = prompt_k.shape[1:3]
    R = N // K
    rows = q.reshape(B, G, S, K, R, H).transpose(0, 3, 1, 2, 4, 5)
    prompt = _logits(rows.reshape(B, K, G * S * R, H), prompt_k, _real(lengths, T))
    own = _logits(rows.reshape(B, K, G, S * R, H), own_k, jnp.repeat(own_mask, R, axis=0))
    out = _softmax_average([prompt, own], [prompt_v, own_v]).astype(q.dtype)
    return out.reshape(B, K, G, S, R, H).transpose(0, 2, 3, 1, 4, 5).reshape(B, G, S, N, H)


def _real(lengths: Int[Array, " B"], T: int) -> Bool[Array, "B 1 1 T"]:
    return (jnp.arange(T) < lengths[:, None])[:, None, None, :]


def _logits(rows, keys, mask):
    """Masked logits of `rows` [*batch, M, H] against `keys` [*batch, T, H]."""
    batch = tuple(range(rows.ndim - 2))
    contract = ((rows.ndim - 1,), (keys.ndim - 1,))
    accumulate = jnp.promote_types(rows.dtype, jnp.float32)
    logits = jax.lax.dot_general(rows, keys, (contract, (batch, batch)), preferred_element_type=accumulate)
    return jnp.where(mask, logits, MASKED)


def _softmax_average(logits, values):
    """The values averaged under one softmax over all blocks; each block is [*batch, M, T], its values [*batch, T, H].

    The blocks may split the rows into batches differently; the result has the shape of the last one.
    """
    rows = logits[-1].shape[:-1]
    top = jax.lax.stop_gradient(functools.reduce(jnp.maximum, [x.max(axis=-1).reshape(rows) for x in logits]))
    total = average = jnp.zeros(())
    for block, value in zip(logits, values, strict=True):
        weight = jnp.exp(block - top.reshape(block.shape[:-1])[..., None])
        batch = tuple(range(block.ndim - 2))
        contract = ((block.ndim - 1,), (value.ndim - 2,))
        out = jax.lax.dot_general(
            weight.astype(value.dtype), value, (contract, (batch, batch)), preferred_element_type=weight.dtype
        )
        total = total + weight.sum(axis=-1).reshape(rows)
        average = average + out.reshape(*rows, -1)
    return average / total[..., None]
