"""Multimodal rotary positions: which (time, height, width) a token has, and the rotation it gets.

Text tokens count up equally on the three axes. An image or a video is laid out from the position where it begins: in
height and width over its grid, in time by its units; the token after it continues from behind its largest position.
Qwen3-VL writes the seconds as text before each temporal unit, so each unit counts as an image and time needs no
scale; its rotary frequencies are interleaved (t h w t h w … t t). Qwen2.5-VL lays out a whole video at once, time in
steps that grow with its seconds; its frequencies are split into three sections.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from evads_jax.models.qwen_vl.config import QwenVLConfig


def token_positions(
    length: int,
    spans: Sequence[tuple[int, int]],
    grids: Sequence[tuple[int, int]],
    offsets: Sequence[Sequence[int]] | None = None,
    layout: str = "release",
) -> tuple[Int[np.ndarray, "n 3"], int]:
    """The positions of a prompt's tokens.

    Args:
      length: n, tokens in the prompt.
      spans: (start, length) of the video tokens of each temporal unit, in order.
      grids: (height, width) of each unit in video tokens; `height · width` is the span's length.
      offsets: for each image or video that is laid out as one, the time of its units relative to its first, from
        `unit_offsets`; its units share one grid and follow each other. By default every unit stands by itself.
      layout: `QwenVLConfig.video_layout`; with "transformers_5" the token after a video continues from behind its
        grid, whatever its time positions reach.

    Returns:
      The positions, and the position (equal on the three axes) of a text token that follows the prompt.

    Raises:
      ValueError: a span does not fit its grid, the spans overlap or `offsets` do not count the units.
    """
    offsets = [(0,)] * len(spans) if offsets is None else offsets
    if sum(map(len, offsets)) != len(spans):
        raise ValueError(f"{len(spans)} units of video do not fit time offsets {offsets}")
    positions = np.empty((length, 3), np.int32)
    token = position = 0
    units = iter(zip(spans, grids, strict=True))
    for times in offsets:
        for i, time in enumerate(times):
            (start, count), (height, width) = next(units)
            if count != height * width or start < token or start + count > length or (i and start != token):
                raise ValueError(f"video tokens [{start}, {start + count}) do not fit a {height}×{width} grid here")
            positions[token:start] = position + np.arange(start - token)[:, None]
            position += start - token
            rows, columns = np.divmod(np.arange(count), width)
            positions[start : start + count] = position + np.stack([np.full_like(rows, time), rows, columns], axis=1)
            token = start + count
        position += max(height, width, 0 if layout == "transformers_5" else times[-1] + 1)
    positions[token:] = position + np.arange(length - token)[:, None]
    return positions, position + length - token


def unit_offsets(count: int, seconds: float, config: QwenVLConfig) -> tuple[int, ...]:
    """Time positions of the units of one video, relative to its first, in families without timestamps.

    Unit i stands at ⌊i · seconds · tokens per second⌋, in float32 as the reference computes it. With the layout
    "transformers_4" the seconds are cut to a whole number first, so that below one second time stands still.

    Args:
      count: units of the video.
      seconds: between the starts of two units.
      config: the model's sizes.
    """
    seconds = int(seconds) if config.video_layout == "transformers_4" else seconds
    step = np.float32(seconds) * np.float32(config.vision.tokens_per_second)
    return tuple(int(np.float32(i) * step) for i in range(count))


def rotation(
    positions: Int[Array, "*batch 3"], config: QwenVLConfig
) -> tuple[Float[Array, "*batch half"], Float[Array, "*batch half"]]:
    """Cosine and sine of the M-RoPE angles of each token's (time, height, width)."""
    if config.traits.mrope_interleaved:
        axis = np.zeros(config.head_width // 2, np.int32)
        for i in (1, 2):
            axis[i : config.mrope_sections[i] * 3 : 3] = i
    else:
        axis = np.repeat(np.arange(3), config.mrope_sections)
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
