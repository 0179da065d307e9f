"""Attention within windows against a mask over all patches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.models.attention.reference import attention
from evads_jax.models.qwen_vl import abstract, vision, vision_windows

from . import tiny
from .cases import encode, quick

SIZES = dataclasses.replace(tiny.CONFIG.vision, window=8)  # windows of 2 × 2 tokens, 16 patches
SIZE = vision_windows.window_patches(SIZES)


@given(st.integers(1, 6), st.integers(1, 6))
def test_tokens_are_ordered_by_the_square_they_lie_in(height, width):
    order, window = vision_windows.arrange(np.asarray([[2 * height, 2 * width]]), 36, SIZES)
    order, window = np.asarray(order[0]), np.asarray(window[0])
    n = height * width
    assert sorted(order[:n].tolist()) == list(range(n))
    assert (window[n:] == -1).all()
    rows, columns = np.divmod(order[:n], width)
    squares = list(zip((rows // 2).tolist(), (columns // 2).tolist(), strict=True))
    assert squares == sorted(squares)
    same = window[:n, None] == window[None, :n]
    assert (same == np.array([[a == b for b in squares] for a in squares])).all()


@pytest.mark.parametrize("tokens", [8, 37])  # one mask over all patches; chunks and their neighbours
def test_patches_attend_within_their_window(tokens):
    grid = jnp.array([[10, 14], [2, 6], [0, 0]]) if tokens > 8 else jnp.array([[4, 4], [2, 6], [0, 0]])
    _, window = vision_windows.arrange(grid, tokens, SIZES)
    window = jnp.repeat(window, 4, axis=1)
    real = (window >= 0)[:, None, :, None]
    q, k, v = (jax.random.normal(key, (3, 2, tokens * 4, 4)) for key in jax.random.split(jax.random.key(0), 3))

    def fast(q, k, v):
        return jnp.where(real, vision_windows.window_attention(q, k, v, window, SIZE), 0)

    def plain(q, k, v):
        mask = window[:, :, None] == window[:, None, :]
        return jnp.where(real, attention(*(x.swapaxes(1, 2) for x in (q, k, v)), mask).swapaxes(1, 2), 0)

    def with_gradient(form):
        return quick(lambda *x: (form(*x), jax.grad(lambda *y: jnp.sin(form(*y)).sum(), (0, 1, 2))(*x)))(q, k, v)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), with_gradient(fast), with_gradient(plain))


def test_a_patch_reaches_its_window_and_through_a_full_layer_the_whole_unit():
    sizes = dataclasses.replace(SIZES, layers=1, deepstack=())
    config = dataclasses.replace(tiny.CONFIG, family="qwen2_5_vl", layers=1, vision=sizes)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), abstract(config))
    patches = np.full((1, 64, sizes.patch_values), 100, np.uint8)
    video = vision.VideoInputs(patches, np.array([[8, 8]]))
    other = patches.copy()
    other[0, 0, 0] += 100
    for full, reached in (((), {0, 1, 4, 5}), ((0,), set(range(16)))):
        chosen = dataclasses.replace(config, vision=dataclasses.replace(sizes, full_attention=full))
        a, b = (encode(params, chosen, x).tokens for x in (video, video.replace(patches=other)))
        changed = np.flatnonzero(np.abs(a - b).max(axis=1) > 1e-6)
        assert set(changed.tolist()) == reached
