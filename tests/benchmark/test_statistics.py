import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.benchmark import statistics
from evads_jax.benchmark.statistics import Videos, across_seeds, average


def clustered(rng, videos, questions, spread):
    """Binary scores whose chance of being 1 varies between videos (and with it their number); truth is one half."""
    chance = np.clip(rng.normal(0.5, spread, videos), 0, 1)
    names, scores = [], []
    for v in range(videos):
        for _ in range(questions[v % len(questions)]):
            names.append(f"v{v}")
            scores.append(float(rng.random() < chance[v]))
    return names, np.array(scores)[:, None]


def cluster_robust_error(names, scores):
    """The sandwich error of a mean: √(V/(V−1) · Σ_v (Σ_i (y_vi − ȳ))²) / N."""
    sums = {}
    for name, residual in zip(names, scores[:, 0] - scores.mean(), strict=True):
        sums[name] = sums.get(name, 0.0) + residual
    count = len(sums)
    return math.sqrt(count / (count - 1) * sum(s * s for s in sums.values())) / len(names)


@pytest.mark.parametrize("videos", [12, 60])
def test_intervals_cover_the_truth_as_often_as_they_say(videos):
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(400):
        names, scores = clustered(rng, videos, (5, 3), 0.3)
        (interval,) = Videos(names, 400, trial).mean(names, scores).intervals()
        hits += interval.low <= 0.5 <= interval.high
    assert 0.92 <= hits / 400 <= 0.98


def test_intervals_that_ignore_the_videos_would_cover_too_little():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        _, scores = clustered(rng, 60, (5, 3), 0.3)
        hits += abs(scores.mean() - 0.5) <= 1.96 * scores.std() / math.sqrt(len(scores))
    assert hits / 400 < 0.9


@given(st.integers(0, 10_000), st.integers(40, 120))
def test_the_width_agrees_with_the_cluster_robust_error(seed, videos):
    names, scores = clustered(np.random.default_rng(seed), videos, (5, 2, 1), 0.3)
    (interval,) = Videos(names, 2000, 0).mean(names, scores).intervals()
    width = 2 * NormalDist().inv_cdf(0.975) * cluster_robust_error(names, scores)
    assert interval.mean == pytest.approx(scores.mean())
    assert (interval.high - interval.low) == pytest.approx(width, rel=0.15)


def test_a_paired_difference_is_narrower_than_two_apart_and_exact_for_a_constant_shift():
    names, scores = clustered(np.random.default_rng(0), 50, (5,), 0.4)
    videos = Videos(names, 500, 0)
    a, b = videos.mean(names, scores + 0.125), videos.mean(names, scores)
    (difference,) = (a - b).intervals()
    assert (difference.low, difference.mean, difference.high) == pytest.approx((0.125,) * 3)
    assert b.intervals()[0].high - b.intervals()[0].low > 0.1


def test_estimates_of_other_draws_are_not_paired():
    names, scores = clustered(np.random.default_rng(0), 10, (5,), 0.4)
    a, b = (Videos(names, 50, 0, split=s).mean(names, scores) for s in "ab")
    with pytest.raises(ValueError, match="same draws"):
        a - b


def test_missing_values_leave_the_mean_and_its_count():
    values = np.array([[1.0, np.nan], [0.0, np.nan], [np.nan, np.nan]])
    first, second = Videos("aab", 100, 0).mean("aab", values).intervals()
    assert (first.mean, first.n, first.clusters) == (0.5, 2, 1)
    assert math.isnan(first.low)  # one video only: nothing to resample
    assert math.isnan(second.mean)
    assert second.n == 0


def test_the_same_seed_gives_the_same_interval_and_nothing_at_all_gives_none():
    names, scores = clustered(np.random.default_rng(3), 20, (5,), 0.4)
    one, two = (Videos(names, 300, 7).mean(names, scores).intervals() for _ in range(2))
    assert one == two
    (nothing,) = Videos([], 10, 0).mean([], np.zeros((0, 1))).intervals()
    assert math.isnan(nothing.mean)


def test_seeds_on_the_same_videos_are_resampled_together_and_others_apart():
    rng = np.random.default_rng(0)
    names, scores = clustered(rng, 40, (5,), 0.4)
    same = [Videos(names, 2000, 0).mean(names, scores) for _ in range(3)]
    apart = [Videos(names, 2000, 0, split=str(s)).mean(names, scores) for s in range(3)]
    width = lambda e: e.intervals()[0].high - e.intervals()[0].low  # noqa: E731
    assert width(average(same)) == pytest.approx(width(same[0]))
    assert width(average(apart)) == pytest.approx(width(same[0]) / math.sqrt(3), rel=0.1)


def test_drawing_seeds_too_widens_the_interval_when_seeds_differ():
    names, scores = clustered(np.random.default_rng(0), 200, (5,), 0.1)
    videos = Videos(names, 1000, 0)
    seeds = [videos.mean(names, scores + shift) for shift in (-0.2, 0.0, 0.2)]
    (fixed,), (drawn,) = average(seeds).intervals(), across_seeds(seeds)
    assert drawn.mean == fixed.mean
    assert drawn.high - drawn.low > 3 * (fixed.high - fixed.low)
    assert math.isnan(across_seeds(seeds[:1])[0].low)


def test_the_interval_over_three_seeds_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(5)
    names = [f"v{v}" for v in range(20)]
    covered = []
    for _ in range(400):
        seeds = [Videos(names, 50, 0).mean(names, rng.normal(mean, 0.01, (20, 1))) for mean in rng.normal(0.5, 0.1, 3)]
        (interval,) = across_seeds(seeds)
        covered.append(interval.low <= 0.5 <= interval.high)
    assert 0.92 < np.mean(covered) < 0.98


@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (5, 2.5706), (30, 2.0423)])
def test_the_student_quantile_is_the_tabulated_one(degrees, quantile):
    assert statistics._student_quantile(degrees) == pytest.approx(quantile, rel=0.01 if degrees == 3 else 0.002)
