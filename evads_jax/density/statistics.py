"""What a corpus's values say: means with their uncertainty, and the difference of two corpora.

The unit is the video. Intervals are percentile bootstraps over videos from a seed, so a table is reproducible; missing
values are left out of every statistic and counted beside it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

BLOCK = 4_000_000  # drawn indices held at a time, 32 MB


@dataclasses.dataclass(frozen=True)
class Summary:
    """One metric over one corpus.

    Attributes:
        mean, median: over the videos with a value; None without any.
        standard_error: of the mean, ddof 1; None below two videos.
        ci95: percentile bootstrap interval of the mean; None below two videos.
        n: videos with a value.
        n_missing: videos without.
    """

    mean: float | None
    median: float | None
    standard_error: float | None
    ci95: tuple[float, float] | None
    n: int
    n_missing: int


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far a second corpus lies above a first.

    Attributes:
        mean: mean of the second − mean of the first (paired: mean of the differences); None when it cannot be had.
        ci95: percentile bootstrap interval of `mean`.
        p_value: two-sided permutation test (paired: random signs), with the observed arrangement counted in.
        n: videos of the first and of the second that enter.
        paired: whether the videos were matched by name.
    """

    mean: float | None
    ci95: tuple[float, float] | None
    p_value: float | None
    n: tuple[int, int]
    paired: bool


def summarise(values: Sequence[float | None], resamples: int = 2000, seed: int = 0) -> Summary:
    """Mean, median, standard error and bootstrap interval of the values that are there."""
    known = np.array([v for v in values if v is not None], np.float64)
    n, n_missing = len(known), len(values) - len(known)
    if n == 0:
        return Summary(None, None, None, None, 0, n_missing)
    mean, median = float(known.mean()), float(np.median(known))
    if n == 1:
        return Summary(mean, median, None, None, 1, n_missing)
    means = _bootstrap_means(known, resamples, seed)
    return Summary(mean, median, float(known.std(ddof=1) / n**0.5), _interval(means), n, n_missing)


def compare(
    first: dict[str, float | None], second: dict[str, float | None], paired: bool, resamples: int = 2000, seed: int = 0
) -> Difference:
    """Compares one metric of two corpora.

    Args:
        first: value of each video by name.
        second: likewise.
        paired: compare video by video, over the names that have a value in both; else as two independent samples.
        resamples: bootstrap resamples and permutations.
        seed: of both.
    """
    draw = np.random.default_rng(seed)
    if paired:
        names = sorted(k for k in first.keys() & second.keys() if first[k] is not None and second[k] is not None)
        gaps = np.array([second[k] - first[k] for k in names], np.float64)  # type: ignore[operator]
        if len(gaps) < 2:
            return Difference(float(gaps[0]) if len(gaps) else None, None, None, (len(gaps), len(gaps)), True)
        flipped = [float((draw.integers(0, 2, len(gaps)) * 2 - 1) @ gaps) / len(gaps) for _ in range(resamples)]
        means = _bootstrap_means(gaps, resamples, seed)
        mean = float(gaps.mean())
        return Difference(mean, _interval(means), _p_value(mean, flipped), (len(gaps), len(gaps)), True)
    left, right = (np.array([v for v in x.values() if v is not None], np.float64) for x in (first, second))
    if min(len(left), len(right)) < 2:
        only = float(right.mean() - left.mean()) if len(left) and len(right) else None
        return Difference(only, None, None, (len(left), len(right)), False)
    mean = float(right.mean() - left.mean())
    means = _bootstrap_means(right, resamples, seed) - _bootstrap_means(left, resamples, seed + 1)
    pooled, shuffled = np.concatenate([left, right]), []
    for _ in range(resamples):
        mixed = draw.permutation(pooled)
        shuffled.append(float(mixed[len(left) :].mean() - mixed[: len(left)].mean()))
    return Difference(mean, _interval(means), _p_value(mean, shuffled), (len(left), len(right)), False)


def histogram(values: Sequence[float | None], bins: int = 20) -> dict[str, list[float]]:
    """Counts and edges of the known values, in equal bins from 0 to their 99th percentile; the last bin takes the rest.

    Returns:
        {"edges": bins + 1 values, "counts": bins values}; empty lists without values.
    """
    known = np.array([v for v in values if v is not None], np.float64)
    if not len(known):
        return {"edges": [], "counts": []}
    top = max(float(np.percentile(known, 99)), 1e-9)
    counts, edges = np.histogram(np.clip(known, 0, top), bins, (0, top))
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _bootstrap_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    draw, out = np.random.default_rng(seed), []
    at_once = max(BLOCK // len(values), 1)
    for first in range(0, resamples, at_once):
        rows = min(at_once, resamples - first)
        out.append(values[draw.integers(0, len(values), (rows, len(values)))].mean(axis=1))
    return np.concatenate(out)


def _interval(means: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _p_value(observed: float, null: Sequence[float]) -> float:
    return (1 + int((np.abs(null) >= abs(observed) - 1e-12).sum())) / (len(null) + 1)
