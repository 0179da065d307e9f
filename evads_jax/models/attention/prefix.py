"""Attention of prompts, and of the groups of suffixes that share them, written as few large batched matmuls.

Keys and values are laid out [B, K, T, H]. The N/K query heads that share a key/value head are folded into the rows
of the matmul, so grouped-query attention never repeats a key. A suffix token attends to its prompt and, causally,
to its own suffix under one softmax: the two blocks of logits are exponentiated against a common maximum, and their
weighted values and their sums are added. Nothing is duplicated G-fold, and plain differentiation is exact.

Long prompts are read a tile at a time (`tiled`), by the tokens of the prompt and by whole suffixes alike; attention of
a suffix to itself is then joined to that by the log-sum-exp that `tiled.attend` gives, which has a gradient.

Queries come scaled by 1/√H. Logits and softmax are float32 at least, whatever the inputs are.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from evads_jax.models.attention import tiled
from evads_jax.models.attention.products import masked_logits, product


def prompt_attention(
    q: Float[Array, "B T N H"], k: Float[Array, "B K T H"], v: Float[Array, "B K T H"]
) -> Float[Array, "B T N H"]:
    """Causal attention of right-padded prompts; the rows of padded tokens are meaningless but finite.

    No length is needed: a real token never looks to its right, where the padding is.
    """
    B, T, N, H = q.shape
    K = k.shape[1]
    R = N // K
    rows = q.reshape(B, T, K, R, H).transpose(0, 2, 1, 3, 4).reshape(B, K, T * R, H)
    if T > tiled.PLAIN_PROMPT:
        out, _ = tiled.attend(rows, k, v, np.repeat(np.arange(1, T + 1), R), R)
    else:
        out = _softmax_average([masked_logits(rows, k, np.repeat(np.tri(T, dtype=bool), R, axis=0))], [v])
    return out.astype(q.dtype).reshape(B, K, T, R, H).transpose(0, 2, 1, 3, 4).reshape(B, T, N, H)


def last_token_attention(
    q: Float[Array, "B N H"], k: Float[Array, "B K T H"], v: Float[Array, "B K T H"], lengths: Int[Array, " B"]
) -> Float[Array, "B N H"]:
    """Attention of one token per prompt, its last real one, to the whole prompt."""
    B, N, H = q.shape
    K, T = k.shape[1:3]
    logits = masked_logits(q.reshape(B, K, N // K, H), k, _real(lengths, T))
    return _softmax_average([logits], [v]).astype(q.dtype).reshape(B, N, H)


def masked_attention(
    q: Float[Array, "B N M H"], k: Float[Array, "B N T H"], v: Float[Array, "B N T H"], mask: Bool[Array, "B 1 #M T"]
) -> Float[Array, "B N M H"]:
    """Attention with a mask, heads before tokens and one key head per query head."""
    return _softmax_average([masked_logits(q, k, mask)], [v]).astype(q.dtype)


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
    own = masked_logits(rows.reshape(B, K, G, S * R, H), own_k, jnp.repeat(own_mask, R, axis=0))
    rows = rows.reshape(B, K, G * S * R, H)
    if T > tiled.PLAIN_SUFFIXES and S > 1:
        average, lse = tiled.attend(rows, prompt_k, prompt_v, lengths[:, None, None], R)
        out = _joined(average.reshape(B, K, G, S * R, H), lse.reshape(B, K, G, S * R), own, own_v)
    else:  # decoding has too few logits to cut them
        prompt = masked_logits(rows, prompt_k, _real(lengths, T))
        out = _softmax_average([prompt, own], [prompt_v, own_v])
    out = out.astype(q.dtype)
    return out.reshape(B, K, G, S, R, H).transpose(0, 2, 3, 1, 4, 5).reshape(B, G, S, N, H)


def _real(lengths: Int[Array, " B"], T: int) -> Bool[Array, "B 1 1 T"]:
    return (jnp.arange(T) < lengths[:, None])[:, None, None, :]


def _softmax_average(logits, values):
    """The values averaged under one softmax over all blocks; each block is [*batch, M, T], its values [*batch, T, H].

    The blocks may split the rows into batches differently; the result has the shape of the last one.
    """
    rows = logits[-1].shape[:-1]
    top = jax.lax.stop_gradient(functools.reduce(jnp.maximum, [x.max(axis=-1).reshape(rows) for x in logits]))
    total = average = jnp.zeros(())
    for block, value in zip(logits, values, strict=True):
        weight = jnp.exp(block - top.reshape(block.shape[:-1])[..., None])
        total = total + weight.sum(axis=-1).reshape(rows)
        average = average + product(weight, value, (-1, -2)).reshape(*rows, -1)
    return average / total[..., None]


def _joined(average, lse, logits, values):
    """One softmax over what `average` [*batch, M, H] and `lse` [*batch, M] are of, and a further block of logits."""
    top = jax.lax.stop_gradient(jnp.maximum(lse, logits.max(axis=-1)))
    weight, share = jnp.exp(logits - top[..., None]), jnp.exp(lse - top)[..., None]
    total = weight.sum(axis=-1, keepdims=True) + share
    return (product(weight, values, (-1, -2)) + share * average) / total
