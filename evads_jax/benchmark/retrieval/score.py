"""From embedded clips to figures: six directions between three domains, with intervals over products.

A query is a clip of one domain, its gallery all clips of another; right is every clip of the query's product. Clips of
a product are not independent, so intervals are drawn over the queries' products (`benchmark.statistics`, whose «videos»
are products here). A query whose product has no clip in the gallery has no answer: it is counted, and left out.
"""

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from evads_jax.benchmark.retrieval.metrics import AT, one_shot, retrieve
from evads_jax.benchmark.statistics import Estimate, Interval, Videos, average
from evads_jax.data.products.records import DOMAINS
from evads_jax.errors import UserError

DIRECTIONS = tuple(way for a, b in itertools.combinations(DOMAINS, 2) for way in ((a, b), (b, a)))
MEANS = (*(f"R@{k}" for k in AT), "mAP", "one_shot")  # metrics that are means over queries
MEAN = "mean"  # the mean of the six directions


@dataclasses.dataclass(frozen=True)
class Clips:
    """Embedded clips of one domain.

    Attributes:
      ids: their names.
      products: the product of each.
      vectors: their embeddings, of length 1.
    """

    ids: tuple[str, ...]
    products: tuple[str, ...]
    vectors: Float[np.ndarray, "N E"]


@dataclasses.dataclass(frozen=True)
class Scores:
    """The metrics of the queries of every direction.

    Attributes:
      products: direction → the product of each query.
      values: direction → metric (`MEANS`, and `rank`) → its value for each query; NaN without a right clip.
      split: names the clips and what they hold: results of different splits are not comparable.
      names: all products of the split, in order: what intervals are drawn over.
    """

    products: Mapping[str, tuple[str, ...]]
    values: Mapping[str, Mapping[str, Float[np.ndarray, " Q"]]]
    split: str
    names: tuple[str, ...]

    def estimate(self, metric: str, directions: Sequence[str], replicates: int) -> Estimate:
        """The mean of a metric in each direction, averaged over directions, with its bootstrap replicates.

        Args:
          metric: one of `MEANS`.
          directions: one, or all of them for their mean.
          replicates: how often products are drawn; the draws depend on the split alone.
        """
        products = Videos(self.names, replicates, 0, self.split)
        return average([products.mean(self.products[d], self.values[d][metric][:, None]) for d in directions])


def name_direction(query: str, gallery: str) -> str:
    """How a direction is called in files."""
    return f"{query}_to_{gallery}"


ALL = tuple(name_direction(*direction) for direction in DIRECTIONS)


def score(embedded: Mapping[str, Clips], *, draws: int, seed: int, shards: str = "") -> Scores:
    """Scores the clips of one split.

    Args:
      embedded: domain → its clips.
      draws: how often the examples of the one-shot classification are drawn.
      seed: of these draws.
      shards: names what the clips hold, where that matters: drawn products have the same names in every seed.

    Raises:
      UserError: a vector that is not finite, two clips of one name, or a domain without clips.
    """
    for domain in DOMAINS:
        clips = embedded[domain]
        if not clips.ids:
            raise UserError(f"no {domain} clips to retrieve", "split", "every domain needs some")
        if bad := np.flatnonzero(~np.isfinite(clips.vectors).all(axis=1)).tolist():
            raise UserError(f"{len(bad)} embeddings are not finite, the first of {clips.ids[bad[0]]}", domain)
        if len(set(clips.ids)) < len(clips.ids):
            raise UserError("two clips have the same name", domain, "make ids unique")
    products: dict[str, tuple[str, ...]] = {}
    values: dict[str, dict[str, np.ndarray]] = {}
    for query, gallery in DIRECTIONS:
        asked, offered, name = embedded[query], embedded[gallery], name_direction(query, gallery)
        found = retrieve(asked.vectors, offered.vectors, asked.products, offered.products)
        shot = one_shot(
            asked.vectors, offered.vectors, asked.products, offered.products, draws=draws, seed=seed
        )  # fmt: skip
        products[name] = asked.products
        recalls = {f"R@{k}": found.recall[:, i] for i, k in enumerate(AT)}
        values[name] = {**recalls, "mAP": found.ap, "rank": found.rank, "one_shot": shot}
    ids = (clip for domain in DOMAINS for clip in embedded[domain].ids)
    digest = hashlib.sha256("\n".join([shards, *ids]).encode("utf-8", "replace"))
    everything = sorted({product for clips in embedded.values() for product in clips.products})
    return Scores(products, values, digest.hexdigest()[:16], tuple(everything))


def summarise(scores: Scores, replicates: int) -> dict[str, Any]:
    """The figures of a split as plain data, for `summary.json`.

    Returns:
      `split` (hash, products), `bootstrap`, and under `directions` for each direction and for their mean: R@1, R@5,
      R@10, mAP and one_shot with interval, n and clusters; `median_rank` (of the expected ranks; for the mean, the
      mean of the medians) and `without_positive`, the queries that have nothing right in the gallery.
    """
    directions: dict[str, Any] = {}
    for name in (*ALL, MEAN):
        group = ALL if name == MEAN else (name,)
        entry: dict[str, Any] = {m: _entry(scores.estimate(m, group, replicates).intervals()[0]) for m in MEANS}
        ranks = [scores.values[d]["rank"] for d in group]
        medians = [float(np.median(r[~np.isnan(r)])) if (~np.isnan(r)).any() else math.nan for r in ranks]
        entry["median_rank"] = _number(float(np.mean(medians)))
        entry["without_positive"] = int(sum(np.isnan(r).sum() for r in ranks))
        directions[name] = entry
    return {
        "split": {"hash": scores.split, "products": len(scores.names)},
        "bootstrap": {"replicates": replicates},
        "directions": directions,
    }


def _entry(interval: Interval) -> dict[str, Any]:
    ci = None if math.isnan(interval.low) else [interval.low, interval.high]
    return {"mean": _number(interval.mean), "ci95": ci, "n": interval.n, "clusters": interval.clusters}


def _number(x: float) -> float | None:
    return None if math.isnan(x) else x
