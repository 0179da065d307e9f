"""Corpus statistics."""

import numpy as np
import pytest

from evads_jax.density.statistics import compare, histogram, summarise


def test_a_summary_leaves_missing_values_out_and_counts_them():
    result = summarise([1.0, None, 2.0, 6.0])
    assert (result.mean, result.median, result.n, result.n_missing) == (3.0, 2.0, 3, 1)
    assert result.standard_error == pytest.approx(np.std([1, 2, 6], ddof=1) / 3**0.5)
    assert result.ci95[0] < 3 < result.ci95[1]


def test_without_values_nothing_is_made_up():
    empty, single = summarise([None, None]), summarise([4.0])
    assert (empty.mean, empty.ci95, empty.n, empty.n_missing) == (None, None, 0, 2)
    assert (single.mean, single.standard_error, single.ci95) == (4.0, None, None)


def test_the_bootstrap_interval_covers_the_mean_about_as_often_as_it_says():
    draw = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = summarise(list(draw.exponential(size=60)), resamples=300, seed=trial).ci95
        hits += low <= 1 <= high
    assert 0.87 <= hits / 200 <= 0.99


def test_a_paired_comparison_sees_a_shift_that_two_samples_do_not():
    draw = np.random.default_rng(0)
    base = dict(enumerate(draw.normal(0, 10, 40)))
    shifted = {k: v + 1 + draw.normal(0, 0.1) for k, v in base.items()}
    paired, apart = (compare(base, shifted, paired=p) for p in (True, False))
    assert paired.mean == pytest.approx(apart.mean)
    assert paired.ci95[0] > 0.9
    assert paired.p_value < 0.01
    assert apart.ci95[0] < 0 < apart.ci95[1]
    assert apart.p_value > 0.1


def test_a_paired_comparison_uses_the_videos_that_both_have():
    result = compare({"a": 1.0, "b": None, "c": 3.0, "d": 1.0}, {"a": 2.0, "b": 1.0, "c": 5.0}, paired=True)
    assert (result.mean, result.n) == (1.5, (2, 2))
    assert compare({}, {"a": 1.0}, paired=True).mean is None


def test_the_same_seed_gives_the_same_interval():
    values = list(np.random.default_rng(0).normal(size=50))
    assert summarise(values, seed=1) == summarise(values, seed=1) != summarise(values, seed=2)


def test_a_histogram_counts_every_known_value():
    result = histogram([0.0, 1.0, None, 2.0, 500.0], bins=5)
    assert sum(result["counts"]) == 4
    assert len(result["edges"]) == 6
    assert histogram([None]) == {"edges": [], "counts": []}
