"""How far judgements of the same answers agree: one judge asked again, or two judges.

Scores lie on the judge's grid. What two judgements have in common follows from counts of pairs of values, which are
summed over answers, so that every figure has an interval by the bootstrap over videos (`statistics.Videos.function`).

*Krippendorff's alpha* («Computing Krippendorff's Alpha-Reliability», 2011). An answer with m ≥ 2 judgements adds
1/(m−1) to the coincidence o_ck for each ordered pair of them; a missing verdict only makes m smaller. With
n_c = Σ_k o_ck and n = Σ_c n_c,

    α = 1 − D_o/D_e,   D_o = 1/n Σ o_ck δ²_ck,   D_e = 1/(n(n−1)) Σ n_c n_k δ²_ck

where δ²_ck is [c ≠ k] (nominal), (c − k)² (interval) or (Σ_{g=c..k} n_g − (n_c + n_k)/2)² (ordinal).

*Quadratic kappa* (Cohen, «Weighted kappa», 1968) of two judges: κ = 1 − Σ w_ck p_ck / Σ w_ck p_c· p_·k with
w_ck = (c − k)².

Both are undefined (NaN) where all judgements are the same: then there is nothing that chance could get wrong.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from evads_jax.benchmark.statistics import Interval, Videos
from evads_jax.judge.verdict import GRID

METRICS = ("nominal", "ordinal", "interval")


def coincidences(scores: Float[np.ndarray, "N m"], values: Sequence[float] = GRID) -> Float[np.ndarray, "N c c"]:
    """What each answer adds to the matrix of coincidences o.

    Args:
      scores: m judgements of each of N answers; NaN where one is missing.
      values: the scale, in order.
    """
    counts = (scores[:, :, None] == np.asarray(values)).sum(axis=1).astype(np.float64)
    judged = counts.sum(axis=1)
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(len(values))
    return np.divide(pairs, judged[:, None, None] - 1, out=np.zeros_like(pairs), where=judged[:, None, None] > 1)


def alpha(o: Float[np.ndarray, "... c c"], metric: str, values: Sequence[float] = GRID) -> Float[np.ndarray, "..."]:
    """Krippendorff's alpha of a matrix of coincidences.

    Args:
      o: the matrix, or a stack of them.
      metric: one of `METRICS`.
      values: the scale, in order.
    """
    counts = o.sum(axis=-1)
    total = counts.sum(axis=-1)
    distance = _distance(counts, metric, np.asarray(values, dtype=np.float64))
    observed = (o * distance).sum(axis=(-2, -1)) * (total - 1)
    expected = (counts[..., :, None] * counts[..., None, :] * distance).sum(axis=(-2, -1))
    return 1 - np.divide(observed, expected, out=np.full_like(expected, np.nan), where=expected > 0)


def _distance(counts: np.ndarray, metric: str, values: np.ndarray) -> np.ndarray:
    """δ² between any two values of the scale, [..., c, c]."""
    if metric == "nominal":
        return 1 - np.eye(len(values))
    if metric == "interval":
        return (values[:, None] - values[None, :]) ** 2
    if metric != "ordinal":
        raise ValueError(f"unknown metric {metric!r}, known are {', '.join(METRICS)}")
    # Counts from c to k, half of the two ends: the distance between the middles of their ranks.
    middle = np.cumsum(counts, axis=-1) - counts / 2
    return (middle[..., :, None] - middle[..., None, :]) ** 2


def confusions(
    a: Float[np.ndarray, " N"], b: Float[np.ndarray, " N"], values: Sequence[float] = GRID
) -> Float[np.ndarray, "N c c"]:
    """What each answer adds to the matrix «value by judge a, value by judge b»; nothing where a verdict is missing."""
    scale = np.asarray(values)
    return ((a[:, None] == scale)[:, :, None] & (b[:, None] == scale)[:, None, :]).astype(np.float64)


def kappa(p: Float[np.ndarray, "... c c"], values: Sequence[float] = GRID) -> Float[np.ndarray, "..."]:
    """Quadratic weighted kappa of a matrix of confusions, or a stack of them."""
    scale = np.asarray(values, dtype=np.float64)
    weights = (scale[:, None] - scale[None, :]) ** 2
    observed = (p * weights).sum(axis=(-2, -1)) * p.sum(axis=(-2, -1))
    expected = (p.sum(axis=-1)[..., :, None] * p.sum(axis=-2)[..., None, :] * weights).sum(axis=(-2, -1))
    return 1 - np.divide(observed, expected, out=np.full_like(expected, np.nan), where=expected > 0)


def repeatability(videos: Videos, names: Sequence[str], scores: Float[np.ndarray, "N m"]) -> dict[str, Any]:
    """How far the same judge agrees with itself.

    Args:
      videos: the draws.
      names: the video of each answer.
      scores: m judgements of each answer; NaN where one is missing.

    Returns:
      `judgements` m; `answers` judged at least twice; `missing` of each judgement; `means`, the mean score of each; and
      as intervals `agreement` (share of pairs of judgements that are equal), `alpha_nominal`, `alpha_ordinal`,
      `alpha_interval`.
    """
    size, added = len(GRID), coincidences(scores)
    flat = added.reshape(len(scores), size * size)

    def estimate(of: Any) -> Interval:
        return videos.function(names, flat, lambda sums: of(sums.reshape(*sums.shape[:-1], size, size))).intervals()[0]

    return {
        "judgements": scores.shape[1],
        "answers": int(flat.any(axis=1).sum()),
        "missing": np.isnan(scores).sum(axis=0).tolist(),
        "means": [_mean(column) for column in scores.T],
        "agreement": estimate(_equal),
        **{f"alpha_{metric}": estimate(lambda o, m=metric: alpha(o, m)) for metric in METRICS},
    }


def between(
    videos: Videos, names: Sequence[str], a: Float[np.ndarray, " N"], b: Float[np.ndarray, " N"]
) -> dict[str, Any]:
    """How far two judges agree.

    Returns:
      `answers` that both judged; and as intervals `agreement` (equal scores), `within_a_step` (at most one step of the
      grid apart), `kappa`, `alpha_ordinal`, and `difference`, the mean of b − a.
    """
    size, added = len(GRID), confusions(a, b)
    flat = added.reshape(len(a), size * size)
    near = np.abs(np.subtract.outer(np.arange(size), np.arange(size))) <= 1

    def estimate(of: Any) -> Interval:
        return videos.function(names, flat, lambda sums: of(sums.reshape(*sums.shape[:-1], size, size))).intervals()[0]

    (difference,) = videos.mean(names, (b - a)[:, None]).intervals()
    return {
        "answers": int(flat.any(axis=1).sum()),
        "agreement": estimate(_equal),
        "within_a_step": estimate(lambda p: _share(p, near)),
        "kappa": estimate(kappa),
        "alpha_ordinal": estimate(lambda p: alpha(p + np.swapaxes(p, -1, -2), "ordinal")),
        "difference": difference,
    }


def _equal(counts: np.ndarray) -> np.ndarray:
    return _share(counts, np.eye(len(GRID), dtype=bool))


def _share(counts: np.ndarray, mask: np.ndarray) -> np.ndarray:
    total = counts.sum(axis=(-2, -1))
    return np.divide((counts * mask).sum(axis=(-2, -1)), total, out=np.full_like(total, np.nan), where=total > 0)


def _mean(column: np.ndarray) -> float | None:
    known = column[~np.isnan(column)]
    return float(known.mean()) if len(known) else None
