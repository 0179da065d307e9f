"""The frames' encoder, after X-CLIP (arXiv 2208.02816): a CLIP transformer whose frames talk to each other.

In every block each frame sends a message: a map of its class token, which attends to the messages of the clip's other
frames (with a residual). The frame's tokens attend to themselves and to its message, which is then dropped. What
becomes of the class tokens is projected and goes through the multi-frame integration transformer, with a residual.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from evads_jax.models.cope.config import CopeConfig
from evads_jax.models.cope.parameters import Params
from evads_jax.models.cope.transformer import ACTIVATIONS, attention, linear, pre_norm_block, run_layers
from evads_jax.models.norms import layer_norm

# The statistics of CLIP's pictures, of pixels scaled to [0, 1].
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def encode_frames(
    params: Params, config: CopeConfig, frames: UInt8[Array, "B F H W 3"], count: Int[Array, " B"]
) -> tuple[Float[Array, "B F M"], Bool[Array, "B F"]]:
    """Features of the frames, each of which has seen the others of its clip; X-CLIP's video feature is their mean.

    A clip without frames has one all the same, of a learned vector, whatever its pixels are.

    Args:
      params: of the encoder.
      config: the model's sizes.
      frames: 8-bit RGB.
      count: real frames of each clip.

    Returns:
      The features, and which of them are real.

    Raises:
      ValueError: more frames, or frames of another size, than the config says.
    """
    B, F, *size = frames.shape[:4]
    if config.frames < F or size != [config.frame_size, config.frame_size]:
        raise ValueError(f"{F} frames of {size}, the config has {config.frames} of side {config.frame_size}")
    shown = jnp.arange(F) < jnp.maximum(count, 1)[:, None]
    activation, whole = ACTIVATIONS[config.visual_activation], jnp.ones((1, config.positions + 1), bool)

    def block(layers: tuple[Params, Params], x: Array) -> Array:
        layer, message = layers
        sent = linear(message["linear"], x[:, 0]).reshape(B, F, -1)
        h = layer_norm(message["norm"], sent)
        sent = sent + attention(message["attention"], h, h, config.visual_heads, shown)
        return pre_norm_block(layer, x, config.visual_heads, whole, activation, sent.reshape(B * F, 1, -1))

    x = embed_patches(params, config, frames.reshape(B * F, *frames.shape[2:]))
    x = run_layers(block, (params["layers"], params["message"]), x, config)
    features = linear(params["projection"], layer_norm(params["norm_out"], x[:, 0])).reshape(B, F, -1)
    features = jnp.where((count > 0)[:, None, None], features, params["nothing"].astype(x.dtype))
    mixed = run_layers(
        lambda layer, x: pre_norm_block(layer, x, config.mit_heads, shown, activation),
        params["mit_layers"],
        features + params["mit_position"][:F].astype(x.dtype),
        config,
    )
    return mixed + features, shown


def embed_patches(params: Params, config: CopeConfig, frames: UInt8[Array, "n H W 3"]) -> Float[Array, "n P D"]:
    """The tokens that enter the first block: class token and patches in row order, positions added, normalised."""
    n, side, p = len(frames), config.frame_size // config.visual_patch, config.visual_patch
    pixels = ((frames.astype(jnp.float32) / 255 - MEAN) / DEVIATION).astype(config.dtype)
    patches = pixels.reshape(n, side, p, side, p, 3).transpose(0, 1, 3, 2, 4, 5).reshape(n, side**2, -1)
    lead = jnp.broadcast_to(params["class_token"], (n, 1, config.visual_width)).astype(config.dtype)
    x = jnp.concatenate([lead, linear(params["patch"], patches)], axis=1)
    return layer_norm(params["norm_in"], x + params["position"].astype(x.dtype))
