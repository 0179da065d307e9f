"""corpus.json: the statistics of a corpus, over all videos and per category, and the comparison with another."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evads_jax import whole
from evads_jax.density.measurement import METRICS, Measurement
from evads_jax.density.statistics import compare, histogram, summarise

NO_CATEGORY = "unknown"


def metrics_of(measurements: Sequence[Measurement]) -> tuple[str, ...]:
    """The paper's three metrics, and the substitutes for V that occur."""
    found = {name for m in measurements for name in (*m.values, *m.missing)}
    return (*METRICS, *sorted(found - set(METRICS)))


def corpus_summary(
    measurements: Sequence[Measurement], rules: Mapping[str, str], resamples: int, seed: int, bins: int
) -> dict[str, Any]:
    """Metric → its statistics.

    Returns:
        For each metric `mean, median, standard_error, ci95, n, n_missing, rule, missing` (reason → videos),
        `histogram`, and `categories` (category → the same statistics without histogram).
    """
    summary = {}
    for metric in metrics_of(measurements):
        values = [m.values.get(metric) for m in measurements]
        categories: dict[str, list[float | None]] = {}
        for m, value in zip(measurements, values, strict=True):
            categories.setdefault(m.category or NO_CATEGORY, []).append(value)
        absent = (m.missing.get(metric, "not measured") for m in measurements if metric not in m.values)
        reasons = Counter(why.partition(": ")[0] for why in absent)  # what follows is the video's own
        summary[metric] = {
            **dataclasses.asdict(summarise(values, resamples, seed)),
            "rule": rules[metric],
            "missing": dict(sorted(reasons.items())),
            "histogram": histogram(values, bins),
            "categories": {
                name: dataclasses.asdict(summarise(found, resamples, seed))
                for name, found in sorted(categories.items())
            },
        }
    return summary


def comparison(
    ours: Sequence[Measurement], theirs: Sequence[Measurement], paired: bool, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Metric → how far the first corpus lies above the second."""
    return {
        metric: dataclasses.asdict(
            compare(
                {m.video: m.values.get(metric) for m in theirs},
                {m.video: m.values.get(metric) for m in ours},
                paired,
                resamples,
                seed,
            )
        )
        for metric in metrics_of(ours)
    }


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, whole or not at all."""
    whole.write(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")
