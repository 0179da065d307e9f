"""Intervals for scores of questions that share videos, for differences between stages, and across seeds.

Questions of one video are not independent, so that the video is what is resampled. Every figure here is a ratio
`Σ_v a_v / Σ_v b_v` over videos v (a mean: a_v the sum of the scores of video v, b_v their number). One replicate draws
as many videos as there are, with replacement, and takes the same ratio over the drawn ones. Two figures that were
replicated by the same draws can be subtracted replicate by replicate: that is the paired difference.

Across seeds the figure is the plain average of the seeds' figures, `θ = 1/S · Σ_s θ_s`. Seeds that were evaluated on
the same videos are resampled by the same draws, those with videos of their own by independent ones; the seeds
themselves stay. `across_seeds` gives the second interval, for a seed that is not among them.

The interval is the percentile one, widened for few videos as in Hesterberg, «What Teachers Should Know About the
Bootstrap» (2015), 5.3: with V videos the quantiles are taken at Φ(∓ t(.975, V−1) · √(V/(V−1))), not at .025 and .975.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

_NORMAL = NormalDist()
LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Interval:
    """A figure with its interval.

    Attributes:
      mean: the figure; NaN when it rests on nothing.
      low: lower end of the 95 % interval; NaN with fewer than two videos.
      high: its upper end.
      n: questions (or facts) that the figure rests on.
      clusters: videos among which they lie.
    """

    mean: float
    low: float
    high: float
    n: int
    clusters: int

    def overlaps(self, other: "Interval") -> bool:
        """Whether the two intervals have a common point."""
        return self.low <= other.high and other.low <= self.high


@dataclasses.dataclass(frozen=True)
class Estimate:
    """K figures and their bootstrap replicates.

    Attributes:
      value: the figures.
      replicates: each of them under every draw of videos.
      n: questions behind each figure.
      clusters: videos behind each figure.
      draws: which draws these are; only estimates under the same ones are paired.
    """

    value: Float[np.ndarray, " K"]
    replicates: Float[np.ndarray, "R K"]
    n: tuple[int, ...]
    clusters: tuple[int, ...]
    draws: tuple[int, ...]

    def __sub__(self, other: "Estimate") -> "Estimate":
        """The paired difference.

        Raises:
          ValueError: the two were not replicated by the same draws.
        """
        if self.draws != other.draws:
            raise ValueError("a paired difference needs estimates under the same draws of videos")
        return Estimate(
            self.value - other.value,
            self.replicates - other.replicates,
            tuple(map(min, self.n, other.n)),
            tuple(map(min, self.clusters, other.clusters)),
            self.draws,
        )

    def intervals(self) -> list[Interval]:
        """The 95 % interval of each figure."""
        return [
            Interval(float(value), *_percentiles(column, clusters), n, clusters)
            for value, column, n, clusters in zip(self.value, self.replicates.T, self.n, self.clusters, strict=True)
        ]


class Videos:
    """The videos of one split and the draws from them.

    Args:
      names: the videos, each once or more.
      replicates: R, how often they are drawn.
      seed: of the draws.
      split: names the split; other videos get other draws.
    """

    def __init__(self, names: Sequence[str], replicates: int, seed: int, split: str = ""):
        self._row = {name: i for i, name in enumerate(dict.fromkeys(names))}
        self.draws = (seed, replicates, zlib.crc32("\n".join([split, *self._row]).encode("utf-8", "replace")))
        rng = np.random.default_rng(self.draws)
        count = len(self._row)
        drawn = rng.integers(0, max(count, 1), size=(replicates if count else 0, count))
        drawn += np.arange(len(drawn))[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=drawn.size) if count else np.zeros(0)
        self._times: np.ndarray = times.reshape(len(drawn), count).astype(np.float64)

    def ratio(
        self,
        videos: Sequence[str],
        numerator: Float[np.ndarray, "N K"],
        denominator: Float[np.ndarray, "N K"],
    ) -> Estimate:
        """`Σ numerator / Σ denominator` for each of K columns.

        Args:
          videos: the video of each of N questions.
          numerator: what is summed above.
          denominator: what is summed below; a question with 0 does not belong to the column.
        """
        above, below = self._by_video(videos, numerator), self._by_video(videos, denominator)
        return Estimate(
            _divide(above.sum(0), below.sum(0)),
            _divide(self._times @ above, self._times @ below),
            tuple(round(total) for total in denominator.sum(0)),
            tuple(int(count) for count in (below > 0).sum(0)),
            self.draws,
        )

    def function(
        self, videos: Sequence[str], values: Float[np.ndarray, "N K"], of: Callable[[np.ndarray], np.ndarray]
    ) -> Estimate:
        """A figure that is any function of sums over questions, e.g. a coefficient of agreement of counts.

        Args:
          videos: the video of each of N questions.
          values: what is summed; a question whose values are all 0 does not count.
          of: sums [..., K] → the figure [...].
        """
        sums = self._by_video(videos, values)
        counted, videos_counted = int(values.any(axis=1).sum()), int(sums.any(axis=1).sum())
        return Estimate(
            np.atleast_1d(of(sums.sum(0))),
            of(self._times @ sums)[:, None],
            (counted,),
            (videos_counted,),
            self.draws,
        )

    def _by_video(self, videos: Sequence[str], values: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "V K"]:
        sums = np.zeros((len(self._row), values.shape[1]))
        np.add.at(sums, np.array([self._row[video] for video in videos], dtype=np.int64), values)
        return sums

    def mean(self, videos: Sequence[str], values: Float[np.ndarray, "N K"]) -> Estimate:
        """The mean of each column over the questions whose value is not NaN."""
        known = ~np.isnan(values)
        return self.ratio(videos, np.where(known, values, 0.0), known.astype(np.float64))


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The average over seeds; the seeds are fixed, their videos are resampled.

    Videos that several seeds share count once in `clusters`.
    """
    splits: dict[tuple[int, ...], tuple[int, ...]] = {}
    for e in estimates:
        splits[e.draws] = tuple(map(max, e.clusters, splits.get(e.draws, e.clusters)))
    return Estimate(
        np.mean([e.value for e in estimates], axis=0),
        np.mean([e.replicates for e in estimates], axis=0),
        tuple(map(sum, zip(*(e.n for e in estimates), strict=True))),
        tuple(map(sum, zip(*splits.values(), strict=True))),
        tuple(part for e in estimates for part in e.draws),
    )


def across_seeds(estimates: Sequence[Estimate]) -> list[Interval]:
    """The average over seeds with an interval in which the seeds are drawn too.

    Student's, t(.975, S−1) · s/√S with s the deviation between the seeds' figures (a bootstrap of three seeds covers
    81 % where it says 95), and the interval over videos, added as independent errors are. Where each seed has videos of
    its own, s holds their error already, and the interval is on the wide side. A single seed has none.
    """
    mean, count = average(estimates), len(estimates)
    if count < 2:
        return [dataclasses.replace(i, low=math.nan, high=math.nan) for i in mean.intervals()]
    deviation = np.std([e.value for e in estimates], axis=0, ddof=1) / math.sqrt(count)
    return [
        dataclasses.replace(
            i, low=i.mean - math.hypot(i.mean - i.low, between), high=i.mean + math.hypot(i.high - i.mean, between)
        )
        for i, between in zip(mean.intervals(), _student_quantile(count - 1) * deviation, strict=True)
    ]


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _percentiles(replicates: np.ndarray, clusters: int) -> tuple[float, float]:
    known = replicates[~np.isnan(replicates)]
    if clusters < 2 or not len(known):
        return math.nan, math.nan
    tail = _NORMAL.cdf(-_student_quantile(clusters - 1) * math.sqrt(clusters / (clusters - 1)))
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def _student_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t: exact for 1 and 2 degrees, else Cornish–Fisher's expansion, within 1 %."""
    p = (1 + LEVEL) / 2
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) * math.sqrt(1 / (2 * p * (1 - p)))
    z, d = _NORMAL.inv_cdf((1 + LEVEL) / 2), degrees
    return (
        z
        + (z**3 + z) / (4 * d)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * d**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * d**3)
    )
