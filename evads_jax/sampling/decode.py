"""Decoding: one token of every sample at a time, in loops of static shape that end when all samples have.

Where the samples that are left shall go on by themselves (`SamplingConfig.compact`), a loop ends as soon as there are
few enough, and the next one holds no others.
"""

import dataclasses
import functools
import itertools

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
      uniforms: the number that each token is drawn with.
      cache: the keys and values.
    """

    step: Int[Array, ""]
    tokens: Int[Array, "B G S"]
    logprobs: Float[Array, "B G S"]
    lengths: Int[Array, "B G"]
    done: Bool[Array, "B G"]
    uniforms: Float[Array, "B G S"]
    cache: KVCache

    def only(self, chosen: Int[Array, " n"]) -> "Decoded":
        """Some samples, by their numbers b·G + g, as n prompts of one sample each."""

        def rows(x: Array) -> Array:
            return x.reshape(-1, 1, *x.shape[2:])[chosen]

        return Decoded(
            step=self.step,
            tokens=rows(self.tokens),
            logprobs=rows(self.logprobs),
            lengths=rows(self.lengths),
            done=rows(self.done),
            uniforms=rows(self.uniforms),
            cache=self.cache.only(chosen),
        )

    def joined(self, places: Int[Array, " n"], part: "Decoded") -> "Decoded":
        """These samples with what became of those of `part`, which have these numbers here; the cache stays."""

        def put(x: Array, new: Array) -> Array:
            return x.reshape(-1, *x.shape[2:]).at[places].set(new[:, 0]).reshape(x.shape)

        return dataclasses.replace(
            self,
            tokens=put(self.tokens, part.tokens),
            logprobs=put(self.logprobs, part.logprobs),
            lengths=put(self.lengths, part.lengths),
            done=put(self.done, part.done),
        )


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

    def add(state: Decoded, hidden: Array) -> Decoded:
        """Chooses the token of the current step from the states that predict it."""
        logits = text.head(params, config, hidden)
        uniform = jax.lax.dynamic_index_in_dim(state.uniforms, state.step, axis=2, keepdims=False)
        token, logprob = choose(logits, uniform.reshape(-1), sampling)
        token = jnp.where(state.done, sampling.pad_id, token.reshape(state.done.shape))
        logprob = jnp.where(state.done, 0.0, logprob.reshape(state.done.shape))

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

    def run(state: Decoded, widths: tuple[int, ...], least: int) -> Decoded:
        """Goes on until no more than `least` samples are left, or the last width is reached."""
        for width in widths:
            state = dataclasses.replace(state, cache=state.cache.widened(width))
            state = jax.lax.while_loop(functools.partial(_goes_on, width, least), body, state)
        return state

    done = jnp.broadcast_to(absent[:, None], (B, G))
    state = Decoded(
        step=jnp.int32(0),
        tokens=jnp.full((B, G, S), sampling.pad_id, jnp.int32),
        logprobs=jnp.zeros((B, G, S), jnp.float32),
        lengths=jnp.zeros((B, G), jnp.int32),
        done=done,
        uniforms=jax.vmap(jax.vmap(lambda key: jax.vmap(lambda s: _uniform(key, s))(jnp.arange(S))))(keys),
        cache=cache,
    )
    sizes = tuple(size for size in sampling.compact if size < B * G)
    whole = state = run(add(state, jnp.repeat(last, G, axis=0)), sampling.widths, sizes[0] if sizes else 0)
    places = jnp.arange(B * G)
    for size, least in itertools.pairwise((*sizes, 0)):
        chosen = jnp.argsort(state.done.reshape(-1), stable=True)[:size]  # those that have not ended come first
        places = places[chosen]
        state = run(state.only(chosen), sampling.widths[-1:], least)
        whole = whole.joined(places, state)
    return dataclasses.replace(whole, done=whole.done & ~done)


def _goes_on(width: int, least: int, state: Decoded) -> Bool[Array, ""]:
    return (state.step < width) & (jnp.sum(~state.done) > least)


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
