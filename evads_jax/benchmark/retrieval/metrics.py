"""Retrieval metrics of each query, exact where several gallery items are right and where scores tie.

Items of equal score have no order of their own. Every metric here is its expected value over all orders of the tied
items, so that neither the place of a clip in a file nor its duplicates can move a figure. Scores are rounded to
`DIGITS` digits first: what differs by less is the same on another machine, or is a tie.

With n items of a higher score than the best right one, and t items of its score, p of them right:

    R@k = 1 − Π_{i < min(k − n, t)} (t − p − i) / (t − i)        (0 where k ≤ n)
    rank of the first right item = n + (t + 1) / (p + 1)

and with the items of one score at the places n + 1 … n + t, p of them right, r right ones before them (McSherry and
Najork, «Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores», ECIR 2008),

    AP = 1/P · Σ_groups Σ_{i = 1…t} p/t · (r + (i − 1) · (p − 1)/(t − 1) + 1) / (n + i).
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

DIGITS = 6
AT = (1, 5, 10)
_CELLS = 1 << 22  # similarities that exist at one time, in float64 and with a few arrays of the same size beside them


@dataclasses.dataclass(frozen=True)
class QueryMetrics:
    """Metrics of Q queries; NaN for those that have nothing right in the gallery.

    Attributes:
      recall: R@k for the K values of k that were asked for.
      rank: expected rank of the first right item, from 1.
      ap: average precision.
      positives: right items in the gallery.
    """

    recall: Float[np.ndarray, "Q K"]
    rank: Float[np.ndarray, " Q"]
    ap: Float[np.ndarray, " Q"]
    positives: Int[np.ndarray, " Q"]


def retrieve(
    queries: Float[np.ndarray, "Q E"],
    gallery: Float[np.ndarray, "N E"],
    query_products: Sequence[str],
    gallery_products: Sequence[str],
    *,
    at: Sequence[int] = AT,
    cells: int = _CELLS,
) -> QueryMetrics:
    """Ranks a gallery for each query by cosine similarity; right is what shows the same product.

    Args:
      queries: unit vectors.
      gallery: unit vectors.
      query_products: the product of each query.
      gallery_products: the product of each gallery item.
      at: the values of k.
      cells: how many similarities exist at one time; the figures do not depend on it.
    """
    names = {name: i for i, name in enumerate(dict.fromkeys([*gallery_products, *query_products]))}
    ours, theirs = (np.array([names[p] for p in products]) for products in (query_products, gallery_products))
    recall = np.full((len(queries), len(at)), np.nan)
    rank, ap = np.full(len(queries), np.nan), np.full(len(queries), np.nan)
    positives = np.bincount(theirs, minlength=len(names))[ours] if len(queries) else np.zeros(0, int)
    for rows, scores in similarities(queries, gallery, cells):
        asked = rows[positives[rows] > 0]
        if not len(asked):
            continue
        scores = scores[positives[rows] > 0]
        right = theirs[None] == ours[asked][:, None]
        recall[asked], rank[asked] = _first(scores, right, at)
        ap[asked] = _average_precision(scores, right)
    return QueryMetrics(recall, rank, ap, positives)


def similarities(
    queries: Float[np.ndarray, "Q E"], gallery: Float[np.ndarray, "N E"], cells: int = _CELLS
) -> Iterator[tuple[Int[np.ndarray, " q"], Float[np.ndarray, "q N"]]]:
    """Rounded similarities of some queries at a time: (their numbers, similarities to the whole gallery)."""
    wide = np.asarray(gallery, np.float64).T
    step = max(cells // max(len(gallery), 1), 1)
    for start in range(0, len(queries), step):
        rows = np.arange(start, min(start + step, len(queries)))
        yield rows, np.round(np.asarray(queries[rows], np.float64) @ wide, DIGITS)


def _first(scores: np.ndarray, right: np.ndarray, at: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """R@k and the rank of the first right item, expected over the orders of tied items."""
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    tied = scores == best
    above = (scores > best).sum(axis=1)
    t, p = tied.sum(axis=1), (tied & right).sum(axis=1)
    missed = np.ones(len(scores))
    recall = np.zeros((len(scores), len(at)))
    for place in range(max(at)):
        # One more of the tied items comes within reach: it is none of the right ones with this probability.
        reached = place - above
        inside = (reached >= 0) & (reached < t)
        missed = np.where(inside, missed * np.maximum(t - p - reached, 0) / np.maximum(t - reached, 1), missed)
        for column in (i for i, k in enumerate(at) if k == place + 1):
            recall[:, column] = 1 - missed
    return recall, above + (t + 1) / (p + 1)


def _average_precision(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked, hits = np.take_along_axis(scores, order, axis=1), np.take_along_axis(right, order, axis=1)
    places = np.arange(scores.shape[1])
    border = ranked[:, 1:] != ranked[:, :-1]
    ones = np.ones((len(scores), 1), bool)
    start = np.maximum.accumulate(np.where(np.concatenate([ones, border], axis=1), places, 0), axis=1)
    end = np.where(np.concatenate([border, ones], axis=1), places, scores.shape[1])
    end = np.minimum.accumulate(end[:, ::-1], axis=1)[:, ::-1]
    before = np.concatenate([np.zeros((len(scores), 1), int), np.cumsum(hits, axis=1)], axis=1)
    r = np.take_along_axis(before, start, axis=1)
    p = np.take_along_axis(before, end + 1, axis=1) - r
    t = end - start + 1
    within = (places - start) * (p - 1) / np.maximum(t - 1, 1)
    return (p / t * (r + within + 1) / (places + 1)).sum(axis=1) / hits.sum(axis=1)


def one_shot(
    queries: Float[np.ndarray, "Q E"],
    supports: Float[np.ndarray, "N E"],
    query_products: Sequence[str],
    support_products: Sequence[str],
    *,
    draws: int,
    seed: int,
    cells: int = _CELLS,
) -> Float[np.ndarray, " Q"]:
    """One-shot classification: a query is given the product of the nearest of one example of each product.

    The examples are drawn anew `draws` times, uniformly among a product's clips; a query's figure is the share of the
    draws in which it is right, a tie among m products counting 1/m. NaN where its product has no example.

    Args:
      queries: unit vectors.
      supports: unit vectors of what examples are drawn from.
      query_products: the product of each query.
      support_products: the product of each possible example.
      draws: how often examples are drawn.
      seed: of the draws; they depend on nothing else but the order of the examples.
      cells: how many similarities exist at one time.
    """
    classes = {name: i for i, name in enumerate(dict.fromkeys(support_products))}
    members: list[list[int]] = [[] for _ in classes]
    for i, product in enumerate(support_products):
        members[classes[product]].append(i)
    rng = np.random.default_rng(seed)
    chosen = [np.array([rng.choice(clips) for clips in members], dtype=int) for _ in range(draws)]
    labels = np.array([classes.get(product, -1) for product in query_products], dtype=int)
    right = np.full(len(queries), np.nan)
    for rows, scores in similarities(queries, supports, cells):
        asked = rows[labels[rows] >= 0]
        if not len(asked):
            continue
        scores, own = scores[labels[rows] >= 0], labels[asked]
        total = np.zeros(len(asked))
        for columns in chosen:
            drawn = scores[:, columns]
            best = drawn == drawn.max(axis=1, keepdims=True)
            total += best[np.arange(len(asked)), own] / best.sum(axis=1)
        right[asked] = total / draws
    return right
