"""CosFace against a plain NumPy one in float64."""

import jax
import numpy as np
import pytest

from evads_jax.models.cope import cosface_loss


def case(B=6, C=10, E=5, seed=0):
    rng = np.random.default_rng(seed)
    weights, embeddings = rng.normal(size=(C, E)) * 3, rng.normal(size=(B, E))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    valid = np.ones(B, bool)
    valid[2] = False
    return weights.astype(np.float32), embeddings.astype(np.float32), rng.integers(0, C, B), valid


@jax.jit
def outcome(weights, embeddings, labels, valid):
    return jax.value_and_grad(cosface_loss, (0, 1))(weights, embeddings, labels, valid)


def naive(weights, embeddings, labels, valid, scale, margin):
    losses = []
    for x, label in zip(embeddings[valid].astype(np.float64), labels[valid], strict=True):
        wide = weights.astype(np.float64)
        cosines = wide @ x / np.linalg.norm(wide, axis=1)
        cosines[label] -= margin
        logits = scale * cosines
        losses.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label])
    return np.mean(losses)


@pytest.mark.parametrize(("scale", "margin"), [(64.0, 0.4), (1.0, 0.0), (30.0, 0.2)])
def test_it_is_the_plain_loss(scale, margin):
    weights, embeddings, labels, valid = case()
    found = cosface_loss(weights, embeddings, labels, valid, scale=scale, margin=margin)
    assert float(found) == pytest.approx(naive(weights, embeddings, labels, valid, scale, margin), rel=1e-5)


def test_rows_that_do_not_count_never_matter():
    weights, embeddings, labels, valid = case()
    spoiled, astray = np.where(valid[:, None], embeddings, np.nan), np.where(valid, labels, -7)
    found, expected = outcome(weights, spoiled, astray, valid), outcome(weights, embeddings, labels, valid)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)
    none = outcome(weights, embeddings, labels, np.zeros(6, bool))
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(none))


def test_the_length_of_a_class_vector_does_not_matter_and_gradients_are_across_it():
    weights, embeddings, labels, valid = case()
    longer = weights * np.arange(1, 11, dtype=np.float32)[:, None]
    expected, (gradient, _) = outcome(weights, embeddings, labels, valid)
    assert float(outcome(longer, embeddings, labels, valid)[0]) == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose((gradient * weights).sum(axis=1), 0, atol=1e-4)
    step = np.random.default_rng(1).normal(size=weights.shape) * 1e-6
    slope = naive(weights + step, embeddings, labels, valid, 64.0, 0.4)
    slope = (slope - naive(weights - step, embeddings, labels, valid, 64.0, 0.4)) / 2
    assert float((gradient * step).sum()) == pytest.approx(slope, rel=1e-3)
