"""Intervals over episodes.

They tell how well the mean over all episodes of these images is known, not how other images would do: episodes are
drawn from one set of images and share them.
"""

import math

import numpy as np
from jaxtyping import Float

from evads_jax.benchmark.statistics import Estimate, Interval, Videos

_NORMAL_975 = 1.959964


def interval(accuracies: Float[np.ndarray, " E"]) -> Interval:
    """Mean and 95 % interval as the literature gives it: ± 1.96 standard errors over independent episodes.

    Args:
      accuracies: of one model, by episode.
    """
    values = np.asarray(accuracies, np.float64)
    count = len(values)
    half = _NORMAL_975 * values.std(ddof=1) / math.sqrt(count) if count > 1 else math.nan
    mean = float(values.mean())
    return Interval(mean, mean - half, mean + half, count, count)


def estimate(accuracies: Float[np.ndarray, " E"], episodes: str, replicates: int = 1000, seed: int = 0) -> Estimate:
    """The mean with its bootstrap replicates over episodes.

    Models that were evaluated on the same episodes are resampled by the same draws, so that `a - b` is their paired
    difference, and `statistics.across_seeds` the average of several trainings with the trainings drawn too.

    Args:
      accuracies: of one model, by episode.
      episodes: names the set of episodes, e.g. target, shots and seed.
      replicates: how often they are drawn.
      seed: of the draws.
    """
    names = [str(i) for i in range(len(accuracies))]
    drawn = Videos(names, replicates, seed, episodes)
    return drawn.mean(names, np.asarray(accuracies, np.float64)[:, None])
