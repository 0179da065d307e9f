import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.rl.importance import LEVELS, truncated

B, G, S = 2, 3, 5


def inputs(seed, width=0.5):
    rng = np.random.default_rng(seed)
    sampled = rng.normal(-2, 1, (B, G, S)).astype(np.float32)
    recomputed = sampled + rng.normal(0, width, (B, G, S)).astype(np.float32)
    return recomputed, sampled, np.arange(S) < rng.integers(1, S + 1, (B, G, 1))


@given(st.integers(0, 1000), st.sampled_from(LEVELS), st.floats(0.25, 4, width=32))
def test_weights_are_the_truncated_ratios(seed, level, cap):
    recomputed, sampled, mask = inputs(seed)
    got, metrics = truncated(recomputed, sampled, mask, cap, level)
    ratio = np.where(mask, recomputed - sampled, 0).astype(np.float64)
    ratio = np.exp(ratio if level == "token" else np.broadcast_to(ratio.sum(-1, keepdims=True), ratio.shape))
    np.testing.assert_allclose(got, np.where(mask, np.minimum(ratio, cap), 1), rtol=1e-5)
    np.testing.assert_allclose(metrics["importance_mean"], np.minimum(ratio, cap)[mask].mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["importance_capped"], (ratio > cap)[mask].mean(), rtol=1e-5)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_stands_in_the_padding_never_matters(level, poison):
    recomputed, sampled, mask = inputs(3)
    clean = truncated(recomputed, sampled, mask, 1.1, level)
    dirty = truncated(np.where(mask, recomputed, poison), np.where(mask, sampled, poison), mask, 1.1, level)
    np.testing.assert_array_equal(dirty[0], clean[0])
    assert dirty[1] == clean[1]


@pytest.mark.parametrize("level", LEVELS)
def test_without_a_gap_every_weight_is_one(level):
    recomputed, _, mask = inputs(4)
    weights, metrics = truncated(recomputed, recomputed, mask, 2.0, level)
    assert (np.asarray(weights) == 1).all()
    assert metrics["importance_capped"] == 0


def test_an_unknown_level_is_named():
    with pytest.raises(ValueError, match="tokens"):
        truncated(*inputs(0), 2.0, "tokens")
