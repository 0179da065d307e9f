"""COPE's forward pass: clips of one domain to three embeddings each."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from evads_jax.models.cope.batch import ClipBatch, Embeddings, unit
from evads_jax.models.cope.config import CopeConfig, standing
from evads_jax.models.cope.parameters import Params
from evads_jax.models.cope.text import encode_text
from evads_jax.models.cope.transformer import gelu, linear, pre_norm_block, run_layers
from evads_jax.models.cope.visual import encode_frames
from evads_jax.models.norms import layer_norm


def encode(params: Params, config: CopeConfig, clips: ClipBatch, domain: str) -> Embeddings:
    """Embeds clips of one domain. What lies beyond the counts never matters.

    A clip without picture, or without text, has a learned vector in its place, the same for all clips; an embedding is
    never NaN.

    Args:
      params: the model's parameters.
      config: its sizes (static).
      clips: the clips.
      domain: theirs (static), of `DOMAINS`.
    """
    encoders, head = params["encoders"][config.encoder(domain)], params["heads"][config.head(domain)]
    frames, shown = encode_frames(encoders["visual"], config, clips.frames, clips.frame_count)
    words, said = encode_text(encoders["text"], config, clips.tokens, clips.token_count)
    visual = linear(head["visual"], _mean(frames, shown))
    text = linear(head["text"], jnp.tanh(linear(encoders["text"]["pooler"], words[:, 0])))
    if config.fusion_layers:
        fused = _fuse(head["fusion"], config, frames, shown, words, said)
    else:
        fused = linear(head["fusion"]["out"], jnp.concatenate([visual, text], axis=-1))
    return Embeddings(unit(visual), unit(text), unit(fused))


def embedding(embeddings: Embeddings, config: CopeConfig, domain: str) -> Float[Array, "B E"]:
    """The one that stands for a clip of this domain in retrieval; see `CopeConfig.form` and `modality`."""
    return getattr(embeddings, standing(config, domain))


def _mean(x: Float[Array, "B F D"], real: Array) -> Float[Array, "B D"]:
    """The mean over the real frames, at least one."""
    weights = real / real.sum(axis=1, keepdims=True)
    return jnp.einsum("bfd,bf->bd", x, weights.astype(x.dtype))


def _fuse(head: Params, config: CopeConfig, frames: Array, shown: Array, words: Array, said: Array) -> Array:
    """A transformer over a class token, the real frames and the real tokens; what becomes of the class token."""
    B = frames.shape[0]
    lead = jnp.broadcast_to(head["class_token"], (B, 1, config.fusion_width)).astype(frames.dtype)
    x = jnp.concatenate([lead, linear(head["frames"], frames), linear(head["words"], words)], axis=1)
    mask = jnp.concatenate([jnp.ones((B, 1), bool), shown, said], axis=1)
    x = run_layers(
        lambda layer, x: pre_norm_block(layer, x, config.fusion_heads, mask, gelu), head["layers"], x, config
    )
    return linear(head["out"], layer_norm(head["norm"], x[:, 0]))
