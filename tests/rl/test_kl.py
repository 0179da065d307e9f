import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evads_jax.rl.kl import KL, in_reward, kl


def policies():
    rng = np.random.default_rng(3)
    return jnp.array(rng.normal(size=7), jnp.float32), jnp.array(rng.normal(size=7), jnp.float32)


def expected_gradient(name):
    """E_{x ~ π}[∇_θ k(x)] exactly, by summing over the vocabulary with the sampling probabilities held fixed."""
    theta, other = policies()
    fixed = jax.nn.softmax(theta)
    reference = jax.nn.log_softmax(other)
    return jax.grad(lambda t: jnp.sum(fixed * kl(name, jax.nn.log_softmax(t), reference)))(theta)


def divergence_gradient(direction):
    theta, other = policies()

    def value(t):
        p, q = jax.nn.log_softmax(t), jax.nn.log_softmax(other)
        return jnp.sum(jnp.exp(p) * (p - q)) if direction == "reverse" else jnp.sum(jnp.exp(q) * (q - p))

    return jax.grad(value)(theta)


@pytest.mark.parametrize("name", KL)
def test_estimators_equal_float64_formulas(name):
    rng = np.random.default_rng(0)
    p, q = rng.normal(-2, 1, (2, 50))
    ratio = np.exp(q - p)
    want = {"k1": p - q, "k2": 0.5 * (p - q) ** 2, "k3": ratio - 1 - (q - p)}[name]
    np.testing.assert_allclose(kl(name, jnp.float32(p), jnp.float32(q)), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_k1_and_k3_are_unbiased_for_the_reverse_divergence(name):
    theta, other = policies()
    p, q = jax.nn.log_softmax(theta), jax.nn.log_softmax(other)
    np.testing.assert_allclose(jnp.sum(jnp.exp(p) * kl(name, p, q)), jnp.sum(jnp.exp(p) * (p - q)), rtol=1e-5)


def test_the_gradient_of_k1_is_zero_in_expectation():
    np.testing.assert_allclose(expected_gradient("k1"), 0, atol=1e-6)


def test_the_gradient_of_k2_is_that_of_the_reverse_divergence():
    np.testing.assert_allclose(expected_gradient("k2"), divergence_gradient("reverse"), atol=1e-5)


def test_the_gradient_of_k3_is_that_of_the_forward_divergence():
    np.testing.assert_allclose(expected_gradient("k3"), divergence_gradient("forward"), atol=1e-5)


def test_no_gradient_flows_into_the_reference():
    assert jax.grad(lambda q: kl("k3", jnp.float32(-1), q))(jnp.float32(-2)) == 0


def test_an_unknown_estimator_is_named():
    with pytest.raises(ValueError, match="k4"):
        kl("k4", jnp.zeros(1), jnp.zeros(1))


def test_a_divergence_in_the_reward_is_the_sum_over_the_real_tokens():
    rng = np.random.default_rng(0)
    old, reference = rng.normal(-2, 1, (2, 3, 4, 5)).astype(np.float32)
    mask = np.arange(5) < rng.integers(0, 6, (3, 4, 1))
    poisoned = np.where(mask, old, np.nan)
    want = np.where(mask, old - reference, 0).astype(np.float64).sum(-1)
    np.testing.assert_allclose(in_reward(poisoned, reference, mask), want, rtol=1e-5, atol=1e-6)


def test_in_the_reward_k1_descends_the_reverse_divergence():
    # REINFORCE with the reward −k1: Σ_x π(x) · k1(x) · ∇log π(x), the sampling probabilities and k1 held fixed.
    theta, other = policies()
    fixed, value = jax.nn.softmax(theta), kl("k1", jax.nn.log_softmax(theta), jax.nn.log_softmax(other))
    slope = jax.grad(lambda t: jnp.sum(fixed * value * jax.nn.log_softmax(t)))(theta)
    np.testing.assert_allclose(slope, divergence_gradient("reverse"), atol=1e-5)
