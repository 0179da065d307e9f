"""The fused kernel, interpreted on this machine, against the definition, gradients included."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evads_jax.models.attention import prefix, splash
from evads_jax.models.attention.reference import attention

B, G, S, N, K, H = 2, 3, 50, 4, 2, 8
T, LENGTHS = 200, jnp.array([200, 71])
prompts = jax.jit(lambda *x: splash.prompt_attention(*x, interpret=True))
suffixes = jax.jit(lambda q, k, v, own_k, own_v: splash.suffix_attention(q, k, v, LENGTHS, own_k, own_v, True))


@pytest.fixture(autouse=True)
def several_tiles(monkeypatch):
    monkeypatch.setattr(splash, "TILE", 128)


def draw(*shapes):
    keys = jax.random.split(jax.random.key(len(shapes)), len(shapes))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def assert_same_with_gradients(fast, plain, inputs, rows):
    direction = jax.random.normal(jax.random.key(7), inputs[0].shape)

    def loss(form):
        return jax.jit(jax.value_and_grad(lambda x: jnp.where(rows, form(*x) * direction, 0).sum()))(inputs)

    chex.assert_trees_all_close(jnp.where(rows, fast(*inputs), 0), jnp.where(rows, plain(*inputs), 0), atol=1e-5)
    for found, expected in zip(loss(fast)[1], loss(plain)[1], strict=True):
        assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_prompts_attend_causally():
    def plain(q, k, v):
        return attention(q, k.swapaxes(1, 2), v.swapaxes(1, 2), jnp.tri(T, dtype=bool)[None])

    rows = (jnp.arange(T) < LENGTHS[:, None])[..., None, None]
    assert_same_with_gradients(prompts, plain, draw((B, T, N, H), (B, K, T, H), (B, K, T, H)), rows)


def test_each_suffix_attends_to_its_prompt_and_itself():
    def plain(q, k, v, own_k, own_v):
        real = jnp.broadcast_to((jnp.arange(T) < LENGTHS[:, None])[:, None, None], (B, G, S, T))
        mask = jnp.concatenate([real, jnp.broadcast_to(jnp.tri(S, dtype=bool), (B, G, S, S))], axis=-1)

        def joined(prompt, own):
            whole = jnp.broadcast_to(prompt.swapaxes(1, 2)[:, None], (B, G, T, K, H))
            return jnp.concatenate([whole, own.transpose(0, 2, 3, 1, 4)], axis=2)

        return attention(q, joined(k, own_k), joined(v, own_v), mask)

    own = (B, K, G, S, H)
    inputs = draw((B, G, S, N, H), (B, K, T, H), (B, K, T, H), own, own)
    assert_same_with_gradients(suffixes, plain, inputs, True)


def test_patches_attend_to_the_real_ones_of_their_unit():
    real = jnp.arange(T) < LENGTHS[:, None]

    def fused(q, k, v):
        return splash.unit_attention(q, k, v, real, interpret=True)

    def plain(q, k, v):
        return attention(*(x.swapaxes(1, 2) for x in (q, k, v)), jnp.broadcast_to(real[:, None], (B, T, T))).swapaxes(
            1, 2
        )

    assert_same_with_gradients(jax.jit(fused), plain, draw(*[(B, N, T, H)] * 3), real[:, None, :, None])


def test_a_unit_without_patches_stays_finite_and_gives_no_gradient():
    real = jnp.zeros((B, T), bool).at[0].set(True)

    def loss(inputs):
        return jnp.where(real[:, None, :, None], splash.unit_attention(*inputs, real, interpret=True), 0).sum()

    inputs = draw(*[(B, N, T, H)] * 3)
    assert np.isfinite(splash.unit_attention(*inputs, real, interpret=True)).all()
    for gradient in jax.grad(loss)(inputs):
        assert np.isfinite(gradient).all()
        assert not gradient[1].any()


def test_what_stands_behind_a_prompts_end_is_never_seen():
    own = (B, K, G, S, H)
    q, k, v, own_k, own_v = draw((B, G, S, N, H), (B, K, T, H), (B, K, T, H), own, own)
    behind = (jnp.arange(T) >= LENGTHS[:, None])[:, None, :, None]
    expected = suffixes(q, k, v, own_k, own_v)
    np.testing.assert_array_equal(
        suffixes(q, jnp.where(behind, 1e4, k), jnp.where(behind, 1e4, v), own_k, own_v), expected
    )


@pytest.mark.parametrize(("rows", "prompt", "suffix", "keys"), [(128, 5, 3, 128), (256, 130, 70, 384)])
def test_the_mask_of_suffixes_cut_in_parts_is_the_whole(rows, prompt, suffix, keys):
    mask = splash.SuffixMask(rows, prompt, suffix, keys)
    parts = [[mask[i : i + 64, j : j + 64] for j in range(0, keys, 64)] for i in range(0, rows, 64)]
    expected = [
        [j < prompt or ((j - prompt) // suffix == i // suffix and j - prompt <= i) for j in range(keys)]
        for i in range(rows)
    ]
    np.testing.assert_array_equal(np.block(parts), expected)


def test_the_plain_and_the_fused_form_agree_in_half_precision():
    own = (B, K, G, S, H)
    inputs = [x.astype(jnp.bfloat16) for x in draw((B, G, S, N, H), (B, K, T, H), (B, K, T, H), own, own)]
    q, k, v, own_k, own_v = inputs
    plain = prefix.suffix_attention(q, k, v, LENGTHS, own_k, own_v, jnp.tri(S, dtype=bool))
    np.testing.assert_allclose(*(np.asarray(x, np.float32) for x in (suffixes(*inputs), plain)), atol=0.03)
