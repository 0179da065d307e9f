import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.sampling import SamplingConfig
from evads_jax.sampling import choose as choosing
from evads_jax.sampling.choose import choose, cumulative_sum, inverse_cdf, nucleus

WEIGHTS = st.lists(st.sampled_from([0.0, 0.0, 1e-6, 0.3, 1.0, 7.0]), min_size=1, max_size=200).filter(any)


@given(WEIGHTS, st.floats(0, 1, exclude_max=True, width=32))
def test_the_inverse_cdf_takes_the_token_that_the_number_falls_on(weights, uniform):
    token = int(inverse_cdf(jnp.array([weights]), jnp.array([uniform]))[0])
    total = np.cumsum(np.float64(weights))
    assert weights[token] > 0
    slack = 1e-5 * total[-1]
    assert total[token] - weights[token] - slack <= uniform * total[-1] <= total[token] + slack


def test_rounding_in_the_sum_never_draws_a_token_of_no_weight(monkeypatch):
    weights, rounded = jnp.array([[1.0, 0.0, 1.0]]), jnp.array([[1.0, 1.0001, 2.0]])
    monkeypatch.setattr(choosing, "cumulative_sum", lambda _: rounded)
    assert inverse_cdf(weights, jnp.array([0.5])).tolist() == [2]


@given(st.lists(st.floats(0, 100, width=32), min_size=1, max_size=300))
def test_the_cumulative_sum_in_blocks_is_a_cumulative_sum(x):
    np.testing.assert_allclose(cumulative_sum(jnp.array([x]))[0], np.cumsum(np.float64(x)), rtol=1e-4, atol=1e-4)


@given(WEIGHTS, st.floats(0.05, 1))
def test_the_nucleus_is_the_smallest_set_that_reaches_its_share(weights, top_p):
    kept = np.asarray(nucleus(jnp.array([weights]), top_p))[0]
    weights = np.float32(weights)
    assert np.all((kept == 0) | (kept == weights))
    assert kept.sum() >= top_p * weights.sum() * (1 - 1e-5)
    smallest = kept[kept > 0].min()
    assert np.all(kept[weights >= smallest] > 0), "everything at least as likely stays in"
    assert kept[kept > smallest].sum() <= top_p * weights.sum() * (1 + 1e-5), "and nothing more than needed"


def test_tokens_are_drawn_as_often_as_they_are_likely():
    logits = jnp.log(jnp.array([0.5, 0.25, 0.15, 0.1]))
    uniform = jax.random.uniform(jax.random.key(0), (20_000,))
    token, logprob = choose(jnp.tile(logits, (20_000, 1)), uniform, SamplingConfig(1))
    np.testing.assert_allclose(jnp.bincount(token, length=4) / 20_000, jnp.exp(logits), atol=0.012)
    np.testing.assert_allclose(logprob, logits[token], rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 0.3, 2.0])
def test_the_log_probability_is_the_models_own_at_any_temperature(temperature):
    logits = 3 * jax.random.normal(jax.random.key(1), (50, 9))
    uniform = jax.random.uniform(jax.random.key(0), (50,))
    token, logprob = choose(logits, uniform, SamplingConfig(1, temperature, top_p=0.7))
    np.testing.assert_allclose(logprob, jax.nn.log_softmax(logits)[jnp.arange(50), token], atol=1e-5)
    assert (temperature > 0) or jnp.array_equal(token, logits.argmax(axis=1))


def test_a_low_temperature_sharpens():
    logits = jnp.tile(jnp.array([1.0, 0.0]), (4000, 1))
    uniform = jax.random.uniform(jax.random.key(0), (4000,))
    share = [float(choose(logits, uniform, SamplingConfig(1, t))[0].mean()) for t in (0.25, 1.0, 4.0)]
    np.testing.assert_allclose(share, 1 / (1 + np.exp([4.0, 1.0, 0.25])), atol=0.03)


@pytest.mark.parametrize("fields", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.1},
                                     {"buckets": (0, 2)}, {"buckets": (3, 2)}, {"buckets": (4,)},
                                     {"compact": (0,)}, {"compact": (1, 2)}])  # fmt: skip
def test_settings_without_a_meaning_are_refused(fields):
    with pytest.raises(ValueError, match="sampling needs"):
        SamplingConfig(**{"max_new_tokens": 4, **fields})
