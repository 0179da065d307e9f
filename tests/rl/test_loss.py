import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evads_jax.rl.loss import LOSSES, policy_loss

B, G, S, MAX_TOKENS = 4, 3, 7, 11


@functools.cache
def batch():
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, S + 1, (B, G))
    lengths[1, 2] = 0
    mask = np.arange(S) < lengths[..., None]
    new, old, reference = rng.normal(-1.5, 0.4, (3, B, G, S)).astype(np.float32)
    advantages = rng.normal(size=(B, G)).astype(np.float32)
    entropy = rng.random((B, G, S)).astype(np.float32)
    return {"new": new, "old": old, "reference": reference, "advantages": advantages, "mask": mask, "entropy": entropy}


def sums(name, data, **options):
    options = {"max_tokens": MAX_TOKENS, "kl_weight": 0.3, "kl_name": "k3", **options}
    arrays = {k: jnp.asarray(v) for k, v in data.items()}
    return policy_loss(
        name,
        arrays["new"],
        arrays["old"],
        arrays["advantages"],
        arrays["mask"],
        reference_logprob=arrays["reference"],
        entropy=arrays["entropy"],
        **options,
    )


def reference(name, data, low=0.2, high=0.28, weight=0.3):
    """Every loss written out token by token in float64, with its gradient with respect to the log-probabilities."""
    data = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in data.items()}
    mask = data["mask"]
    completions = sum(mask[b, g].any() for b in range(B) for g in range(G))
    total, gradient = 0.0, np.zeros(mask.shape)
    clipped = [0, 0]
    for b, g, s in zip(*np.nonzero(mask), strict=True):
        ratio = np.exp(data["new"][b, g, s] - data["old"][b, g, s])
        a = data["advantages"][b, g]
        bounded = min(max(ratio, 1 - low), 1 + high)
        log_r = data["reference"][b, g, s] - data["new"][b, g, s]
        loss = -min(ratio * a, bounded * a) + weight * (np.exp(log_r) - 1 - log_r)
        slope = (-ratio * a if ratio * a <= bounded * a else 0.0) + weight * (1 - np.exp(log_r))
        clipped[0] += ratio < 1 - low and a < 0
        clipped[1] += ratio > 1 + high and a > 0
        share = {
            "grpo": 1 / mask[b, g].sum() / completions,
            "dapo": 1 / mask.sum(),
            "bnpo": 1 / mask.sum(),
            "dr_grpo": 1 / (completions * MAX_TOKENS),
        }[name]
        total += share * loss
        gradient[b, g, s] = share * slope
    return total, gradient, np.array(clipped) / mask.sum()


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_and_its_gradient_equal_the_formula(name):
    data = batch()
    value, gradient, clipped = reference(name, data)
    got = sums(name, data)
    np.testing.assert_allclose(got.value(), value, rtol=1e-5)
    slope = jax.grad(lambda new: sums(name, {**data, "new": new}).loss)(data["new"]) / got.denominator
    np.testing.assert_allclose(slope, gradient, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose([got.metrics()["clip_low"], got.metrics()["clip_high"]], clipped, rtol=1e-6)
    assert clipped.min() > 0


def test_the_metrics_are_means_over_the_real_tokens():
    data = batch()
    mask, got = data["mask"], sums("dapo", data).metrics()
    log_ratio = (data["new"] - data["old"])[mask].astype(np.float64)
    gap = (data["reference"] - data["new"])[mask].astype(np.float64)
    np.testing.assert_allclose(got["ratio"], np.exp(log_ratio).mean(), rtol=1e-5)
    np.testing.assert_allclose(got["approx_kl"], (np.exp(log_ratio) - 1 - log_ratio).mean(), rtol=1e-4)
    np.testing.assert_allclose(got["kl"], (np.exp(gap) - 1 - gap).mean(), rtol=1e-4)
    np.testing.assert_allclose(got["entropy"], data["entropy"][mask].mean(), rtol=1e-5)
    assert got["tokens"] == mask.sum()


@pytest.mark.parametrize("name", LOSSES)
@given(split=st.lists(st.integers(0, 2), min_size=B * G, max_size=B * G))
@settings(deadline=None, max_examples=15)
def test_splitting_the_batch_never_matters(name, split):
    data = batch()
    parts = [{**data, "mask": data["mask"] & (np.reshape(split, (B, G, 1)) == part)} for part in range(3)]
    whole = sums(name, data)
    added = functools.reduce(lambda a, b: a + b, (sums(name, part) for part in parts))
    for a, b in zip(jax.tree.leaves(added), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e30])
def test_what_stands_in_the_padding_never_matters(name, poison):
    clean = batch()
    dirty = {k: np.where(clean["mask"], v, poison) if v.shape == (B, G, S) else v for k, v in clean.items()}
    dirty["mask"] = clean["mask"]
    dirty["advantages"] = np.where(clean["mask"].any(-1), clean["advantages"], poison)
    for a, b in zip(jax.tree.leaves(sums(name, dirty)), jax.tree.leaves(sums(name, clean)), strict=True):
        np.testing.assert_array_equal(a, b)
    slope = jax.grad(lambda new: sums(name, {**dirty, "new": new}).loss)(dirty["new"])
    assert np.isfinite(slope).all()
    assert (np.asarray(slope)[~clean["mask"]] == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_wider_padding_never_matters(name):
    data = batch()
    wide = {
        k: np.concatenate([v, np.zeros((B, G, 5), v.dtype)], -1) if v.shape == (B, G, S) else v for k, v in data.items()
    }
    for a, b in zip(jax.tree.leaves(sums(name, wide)), jax.tree.leaves(sums(name, data)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_at_the_first_update_the_gradient_is_that_of_the_plain_policy_gradient():
    data = {**batch(), "old": batch()["new"]}
    slope = jax.grad(lambda new: sums("dapo", {**data, "new": new}, kl_weight=0.0).loss)(data["new"])
    np.testing.assert_allclose(slope, np.where(data["mask"], -data["advantages"][..., None], 0), rtol=1e-6)


def test_nothing_kept_is_a_loss_of_zero():
    data = {**batch(), "mask": np.zeros((B, G, S), bool)}
    got = sums("grpo", data)
    assert got.value() == 0
    assert got.denominator == 0


def test_without_a_reference_there_is_no_kl_term():
    data = batch()
    with_none = sums("grpo", data, kl_name="none")
    assert with_none.kl == 0
    np.testing.assert_allclose(with_none.loss, sums("grpo", data, kl_weight=0.0).loss, rtol=1e-6)


def test_no_gradient_flows_into_old_reference_or_advantages():
    data = batch()
    for key in ("old", "reference", "advantages"):
        slope = jax.grad(lambda value, key=key: sums("grpo", {**data, key: value}).loss)(data[key])
        assert (np.asarray(slope) == 0).all()


def test_an_unknown_loss_is_named():
    with pytest.raises(ValueError, match="gppo"):
        sums("gppo", batch())
