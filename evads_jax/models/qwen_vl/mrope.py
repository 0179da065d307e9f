"""Multimodal rotary positions: which (time, height, width) a token has, and the rotation it gets.

Text tokens count up equally on the three axes. The tokens of a temporal unit share one time position and are laid
out in height and width from the position where the unit begins; the token after it continues from the largest
position used so far. Qwen3-VL writes the seconds as text before each unit, so time needs no scale. The rotary
frequencies are interleaved (t h w t h w … t t) instead of split into three sections.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from evads_jax.models.qwen_vl.config import QwenVLConfig


def token_positions(
    length: int, spans: Sequence[tuple[int, int]], grids: Sequence[tuple[int, int]]
) -> tuple[Int[np.ndarray, "n 3"], int]:
    """The positions of a prompt's tokens.

    Args:
      length: n, tokens in the prompt.
      spans: (start, length) of the video tokens of each temporal unit, in order.
      grids: (height, width) of each unit in video tokens; `height · width` is the span's length.

    Returns:
      The positions, and the position (equal on the three axes) of a text token that follows the prompt.

    Raises:
      ValueError: a span does not fit its grid or the spans overlap.
    """
    positions = np.empty((length, 3), np.int32)
    token = position = 0
    for (start, count), (height, width) in zip(spans, grids, strict=True):
        if count != height * width or start < token or start + count > length:
            raise ValueError(f"video tokens [{start}, {start + count}) do not fit a {height}×{width} grid here")
        positions[token:start] = position + np.arange(start - token)[:, None]
        position += start - token
        rows, columns = np.divmod(np.arange(count), width)
        positions[start : start + count] = position + np.stack([np.zeros_like(rows), rows, columns], axis=1)
        position += max(height, width)
        token = start + count
    positions[token:] = position + np.arange(length - token)[:, None]
    return positions, position + length - token


def rotation(
    positions: Int[Array, "*batch 3"], config: QwenVLConfig
) -> tuple[Float[Array, "*batch half"], Float[Array, "*batch half"]]:
    """Cosine and sine of the interleaved M-RoPE angles of each token's (time, height, width)."""
    axis = np.zeros(config.head_width // 2, np.int32)
    for i in (1, 2):
        axis[i : config.mrope_sections[i] * 3 : 3] = i
    return _cos_sin(positions[..., axis], config)


def text_rotation(
    positions: Int[Array, "*batch"], config: QwenVLConfig
) -> tuple[Float[Array, "*batch half"], Float[Array, "*batch half"]]:
    """`rotation` of text tokens, whose three positions are equal."""
    return _cos_sin(positions[..., None], config)


def rotate(
    x: Float[Array, "*batch heads width"], cos: Float[Array, "*batch half"], sin: Float[Array, "*batch half"]
) -> Float[Array, "*batch heads width"]:
    """Rotates each pair (i, i + width/2) of the last axis by its angle, in float32 at least; all heads alike."""
    first, second = jnp.split(x.astype(jnp.promote_types(x.dtype, jnp.float32)), 2, axis=-1)
    cos, sin = cos[..., None, :], sin[..., None, :]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def frequencies(count: int, theta: float, dtype: str) -> Float[np.ndarray, " count"]:
    """The angles per position, 1 / theta^(i / count) for i < count."""
    return (1.0 / theta ** (np.arange(count) / count)).astype(dtype)


def _cos_sin(positions: Int[Array, "*batch any"], config: QwenVLConfig):
    per_position = frequencies(config.head_width // 2, config.rope_theta, config.wide_dtype)
    angles = positions.astype(config.wide_dtype) * per_position
    return jnp.cos(angles), jnp.sin(angles)
