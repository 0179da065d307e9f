"""Krippendorff's alpha and weighted kappa against the definitions, written as loops, and the published example."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.benchmark.agreement import METRICS, alpha, between, coincidences, confusions, kappa, repeatability
from evads_jax.benchmark.statistics import Videos
from evads_jax.judge.verdict import GRID

# Four observers and twelve units of Krippendorff, «Computing Krippendorff's Alpha-Reliability» (2011); 0 is missing.
EXAMPLE = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ],
    dtype=float,
).T
EXAMPLE[EXAMPLE == 0] = np.nan


def alpha_by_pairs(rows, metric):
    """The definition, pair by pair: observed over expected disagreement of judgements of the same unit, of any."""
    units = [[v for v in row if not math.isnan(v)] for row in rows]
    units = [unit for unit in units if len(unit) > 1]
    pooled = [v for unit in units for v in unit]
    count = {v: pooled.count(v) for v in set(pooled)}

    def distance(a, b):
        if metric == "nominal":
            return float(a != b)
        if metric == "interval":
            return (a - b) ** 2
        between = sum(count[v] for v in count if min(a, b) <= v <= max(a, b))
        return (between - (count[a] + count[b]) / 2) ** 2

    n = len(pooled)
    observed = sum(distance(a, b) / (len(u) - 1) for u in units for a, b in itertools.permutations(u, 2)) / n
    expected = sum(distance(a, b) for a, b in itertools.permutations(pooled, 2)) / (n * (n - 1))
    return 1 - observed / expected if expected else math.nan


@pytest.mark.parametrize(("metric", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_published_example(metric, published):
    scale = (1, 2, 3, 4, 5)
    assert float(alpha(coincidences(EXAMPLE, scale).sum(axis=0), metric, scale)) == pytest.approx(published, abs=5e-4)


scores = st.lists(st.lists(st.sampled_from([*GRID, math.nan]), min_size=3, max_size=3), min_size=2, max_size=12).map(
    np.array
)


@given(scores, st.sampled_from(METRICS))
def test_alpha_is_that_of_its_definition(rows, metric):
    ours = float(alpha(coincidences(rows).sum(axis=0), metric))
    if not any((~np.isnan(row)).sum() > 1 for row in rows):
        assert math.isnan(ours)
    else:
        np.testing.assert_allclose(ours, alpha_by_pairs(rows, metric), atol=1e-12)


@given(st.lists(st.tuples(st.sampled_from(GRID), st.sampled_from(GRID)), min_size=2, max_size=20))
def test_kappa_is_that_of_its_definition(pairs):
    a, b = np.array(pairs).T
    observed = np.mean((a - b) ** 2)
    expected = np.mean([(x - y) ** 2 for x in a for y in b])
    ours = float(kappa(confusions(a, b).sum(axis=0)))
    if expected == 0:
        assert math.isnan(ours)
    else:
        assert ours == pytest.approx(1 - observed / expected, abs=1e-12)


def test_a_judge_that_repeats_itself_agrees_fully_and_one_that_throws_dice_not_at_all():
    rng = np.random.default_rng(0)
    truth = rng.choice(GRID, size=400)
    names = [f"v{i // 5}" for i in range(400)]
    videos = Videos(names, 200, 0)
    steady = repeatability(videos, names, np.stack([truth] * 3, axis=1))
    assert [steady[k].mean for k in ("agreement", "alpha_ordinal", "alpha_interval")] == pytest.approx([1.0] * 3)
    dice = repeatability(videos, names, rng.choice(GRID, size=(400, 3)))
    assert dice["alpha_ordinal"].low < 0 < dice["alpha_ordinal"].high
    assert dice["agreement"].low < 0.2 < dice["agreement"].high
    assert dice["judgements"] == 3


def test_missing_verdicts_are_counted_and_take_no_part():
    names = list("aabbcc")
    rows = np.array([[1, 1], [0, np.nan], [0.5, 0.5], [np.nan, np.nan], [0, 0.25], [0.75, 0.75]])
    found = repeatability(Videos(names, 50, 0), names, rows)
    assert found["answers"] == 4
    assert found["missing"] == [1, 2]
    assert found["agreement"].mean == 0.75
    assert found["agreement"].n == 4
    assert found["means"] == [pytest.approx(2.25 / 5), pytest.approx(2.5 / 4)]


def test_two_judges_of_whom_one_is_a_step_stricter():
    names = [f"v{i}" for i in range(20)]
    a = np.array([GRID[i % 4 + 1] for i in range(20)])
    found = between(Videos(names, 100, 0), names, a, a - 0.25)
    assert (found["agreement"].mean, found["within_a_step"].mean) == (0.0, 1.0)
    assert (found["difference"].low, found["difference"].high) == (-0.25, -0.25)
    assert 0 < found["kappa"].mean < 1
    assert found["answers"] == 20


def test_the_intervals_resample_videos_and_not_answers():
    rng = np.random.default_rng(1)
    of_video = rng.choice(GRID, size=(40, 2))  # the five answers of a video are judged alike
    clustered = np.repeat(of_video, 5, axis=0)
    names = [f"v{i // 5}" for i in range(200)]
    alone = [str(i) for i in range(200)]
    wide = repeatability(Videos(names, 500, 0), names, clustered)["agreement"]
    narrow = repeatability(Videos(alone, 500, 0), alone, clustered)["agreement"]
    assert wide.high - wide.low > 1.7 * (narrow.high - narrow.low)
