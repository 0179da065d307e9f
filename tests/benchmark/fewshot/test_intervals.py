import numpy as np
import pytest

from evads_jax.benchmark import statistics
from evads_jax.benchmark.fewshot import estimate, interval


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    right = rng.binomial(75, 0.6, (2000, 200)) / 75
    found = [interval(one) for one in right]
    assert np.mean([i.low <= 0.6 <= i.high for i in found]) == pytest.approx(0.95, abs=0.015)
    assert found[0].n == 200


def test_one_episode_has_no_interval():
    assert np.isnan([interval(np.array([0.4])).low, interval(np.array([0.4])).high]).all()


def test_the_bootstrap_agrees_with_the_normal_interval():
    right = np.random.default_rng(1).binomial(75, 0.6, 400) / 75
    drawn, plain = estimate(right, "lines, 1-shot").intervals()[0], interval(right)
    assert drawn.mean == pytest.approx(plain.mean)
    assert drawn.high - drawn.low == pytest.approx(plain.high - plain.low, rel=0.1)


def test_models_on_the_same_episodes_are_compared_in_pairs():
    rng = np.random.default_rng(2)
    hard = rng.uniform(0.2, 0.9, 300)  # most of the variance is the episode's
    one, other = (hard + rng.normal(gain, 0.02, 300) for gain in (0.0, 0.02))
    difference = (estimate(other, "same") - estimate(one, "same")).intervals()[0]
    assert 0 < difference.low < 0.02 < difference.high
    assert interval(one).overlaps(interval(other))
    with pytest.raises(ValueError, match="same draws"):
        estimate(one, "same") - estimate(other, "others")


def test_seeds_are_averaged_with_an_interval_that_draws_them_too():
    rng = np.random.default_rng(3)
    trained = [estimate(rng.normal(mean, 0.05, 500), "same") for mean in (0.5, 0.6, 0.7)]
    across = statistics.across_seeds(trained)[0]
    assert across.mean == pytest.approx(0.6, abs=0.01)
    assert across.high - across.low > 0.1
