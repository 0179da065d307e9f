"""The decoder on pure pytrees: prompts once (`prefill`), then the suffixes that continue them (`extend`).

Scoring and sampling are both made of these two passes: the prompt's keys and values are computed once and every
continuation reads them. Activations are two-dimensional, [tokens, D], so that every projection is one large matmul.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from evads_jax.models import lora, vocabulary
from evads_jax.models.attention import fused
from evads_jax.models.attention import prefix as attention
from evads_jax.models.norms import rms_norm
from evads_jax.models.partitioning import by_rows, by_tokens, gather_tokens, split_tokens, take_rows
from evads_jax.models.qwen_vl import mrope
from evads_jax.models.qwen_vl.batch import PromptBatch
from evads_jax.models.qwen_vl.config import QwenVLConfig
from evads_jax.models.qwen_vl.parameters import Params
from evads_jax.models.qwen_vl.vision import VisionFeatures
from evads_jax.models.stacked import unstack

Rotation = tuple[Float[Array, "n half"], Float[Array, "n half"]]


@struct.dataclass
class Prefix:
    """What a prompt leaves for its continuations.

    Attributes:
      keys: rotated keys of every layer [B, K, T, H]: one array stacked on a leading L axis where the layers are
        scanned, a tuple of L arrays where they are unrolled (no copy is made to stack them).
      values: values of every layer, likewise.
      lengths: real tokens of each prompt; what lies beyond is padding.
      next_position: the position of the first continuing token.
      last: final hidden state, normalised, of the last real token; it predicts the first continuing token.
    """

    keys: Float[Array, "L B K T H"] | tuple[Float[Array, "B K T H"], ...]
    values: Float[Array, "L B K T H"] | tuple[Float[Array, "B K T H"], ...]
    lengths: Int[Array, " B"]
    next_position: Int[Array, " B"]
    last: Float[Array, "B D"]


def project(layer: Params, config: QwenVLConfig, x: Float[Array, "n D"], rotation: Rotation):
    """Queries [n, N, H] (scaled by 1/√H), keys and values [n, K, H] of one layer; queries and keys rotated."""
    x = gather_tokens(rms_norm(x, layer["norm1"]["scale"], config.norm_epsilon))
    q, k, v = (_linear(x, layer[name]) for name in ("q", "k", "v"))
    if config.traits.qkv_bias:
        q, k, v = (h + layer[name].astype(h.dtype) for h, name in ((q, "q_bias"), (k, "k_bias"), (v, "v_bias")))
    if config.traits.qk_norm:
        q = rms_norm(q, layer["q_norm"]["scale"] * config.head_width**-0.5, config.norm_epsilon)
        k = rms_norm(k, layer["k_norm"]["scale"], config.norm_epsilon)
    else:
        q = q * config.head_width**-0.5
    return mrope.rotate(q, *rotation), mrope.rotate(k, *rotation), v


def finish(layer: Params, config: QwenVLConfig, x: Float[Array, "n D"], attended: Float[Array, "n N H"]):
    """The rest of a layer after attention: output projection, residual, SwiGLU, residual."""
    x = by_tokens(x + split_tokens(_linear(attended, layer["out"], inputs=2)))
    h = gather_tokens(rms_norm(x, layer["norm2"]["scale"], config.norm_epsilon))
    hidden = jax.nn.silu(_linear(h, layer["gate"])) * _linear(h, layer["up"])
    return by_tokens(x + split_tokens(_linear(hidden, layer["down"])))


def prefill(params: Params, config: QwenVLConfig, prompt: PromptBatch, features: VisionFeatures) -> Prefix:
    """Runs the prompts through the decoder once.

    Args:
      params: the model's parameters.
      config: the model's sizes.
      prompt: the prompts; a video token takes the row of `features` that its `video_index` names.
      features: the vision tower's output for `prompt.video`.
    """
    x, deepstack = _embed_prompt(params, config, prompt, features)
    whole_layer, last_layer = _prompt_layers(config, prompt)
    rows = _last_rows(prompt)
    if config.scan_layers:
        added = _added_after(deepstack)

        def scanned(x, inputs):
            layer, index = inputs
            x, cache = whole_layer(x, layer)
            return added(x, index), cache

        step = jax.checkpoint(scanned) if config.remat else scanned
        x, (keys, values) = jax.lax.scan(step, x, (params["text"]["layers"], jnp.arange(config.layers)))
        last = x[rows]
    else:
        # Of the last layer's outputs only the last token's is used; the others leave their keys and values.
        whole, last_only = (jax.checkpoint(f) if config.remat else f for f in (whole_layer, last_layer))
        *early, final = unstack(params["text"]["layers"], config.layers)
        caches = []
        for i, layer in enumerate(early):
            x, cache = whole(x, layer)
            x = x + deepstack[i] if i < len(deepstack) else x
            caches.append(cache)
        last, cache = last_only(x, final)
        keys, values = zip(*caches, cache, strict=True)
    return Prefix(keys, values, prompt.lengths, prompt.next_position, _normalised(params, config, last))


def read(
    params: Params, config: QwenVLConfig, prompt: PromptBatch, features: VisionFeatures, tokens: Int[Array, "B G S"]
) -> tuple[Float[Array, "B D"], Float[Array, "B G S D"]]:
    """`prefill` and `extend` in one pass over scanned layers, for what is to be differentiated.

    A layer's weights are brought together once for prompts and suffixes, and their gradients are added up in the
    layer. Of two passes, each would leave a whole set of gradients before the sum of both is made, and keys and values
    of all layers, and their gradients, would stand between them.

    Args:
      params: the model's parameters.
      config: the model's sizes, with `scan_layers`.
      prompt: as in `prefill`.
      features: as in `prefill`.
      tokens: as in `extend`.

    Returns:
      `Prefix.last`, and the suffixes' final hidden states, normalised.
    """
    B, G, S = tokens.shape
    x, deepstack = _embed_prompt(params, config, prompt, features)
    y = by_tokens(embed(params, config, tokens.reshape(-1)))
    prompt_layer, _ = _prompt_layers(config, prompt)
    suffix_layer = _suffix_layer(config, prompt.lengths, prompt.next_position, G, S)
    added = _added_after(deepstack)

    def scanned(states, inputs):
        (x, y), (layer, index) = states, inputs
        x, cache = prompt_layer(x, layer)
        y, _ = suffix_layer(y, (layer, *cache))
        return (added(x, index), y), None

    step = jax.checkpoint(scanned) if config.remat else scanned
    (x, y), _ = jax.lax.scan(step, (x, y), (params["text"]["layers"], jnp.arange(config.layers)))
    last, hidden = (_normalised(params, config, h) for h in (x[_last_rows(prompt)], y))
    return last, hidden.reshape(B, G, S, -1)


def extend(
    params: Params, config: QwenVLConfig, prefix: Prefix, tokens: Int[Array, "B G S"]
) -> Float[Array, "B G S D"]:
    """Final hidden states, normalised, of G suffixes per prompt; each sees its prompt and, causally, itself.

    Args:
      params: the model's parameters.
      config: the model's sizes.
      prefix: the prompts, from `prefill`.
      tokens: the suffixes' token ids; the states of padded ones are meaningless but finite.
    """
    return _run_suffixes(params, config, prefix, tokens, keep=False)[0][-1]


def extend_through(
    params: Params, config: QwenVLConfig, prefix: Prefix, tokens: Int[Array, "B G S"], layers: tuple[int, ...]
) -> tuple[Float[Array, "B G S D"], ...]:
    """`extend` by the first layers alone, for several numbers of them, in one pass.

    Args:
      params: the model's parameters.
      config: the model's sizes.
      prefix: the prompts, from `prefill`.
      tokens: the suffixes' token ids.
      layers: numbers of layers, rising, from 1 to `config.layers`.

    Returns:
      Hidden states after so many layers, normalised as final ones are.
    """
    return _run_suffixes(params, config, prefix, tokens, keep=False, through=layers)[0]


def extend_cached(
    params: Params, config: QwenVLConfig, prefix: Prefix, tokens: Int[Array, "B G S"]
) -> tuple[Float[Array, "B G S D"], tuple[Float[Array, "B K G S H"], ...], tuple[Float[Array, "B K G S H"], ...]]:
    """`extend`, and every layer's keys and values of the suffixes, for what is to continue them."""
    (hidden,), caches = _run_suffixes(params, config, prefix, tokens, keep=True)
    keys, values = (tuple(cache[i] for cache in caches) for i in range(2))
    return hidden, keys, values


def _run_suffixes(
    params: Params,
    config: QwenVLConfig,
    prefix: Prefix,
    tokens: Int[Array, "B G S"],
    keep: bool,
    through: tuple[int, ...] | None = None,
):
    """Hidden states of the suffixes after some layers (default: all), and each layer's (keys, values) where kept."""
    B, G, S = tokens.shape
    x = embed(params, config, tokens.reshape(-1))
    layer = _suffix_layer(config, prefix.lengths, prefix.next_position, G, S)

    def step(x, inputs):
        x, cache = layer(x, inputs)
        return x, cache if keep else None

    step = jax.checkpoint(step) if config.remat else step
    caches, states = [], []
    if config.scan_layers:

        def scanned(x, inputs):
            x, cache = step(x, inputs)
            return x, (cache, x if through else None)

        x, (stacked, after) = jax.lax.scan(scanned, x, (params["text"]["layers"], prefix.keys, prefix.values))
        caches = [(stacked[0][i], stacked[1][i]) for i in range(config.layers)] if keep else []
        states = [after[n - 1] for n in through] if through else [x]
    else:
        layers = unstack(params["text"]["layers"], config.layers)
        for inputs in zip(layers, prefix.keys, prefix.values, strict=True):
            x, cache = step(x, inputs)
            caches.append(cache)
            states.append(x)
        states = [states[n - 1] for n in through or (config.layers,)]
    return tuple(_normalised(params, config, x).reshape(B, G, S, -1) for x in states), caches


def _prompt_layers(config: QwenVLConfig, prompt: PromptBatch):
    """A layer of the prompts, (x, weights) → (x, (keys, values)); and the last one, of their last tokens alone."""
    B, T = prompt.tokens.shape
    rotation = mrope.rotation(jnp.reshape(prompt.positions, (B * T, 3)), config)
    rows, kernel = _last_rows(prompt), fused(config.attention)

    def project_cached(x, layer):
        q, k, v = project(layer, config, x, rotation)
        k, v = (h.reshape(B, T, *h.shape[1:]).transpose(0, 2, 1, 3) for h in (k, v))
        return q, (k, v)

    def whole(x, layer):
        q, cache = project_cached(x, layer)
        attended = (kernel or attention).prompt_attention(q.reshape(B, T, *q.shape[1:]), *cache)
        return finish(layer, config, x, attended.reshape(q.shape)), cache

    def last(x, layer):
        q, (k, v) = project_cached(x, layer)
        attended = attention.last_token_attention(q[rows], k, v, prompt.lengths)
        return finish(layer, config, x[rows], attended), (k, v)

    return whole, last


def _suffix_layer(config: QwenVLConfig, lengths: Int[Array, " B"], next_position: Int[Array, " B"], G: int, S: int):
    """A layer of the suffixes, (x, (weights, prompts' keys, prompts' values)) → (x, (keys, values))."""
    B = len(lengths)
    positions = jnp.broadcast_to(next_position[:, None, None] + jnp.arange(S), (B, G, S))
    rotation = mrope.text_rotation(positions.reshape(-1), config)
    causal, kernel = jnp.tri(S, dtype=bool), fused(config.attention)

    def layer(x, inputs):
        weights, prompt_k, prompt_v = inputs
        q, k, v = project(weights, config, x, rotation)
        k, v = (h.reshape(B, G * S, *h.shape[1:]).transpose(0, 2, 1, 3) for h in (k, v))
        k, v = (h.reshape(B, config.kv_heads, G, S, config.head_width) for h in (k, v))
        rows = q.reshape(B, G, S, *q.shape[1:])
        if kernel:
            attended = kernel.suffix_attention(rows, prompt_k, prompt_v, lengths, k, v)
        else:
            attended = attention.suffix_attention(rows, prompt_k, prompt_v, lengths, k, v, causal)
        return finish(weights, config, x, attended.reshape(q.shape)), (k, v)

    return layer


def _added_after(deepstack: list[Float[Array, "n D"]]):
    """What DeepStack does after a layer of a scan, (x, number of the layer) → x."""
    if not deepstack:
        return lambda x, index: x
    stacked = jnp.stack(deepstack)

    def added(x, index):
        features = stacked[jnp.minimum(index, len(deepstack) - 1)]
        return by_tokens(x + jnp.where(index < len(deepstack), features, 0))

    return added


def _last_rows(prompt: PromptBatch) -> Int[Array, " B"]:
    """Where the last real tokens stand among the tokens of all prompts."""
    B, T = prompt.tokens.shape
    return jnp.arange(B) * T + jnp.maximum(prompt.lengths - 1, 0)


def _normalised(params: Params, config: QwenVLConfig, x: Float[Array, "n D"]) -> Float[Array, "n D"]:
    return rms_norm(x, params["text"]["norm"]["scale"], config.norm_epsilon)


def embed(params: Params, config: QwenVLConfig, tokens: Int[Array, " n"]) -> Float[Array, "n D"]:
    """Rows of the token table. An id out of range, which only padding may hold, takes an edge row."""
    table = params["text"]["embed"]
    return by_rows(jnp.take(table, tokens, axis=0, mode="clip").astype(config.dtype))


def output_table(params: Params, config: QwenVLConfig) -> Float[Array, "V D"]:
    """The output head: a table of its own, or that of the tokens."""
    return params["text"]["embed" if config.tie_embeddings else "head"]


def head(params: Params, config: QwenVLConfig, hidden: Float[Array, "n D"]) -> Float[Array, "n V"]:
    """Logits of final hidden states, float32 at least."""
    return vocabulary.logits(hidden, output_table(params, config))


def _embed_prompt(params: Params, config: QwenVLConfig, prompt: PromptBatch, features: VisionFeatures):
    """Input of the first layer, and what DeepStack adds after the first ones, each [B·T, D]."""
    real = jnp.arange(prompt.tokens.shape[1]) < prompt.lengths[:, None]
    is_video = (real & (prompt.video_index >= 0)).reshape(-1, 1)
    # One gather for the tokens and all DeepStack features, laid side by side.
    table = jnp.concatenate([features.tokens, *features.deepstack], axis=1)
    rows = take_rows(table, prompt.video_index).reshape(-1, table.shape[1])
    rows = jnp.where(is_video, rows, 0)
    video, *deepstack = jnp.split(rows, 1 + len(features.deepstack), axis=1)
    text = embed(params, config, prompt.tokens.reshape(-1))
    return by_tokens(jnp.where(is_video, video.astype(text.dtype), text)), [by_tokens(x) for x in deepstack]


def _linear(x: Array, weight: Array | lora.Adapted, inputs: int = 1) -> Array:
    """Contracts the last `inputs` axes of x with the first of `weight`, as one matrix product in the type of x."""
    return lora.matmul(x.reshape(x.shape[0], -1), weight).reshape(-1, *weight.shape[inputs:])
