"""Attention within square windows of a temporal unit, for vision towers whose `VisionConfig.window` is set.

A window is a square of merged patches; at the right and lower edge of a grid it is cut off. Video tokens are put in
the order of their windows, so that a window is a run of at most `window_patches` patches. Runs have unlike lengths
and no fixed start, but one that is so short touches two neighbouring chunks of that length at most. So each chunk of
patches attends to itself and its neighbours, and a mask keeps what belongs to other windows out: static shapes for
every grid, and work that grows with P, not with P².
"""

import jax.numpy as jnp
from jaxtyping import Array, Int

from evads_jax.models.attention.prefix import masked_attention
from evads_jax.models.qwen_vl.config import VisionConfig


def window_patches(sizes: VisionConfig) -> int:
    """Patches of a whole window."""
    return (sizes.window // sizes.patch) ** 2


def arrange(grid: Int[Array, "U 2"], tokens: int, sizes: VisionConfig) -> tuple[Int[Array, "U M"], Int[Array, "U M"]]:
    """The order of a unit's video tokens by window, and the window of each token so ordered.

    Windows are numbered row by row, and tokens stand row by row in their window. Padded tokens come last, as window
    −1.

    Args:
      grid: height and width of each unit in patches.
      tokens: M, video tokens that a unit has room for.
      sizes: the vision tower.

    Returns:
      For each place its token's index in grid order, and its token's window.
    """
    index, side = jnp.arange(tokens)[None, :], sizes.window // sizes.cell
    height, width = grid[:, :1] // sizes.merge, grid[:, 1:] // sizes.merge
    row, column = index // jnp.maximum(width, 1), index % jnp.maximum(width, 1)
    window = row // side * -(-width // side) + column // side
    window = jnp.where(index < height * width, window, tokens)
    order = jnp.argsort(window, axis=1)
    window = jnp.take_along_axis(window, order, axis=1)
    return order, jnp.where(window < tokens, window, -1)


def permute(x: Array, order: Int[Array, "U M"]) -> Array:
    """Rows of `x` [U, M·n, …] in another order of their M groups of n consecutive rows."""
    U, M = order.shape
    groups = x.reshape(U, M, -1)
    return jnp.take_along_axis(groups, order[:, :, None], axis=1).reshape(x.shape)


def window_attention(q: Array, k: Array, v: Array, window: Int[Array, "U P"], size: int) -> Array:
    """Attention of patches to those of the same window.

    Args:
      q: queries [U, N, P, H], scaled by 1/√H; patches in the order of `arrange`.
      k: keys.
      v: values.
      window: the window of each patch; those of padding attend to padding.
      size: the most patches of a window.
    """
    U, N, P, H = q.shape
    chunks = -(-P // size)
    if chunks <= 3:
        return masked_attention(q, k, v, (window[:, :, None] == window[:, None, :])[:, None])

    def cut(x, fill):
        """[U, P, …] as [U, chunks, size, …]."""
        x = jnp.pad(x, ((0, 0), (0, chunks * size - P), *((0, 0),) * (x.ndim - 2)), constant_values=fill)
        return x.reshape(U, chunks, size, *x.shape[2:])

    def around(x, fill):
        """Each chunk between its two neighbours."""
        x = jnp.pad(x, ((0, 0), (1, 1), *((0, 0),) * (x.ndim - 2)), constant_values=fill)
        return jnp.concatenate([x[:, :-2], x[:, 1:-1], x[:, 2:]], axis=2)

    def heads_first(x):
        return x.swapaxes(2, 3).reshape(U * chunks, N, -1, H)

    rows, own = cut(q.swapaxes(1, 2), 0), cut(window, -2)
    keys, values = (around(cut(x.swapaxes(1, 2), 0), 0) for x in (k, v))
    mask = (own[..., :, None] == around(own, -3)[..., None, :]).reshape(U * chunks, 1, size, 3 * size)
    out = masked_attention(heads_first(rows), heads_first(keys), heads_first(values), mask)
    return out.reshape(U, chunks, N, size, H).transpose(0, 2, 1, 3, 4).reshape(U, N, chunks * size, H)[:, :, :P]
