"""Several questions about the same prompts: encode the videos once, prefill once, answer all questions together."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from evads_jax.models.qwen_vl import Prefix, PromptBatch, QwenVLConfig, encode_video, prefill
from evads_jax.models.qwen_vl.parameters import Params
from evads_jax.models.qwen_vl.text import extend_cached
from evads_jax.sampling.cache import KVCache
from evads_jax.sampling.config import SamplingConfig
from evads_jax.sampling.decode import decode
from evads_jax.sampling.rollout import Rollout


@functools.partial(jax.jit, static_argnames=("config", "sampling"))
def answer(
    params: Params,
    config: QwenVLConfig,
    prompts: PromptBatch,
    questions: Int[Array, "B G Q"],
    lengths: Int[Array, "B G"],
    question_ids: Int[Array, "B G"],
    sampling: SamplingConfig,
    key: Array,
) -> Rollout:
    """One completion for each of G questions of each of B prompts.

    The same as `rollout.sample` of B·G whole prompts with one sample each and `question_ids` as their ids: what a
    question gets depends neither on the others nor on any padding.

    Args:
      params: the model's parameters.
      config: the model's sizes.
      prompts: what the questions share: the prompts up to where they begin.
      questions: their token ids, right-padded to Q, up to where the completion begins.
      lengths: real tokens of each, at least one.
      question_ids: a number per question, that is its own.
      sampling: how tokens are chosen, and S.
      key: PRNG key.

    Returns:
      The completions, one sample of each of B·G prompts: `tokens` is [B·G, 1, S].
    """
    B, G, _ = questions.shape
    prefix = prefill(params, config, prompts, encode_video(params, config, prompts.video))
    hidden, keys, values = extend_cached(params, config, prefix, questions)
    last = jnp.take_along_axis(hidden, lengths[..., None, None] - 1, axis=2).reshape(B * G, -1)
    whole = Prefix(
        keys=tuple(_joined(prefix.keys[i], keys[i], prefix.lengths) for i in range(config.layers)),
        values=tuple(_joined(prefix.values[i], values[i], prefix.lengths) for i in range(config.layers)),
        lengths=(prefix.lengths[:, None] + lengths).reshape(-1),
        next_position=(prefix.next_position[:, None] + lengths).reshape(-1),
        last=last,
    )
    cache = KVCache.create(config, whole, 1, sampling.widths[0])
    ids = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(key, i), 0)[None])(question_ids.reshape(-1))
    out = decode(params, config, sampling, cache, last, ids, whole.lengths == 0)
    return Rollout(out.tokens, out.lengths, out.logprobs, out.done)


def _joined(prompt: Array, question: Array, lengths: Int[Array, " B"]) -> Array:
    """Prompt [B, K, T, H] and questions [B, K, G, Q, H] as [B·G, K, T + Q, H], each question behind its prompt's end.

    What follows a question is padding, of its own and of the prompt's: the lengths say where.
    """
    G, Q = question.shape[2:4]

    def put(prompt: Array, question: Array, length: Array) -> Array:
        room = jnp.pad(prompt, ((0, 0), (0, Q), (0, 0)))
        return jax.lax.dynamic_update_slice_in_dim(room, question, length, axis=1)

    rows = question.transpose(0, 2, 1, 3, 4).reshape(-1, *question.shape[1:2], *question.shape[3:])
    return jax.vmap(put)(jnp.repeat(prompt, G, axis=0), rows, jnp.repeat(lengths, G))
