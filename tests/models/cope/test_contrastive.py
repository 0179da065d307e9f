"""The contrastive loss against a plain NumPy one in float64, in chunks, and what it must not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.models.cope import pair_loss

TEMPERATURE, SMOOTHING = 0.05, 0.1
HOW = {"temperature": TEMPERATURE, "smoothing": SMOOTHING}
compiled = jax.jit(pair_loss, static_argnames="chunk")


def rows(B, E=6, seed=0):
    x = np.random.default_rng(seed).normal(size=(2, B, E))
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def naive(left, right, valid, products, temperature=TEMPERATURE, smoothing=SMOOTHING):
    """One anchor at a time: cross-entropy with a target that is spread over the anchor's candidates."""
    losses = []
    for a, b in ((left, right), (right, left)):
        a, b = a.astype(np.float64), b.astype(np.float64)
        for i in np.flatnonzero(valid):
            candidates = [j for j in np.flatnonzero(valid) if j == i or products[j] != products[i]]
            logits = a[i] @ b[candidates].T / temperature
            logprobs = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
            target = np.full(len(candidates), smoothing / len(candidates))
            target[candidates.index(i)] += 1 - smoothing
            losses.append(-(target * logprobs).sum())
    return np.mean(losses) if losses else 0.0


@given(chunk=st.sampled_from([None, 1, 4]), count=st.integers(0, 7), kinds=st.integers(1, 7), seed=st.integers(0, 99))
def test_it_is_the_plain_loss_in_any_chunks(chunk, count, kinds, seed):
    rng = np.random.default_rng(seed)
    left, right = rows(7, seed=seed)
    valid, products = rng.permutation(7) < count, rng.integers(0, kinds, 7)
    found = compiled(left, right, valid, products, **HOW, chunk=chunk)
    assert float(found) == pytest.approx(naive(left, right, valid, products), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_have_the_gradient_of_the_whole(chunk):
    (left, right), valid, products = rows(8), np.arange(8) != 3, np.array([0, 1, 2, 3, 1, 5, 5, 7])

    def gradient(chunk):
        loss = lambda a, b: pair_loss(a, b, valid, products, **HOW, chunk=chunk)  # noqa: E731
        return jax.jit(jax.grad(loss, (0, 1)))(left, right)

    for one, other in zip(gradient(None), gradient(chunk), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        assert np.abs(other).max() > 0.1
        assert not other[3].any()


def test_the_gradient_is_that_of_finite_differences_of_the_plain_loss():
    (left, right), valid, products = rows(5), np.array([1, 1, 0, 1, 1], bool), np.array([0, 1, 2, 1, 3])
    gradients = jax.jit(jax.grad(lambda a, b: pair_loss(a, b, valid, products, **HOW, chunk=2), (0, 1)))(left, right)
    steps = np.random.default_rng(1).normal(size=(2, 2, *left.shape)) * 1e-5 * np.eye(2)[..., None, None]
    for gradient, (one, other), own in zip(gradients, steps, (0, 1), strict=True):
        ends = [naive(left + s * one, right + s * other, valid, products) for s in (1.0, -1.0)]
        assert float((gradient * (one, other)[own]).sum()) == pytest.approx((ends[0] - ends[1]) / 2, rel=1e-3)


def test_what_rows_that_do_not_count_hold_never_matters():
    (left, right), valid = rows(6), np.array([1, 0, 1, 1, 0, 1], bool)
    spoiled = np.where(valid[:, None], right, np.nan)

    def outcome(right):
        loss = lambda a, b: pair_loss(a, b, valid, **HOW, chunk=4)  # noqa: E731
        return jax.jit(jax.value_and_grad(loss, (0, 1)))(left, right)

    for one, other in zip(jax.tree.leaves(outcome(right)), jax.tree.leaves(outcome(spoiled)), strict=True):
        np.testing.assert_array_equal(one, other)
    kept = compiled(left[valid], right[valid], np.ones(4, bool), **HOW)
    assert float(compiled(left, right, valid, **HOW)) == pytest.approx(float(kept), rel=1e-6)


def test_no_row_at_all_is_zero_and_its_gradient_too():
    left, right = rows(3)
    value, gradient = jax.jit(jax.value_and_grad(compiled), static_argnames="chunk")(
        left, right, np.zeros(3, bool), **HOW, chunk=2
    )
    assert float(value) == 0
    assert not np.asarray(gradient).any()


def test_sides_may_be_exchanged_and_rows_reordered():
    (left, right), valid, products = rows(7), np.arange(7) != 2, np.array([0, 1, 1, 2, 0, 3, 4])
    expected = float(compiled(left, right, valid, products, **HOW))
    assert float(compiled(right, left, valid, products, **HOW)) == pytest.approx(expected, rel=1e-6)
    order = np.random.default_rng(0).permutation(7)
    found = compiled(left[order], right[order], valid[order], products[order], **HOW, chunk=3)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_memory_grows_with_the_chunk_not_with_the_square_of_the_batch():
    def temporary(B, chunk):
        x = jax.ShapeDtypeStruct((B, 8), jnp.float32)
        loss = lambda a, b: pair_loss(a, b, jnp.ones(B, bool), **HOW, chunk=chunk)  # noqa: E731
        return jax.jit(jax.grad(loss, (0, 1))).lower(x, x).compile().memory_analysis().temp_size_in_bytes

    B, chunk = 4096, 32
    assert temporary(B, None) > 4 * B**2
    assert temporary(B, chunk) < 12 * 4 * B * chunk
