"""The vision tower: temporal units of raw patches in, video tokens and DeepStack features out.

Every unit is padded to P patches, attends only within itself, and has its own grid; its patches stand in
merge-block order, so that merging is a reshape. What padding holds never reaches a real token. One tower for both
families: its parameters say whether a block has layer norms and a GELU or RMSNorms and a SwiGLU, its sizes whether
there are windows or DeepStack layers. An image is a unit too.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from evads_jax.models import lora
from evads_jax.models.attention import fused
from evads_jax.models.attention import prefix as attention
from evads_jax.models.norms import layer_norm, rms_norm
from evads_jax.models.partitioning import by_rows, by_tokens, gather_tokens, split_tokens
from evads_jax.models.qwen_vl import mrope, vision_windows
from evads_jax.models.qwen_vl.batch import VideoInputs
from evads_jax.models.qwen_vl.config import QwenVLConfig, VisionConfig
from evads_jax.models.qwen_vl.parameters import Params
from evads_jax.models.stacked import split, unstack


@struct.dataclass
class VisionFeatures:
    """What the decoder takes from a video; rows of padded patches are zero.

    Attributes:
      tokens: one row per video token, in the order of units and, within one, of the grid.
      deepstack: for each of the first decoder layers, the rows that are added to its output at the video tokens.
    """

    tokens: Float[Array, "rows D"]
    deepstack: tuple[Float[Array, "rows D"], ...]


def encode_video(params: Params, config: QwenVLConfig, video: VideoInputs) -> VisionFeatures:
    """Runs all temporal units of a batch through the vision tower.

    Args:
      params: the model's parameters.
      config: the model's sizes.
      video: raw patches and grids; U units of P patches.

    Returns:
      Features of U·P/merge² video tokens.
    """
    sizes, vision = config.vision, params["vision"]
    U, P, C = video.patches.shape
    patches, (rows, columns, real) = video.patches, patch_coordinates(video.grid, P, sizes.merge)
    if sizes.window:
        order, window = vision_windows.arrange(video.grid, P // sizes.merge**2, sizes)
        patches, rows, columns, real = (vision_windows.permute(x, order) for x in (patches, rows, columns, real))
        window = jnp.repeat(window, sizes.merge**2, axis=1)
    x = _normalise(patches.reshape(U * P, C), config).astype(config.dtype)
    x = linear(vision["patch"], x)
    if "position" in vision:
        x = x + _positions(vision["position"], config, video.grid, rows, columns).astype(x.dtype)
    x, rotation = by_tokens(by_rows(x)), _rotation(config, rows, columns)

    def attend_to_unit(q, k, v):
        if kernel := fused(config.attention):
            return kernel.unit_attention(q, k, v, real)
        return attention.masked_attention(q, k, v, real[:, None, None, :])

    def attend_to_window(q, k, v):
        return vision_windows.window_attention(q, k, v, window, vision_windows.window_patches(sizes))

    block = jax.checkpoint(_block, static_argnums=(1, 4, 5)) if config.remat else _block
    mergers = iter(unstack(vision["deepstack"], len(sizes.deepstack))) if sizes.deepstack else iter(())
    deepstack = []
    lengths = _stretches(sizes) if config.scan_layers else [1] * sizes.layers
    for last, layers in zip(np.cumsum(lengths) - 1, split(vision["layers"], lengths), strict=True):
        attend = attend_to_window if _windowed(sizes, last) else attend_to_unit

        def step(x, layer, attend=attend):
            return block(layer, sizes, x, rotation, U, attend), None

        x, _ = jax.lax.scan(step, x, layers) if config.scan_layers else step(x, jax.tree.map(lambda x: x[0], layers))
        if last in sizes.deepstack:
            deepstack.append(_merge(next(mergers), sizes, x, after=True))
    tokens = _merge(vision["merger"], sizes, x, after=False)
    real_tokens = real.reshape(-1, sizes.merge**2)[:, :1]
    zeroed = [jnp.where(real_tokens, features, 0) for features in (tokens, *deepstack)]
    if sizes.window:
        back = jnp.argsort(order, axis=1)
        zeroed = [vision_windows.permute(x.reshape(*order.shape, -1), back).reshape(x.shape) for x in zeroed]
    return VisionFeatures(zeroed[0], tuple(zeroed[1:]))


def _windowed(sizes: VisionConfig, layer: int) -> bool:
    return bool(sizes.window) and layer not in sizes.full_attention


def _stretches(sizes: VisionConfig) -> list[int]:
    """How many layers run as one scan each: alike, and features are taken of none but the last."""
    last = sizes.layers - 1
    ends = [
        i
        for i in range(sizes.layers)
        if i in (last, *sizes.deepstack) or _windowed(sizes, i) != _windowed(sizes, i + 1)
    ]
    return np.diff([-1, *ends]).tolist()


def patch_coordinates(grid: Int[Array, "U 2"], patches: int, merge: int):
    """Row and column of every patch of merge-block-ordered units, and whether it is real; each [U, P].

    Patches beyond a unit's grid get the coordinates (0, 0).
    """
    index = jnp.arange(patches)[None, :]
    height, width = grid[:, :1], grid[:, 1:]
    block, within = index // merge**2, index % merge**2
    blocks_per_row = jnp.maximum(width // merge, 1)
    real = index < height * width
    rows = block // blocks_per_row * merge + within // merge
    columns = block % blocks_per_row * merge + within % merge
    return jnp.where(real, rows, 0), jnp.where(real, columns, 0), real


def linear(layer: Params, x: Float[Array, "n inputs"]) -> Float[Array, "n outputs"]:
    """Weight and, where there is one, bias as one two-dimensional matmul in the type of `x`; heads are flattened."""
    out = lora.matmul(x, layer["weight"])
    return out + layer["bias"].astype(x.dtype).reshape(-1) if "bias" in layer else out


def _normalise(patches: Array, config: QwenVLConfig) -> Float[Array, "n C"]:
    """Raw pixel values, which stand channel by channel within a patch, to the tower's input."""
    sizes, dtype = config.vision, config.wide_dtype
    mean, std = (np.repeat(x, sizes.patch_values // 3) * 255 for x in (sizes.pixel_mean, sizes.pixel_std))
    return (patches.astype(dtype) - mean.astype(dtype)) / std.astype(dtype)


def _positions(table: Float[Array, "side² D"], config: QwenVLConfig, grid, rows, columns) -> Float[Array, "n D"]:
    """The learned position table, interpolated bilinearly (corners aligned) to each unit's grid.

    The interpolation is separable, so each axis is a matrix of at most two weights per patch, and the whole is one
    matmul of [U·P, side²] weights with the table: cheaper than gathers, and than the scatter of their gradient.
    """
    side, dtype = config.vision.position_grid, config.wide_dtype

    def weights(coordinate, count):
        at = coordinate.astype(dtype) * ((side - 1) / jnp.maximum(count - 1, 1).astype(dtype))
        return jnp.maximum(0.0, 1.0 - jnp.abs(at[..., None] - jnp.arange(side)))

    vertical, horizontal = weights(rows, grid[:, :1]), weights(columns, grid[:, 1:])
    both = vertical[..., :, None] * horizontal[..., None, :]
    return both.reshape(-1, side**2) @ table


def _rotation(config: QwenVLConfig, rows, columns):
    """Cosine and sine of the 2-D rotary angles [U·P, H/2]: the first half is of rows, the rest of columns."""
    per_patch = mrope.frequencies(config.vision.head_width // 4, config.vision.rope_theta, config.wide_dtype)
    angles = jnp.concatenate([x.reshape(-1, 1) * per_patch for x in (rows, columns)], axis=1)
    return jnp.cos(angles), jnp.sin(angles)


def _block(layer: Params, sizes: VisionConfig, x: Float[Array, "n D"], rotation, U: int, attend) -> Float[Array, "n D"]:
    """One pre-norm transformer block; patches attend to those of their own unit that `attend` lets them see."""
    heads = (sizes.heads, sizes.head_width)
    qkv = by_rows(linear(layer["qkv"], gather_tokens(vision_norm(layer["norm1"], x)))).reshape(-1, 3, *heads)
    q, k, v = mrope.rotate(qkv[:, 0], *rotation), mrope.rotate(qkv[:, 1], *rotation), qkv[:, 2]
    q, k, v = (h.reshape(U, -1, *heads).transpose(0, 2, 1, 3) for h in (q * sizes.head_width**-0.5, k, v))
    attended = by_rows(attend(q, k, v).transpose(0, 2, 1, 3).reshape(x.shape))
    x = by_tokens(x + split_tokens(linear(layer["out"], attended)))
    h = gather_tokens(vision_norm(layer["norm2"], x))
    if "gate" in layer:
        hidden = jax.nn.silu(linear(layer["gate"], h)) * linear(layer["up"], h)
    else:
        hidden = jax.nn.gelu(linear(layer["up"], h), approximate=True)
    return by_tokens(x + split_tokens(linear(layer["down"], hidden)))


def vision_norm(norm: Params, x: Float[Array, "n D"]) -> Float[Array, "n D"]:
    """A layer norm where the parameters have a bias, else an RMSNorm; ε = 1e-6 in both."""
    return layer_norm(norm, x, 1e-6) if "bias" in norm else rms_norm(x, norm["scale"], 1e-6)


def _merge(merger: Params, sizes: VisionConfig, x: Float[Array, "n D"], after: bool) -> Float[Array, "rows D2"]:
    """merge² patches to one token; the norm acts on single patches, or after they are laid side by side."""
    x = by_rows(x)  # a device of tp need not hold whole blocks
    x = x.reshape(-1, sizes.merged_width) if after else x
    x = vision_norm(merger["norm"], x).reshape(-1, sizes.merged_width)
    return by_rows(linear(merger["down"], jax.nn.gelu(linear(merger["up"], x), approximate=False)))
