"""Decoding: one token of every sample at a time, in loops of static shape that end when all samples have."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from evads_jax.models.attention.prefix import suffix_attention
from evads_jax.models.qwen_vl import QwenVLConfig, mrope, text
from evads_jax.models.qwen_vl.parameters import Params
from evads_jax.models.stacked import unstack
from evads_jax.sampling.cache import KVCache
from evads_jax.sampling.choose import choose
from evads_jax.sampling.config import SamplingConfig


@struct.dataclass
class Decoded:
    """The loop's result, and its carry.

    Attributes:
      step: tokens decoded so far.
      tokens: sampled ids, the pad id after the end of a sample.
      logprobs: log-probability of each sampled token under the model itself (temperature 1, nothing cut off).
      lengths: tokens of each sample, its stop token included.
      done: whether a sample has ended with a stop token.
      cache: the keys and values.
    """

    step: Int[Array, ""]
    tokens: Int[Array, "B G S"]
    logprobs: Float[Array, "B G S"]
    lengths: Int[Array, "B G"]
    done: Bool[Array, "B G"]
    cache: KVCache


def decode(
    params: Params,
    config: QwenVLConfig,
    sampling: SamplingConfig,
    cache: KVCache,
    last: Float[Array, "B D"],
    keys: Array,
    absent: Bool[Array, " B"],
) -> Decoded:
    """Samples until every sample has ended or S tokens are reached.

    Args:
      params: the model's parameters.
      config: the model's sizes.
      sampling: how tokens are chosen, and S.
      cache: the prompts' cache, with room for as many tokens of G samples each as the first of `sampling.widths`.
      last: the hidden state that predicts the first token.
      keys: one PRNG key per sample [B, G]; step s uses fold_in(key, s), whatever S is.
      absent: prompts that are padding; they count as done from the start.
    """
    B, G = keys.shape
    S = sampling.max_new_tokens
    layers = unstack(params["text"]["layers"], config.layers)
    uniforms = jax.vmap(jax.vmap(lambda key: jax.vmap(lambda s: _uniform(key, s))(jnp.arange(S))))(keys)

    def add(state: Decoded, hidden: Array) -> Decoded:
        """Chooses the token of the current step from the states that predict it."""
        logits = text.head(params, config, hidden)
        uniform = jax.lax.dynamic_index_in_dim(uniforms, state.step, axis=2, keepdims=False)
        token, logprob = choose(logits, uniform.reshape(-1), sampling)
        token = jnp.where(state.done, sampling.pad_id, token.reshape(B, G))
        logprob = jnp.where(state.done, 0.0, logprob.reshape(B, G))

        def put(old: Array, new: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(old, new[..., None], state.step, axis=2)

        return dataclasses.replace(
            state,
            step=state.step + 1,
            tokens=put(state.tokens, token),
            logprobs=put(state.logprobs, logprob),
            lengths=state.lengths + ~state.done,
            done=state.done | jnp.isin(token, jnp.asarray(sampling.stop_ids, jnp.int32)),
        )

    def body(state: Decoded) -> Decoded:
        previous = jax.lax.dynamic_index_in_dim(state.tokens, state.step - 1, axis=2, keepdims=False)
        hidden, cache = decode_step(params, config, layers, state.cache, previous, state.step - 1)
        return add(dataclasses.replace(state, cache=cache), hidden)

    done = jnp.broadcast_to(absent[:, None], (B, G))
    state = Decoded(
        step=jnp.int32(0),
        tokens=jnp.full((B, G, S), sampling.pad_id, jnp.int32),
        logprobs=jnp.zeros((B, G, S), jnp.float32),
        lengths=jnp.zeros((B, G), jnp.int32),
        done=done,
        cache=cache,
    )
    state = add(state, jnp.repeat(last, G, axis=0))
    for width in sampling.widths:
        state = dataclasses.replace(state, cache=state.cache.widened(width))
        state = jax.lax.while_loop(functools.partial(_goes_on, width), body, state)
    return dataclasses.replace(state, done=state.done & ~done)


def _goes_on(width: int, state: Decoded) -> Bool[Array, ""]:
    return (state.step < width) & ~state.done.all()


def decode_step(
    params: Params,
    config: QwenVLConfig,
    layers: list[Params],
    cache: KVCache,
    tokens: Int[Array, "B G"],
    step: Int[Array, ""],
) -> tuple[Float[Array, "BG D"], KVCache]:
    """Runs the token that stands at place `step` of every sample; returns the states that predict the next one.

    Args:
      params: the model's parameters.
      config: the model's sizes.
      layers: the decoder's layers, unstacked.
      cache: filled up to `step`.
      tokens: the token of every sample.
      step: its place in the sample.
    """
    B, G = tokens.shape
    K, H = config.kv_heads, config.head_width
    x = text.embed(params, config, tokens.reshape(-1))
    positions = jnp.repeat(cache.next_position + step, G)
    rotation = mrope.text_rotation(positions, config)
    visible = (jnp.arange(cache.keys[0].shape[3]) <= step)[None, :]
    for i, layer in enumerate(layers):
        q, k, v = text.project(layer, config, x, rotation)
        k, v = (h.reshape(B, G, K, 1, H).transpose(0, 2, 1, 3, 4) for h in (k, v))
        cache = cache.write(i, step, k, v)
        attended = suffix_attention(
            q.reshape(B, G, 1, config.heads, H),
            cache.prompt_keys[i],
            cache.prompt_values[i],
            cache.lengths,
            cache.keys[i],
            cache.values[i],
            visible,
        )
        x = text.finish(layer, config, x, attended.reshape(q.shape))
    return text.rms_norm(x, params["text"]["norm"]["scale"], config.norm_epsilon), cache


def _uniform(key: Array, step: Int[Array, ""]) -> Float[Array, ""]:
    return jax.random.uniform(jax.random.fold_in(key, step))
