"""Retrieval metrics against brute force: every order of the tied items is written down and averaged."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.benchmark.retrieval.metrics import AT, one_shot, retrieve


def orders(scores):
    """All orders of a gallery that ranks by score, as lists of numbers."""
    groups = [[i for i, s in enumerate(scores) if s == value] for value in sorted(set(scores), reverse=True)]
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [i for part in parts for i in part]


def brute_force(scores, right, at):
    """(R@k, rank of the first right item, average precision) of one query, averaged over all orders."""
    found = []
    for order in orders(scores):
        hits = [bool(right[i]) for i in order]
        first = hits.index(True) + 1
        precisions = [sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit]
        found.append([*(float(first <= k) for k in at), first, sum(precisions) / sum(hits)])
    return np.mean(found, axis=0)


def on_circle(cosine):
    """Unit vectors whose similarity to (1, 0) is given."""
    return np.array([cosine, math.sqrt(1 - cosine**2)])


QUERY = np.array([[1.0, 0.0]])


@given(
    st.lists(st.tuples(st.sampled_from([-0.5, 0.0, 0.25, 0.8, 1.0]), st.booleans()), min_size=1, max_size=7).filter(
        lambda items: any(right for _, right in items)
    )
)
def test_every_metric_is_its_mean_over_all_orders_of_tied_items(items):
    scores, right = zip(*items, strict=True)
    gallery = np.stack([on_circle(score) for score in scores])
    products = ["mine" if r else f"other {i}" for i, r in enumerate(right)]
    found = retrieve(QUERY, gallery, ["mine"], products, at=(1, 2, 5))
    expected = brute_force(scores, right, (1, 2, 5))
    got = [*found.recall[0], found.rank[0], found.ap[0]]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    assert found.positives[0] == sum(right)


def unit(rng, *shape):
    x = rng.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_without_ties_it_is_plain_ranking():
    rng = np.random.default_rng(0)
    queries, gallery = unit(rng, 40, 8), unit(rng, 90, 8)
    theirs = [f"p{i % 25}" for i in range(90)]
    ours = [f"p{i % 25}" for i in range(40)]
    found = retrieve(queries, gallery, ours, theirs)
    for row in range(40):
        order = np.argsort(-(queries[row] @ gallery.T))
        hits = np.array([theirs[i] == ours[row] for i in order])
        places = np.flatnonzero(hits) + 1
        assert found.rank[row] == places[0]
        np.testing.assert_array_equal(found.recall[row], [float(places[0] <= k) for k in AT])
        assert found.ap[row] == pytest.approx(np.mean(np.arange(1, len(places) + 1) / places), abs=1e-12)


def test_how_many_similarities_exist_at_one_time_changes_no_figure():
    rng = np.random.default_rng(1)
    queries, gallery = unit(rng, 17, 4).round(1), unit(rng, 23, 4).round(1)  # with ties
    ours, theirs = [f"p{i % 6}" for i in range(17)], [f"p{i % 5}" for i in range(23)]
    whole = retrieve(queries, gallery, ours, theirs)
    shots = one_shot(queries, gallery, ours, theirs, draws=7, seed=0)
    for cells in (1, 23, 60):
        part = retrieve(queries, gallery, ours, theirs, cells=cells)
        for name in ("recall", "rank", "ap", "positives"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name))
        np.testing.assert_array_equal(one_shot(queries, gallery, ours, theirs, draws=7, seed=0, cells=cells), shots)


def test_the_place_of_a_clip_in_the_gallery_and_its_duplicates_move_nothing_by_luck():
    rng = np.random.default_rng(2)
    one = unit(rng, 1, 16)
    gallery = np.repeat(one, 50, axis=0)  # all alike: a random order
    products = ["mine"] + [f"other {i}" for i in range(49)]
    for shift in (0, 7, 49):
        found = retrieve(unit(rng, 1, 16), gallery, ["mine"], np.roll(products, shift).tolist())
        np.testing.assert_allclose(found.recall[0], [1 / 50, 5 / 50, 10 / 50], atol=1e-12)
        assert found.rank[0] == 25.5


def test_a_query_without_a_right_clip_has_no_figure():
    gallery = np.stack([on_circle(0.5), on_circle(0.1)])
    found = retrieve(np.repeat(QUERY, 2, 0), gallery, ["a", "gone"], ["a", "b"])
    assert found.positives.tolist() == [1, 0]
    assert np.isnan(found.recall[1]).all()
    assert np.isnan([found.rank[1], found.ap[1]]).all()
    assert found.rank[0] == 1


def test_one_shot_is_the_share_of_draws_in_which_the_own_example_is_the_nearest():
    rng = np.random.default_rng(3)
    queries, supports = unit(rng, 9, 3), unit(rng, 12, 3)
    ours, theirs = [f"p{i % 4}" for i in range(9)], [f"p{i % 4}" for i in range(12)]
    got = one_shot(queries, supports, ours, theirs, draws=4000, seed=0)
    choices = [[i for i, p in enumerate(theirs) if p == f"p{c}"] for c in range(4)]
    for row in range(9):
        wins = [
            np.argmax([queries[row] @ supports[i] for i in drawn]) == row % 4 for drawn in itertools.product(*choices)
        ]
        assert got[row] == pytest.approx(np.mean(wins), abs=0.04)


def test_a_tie_among_examples_counts_its_share():
    supports = np.stack([on_circle(0.5)] * 3 + [on_circle(0.2)])
    got = one_shot(QUERY, supports, ["a"], ["a", "b", "c", "d"], draws=3, seed=0)
    np.testing.assert_allclose(got, [1 / 3])
    assert np.isnan(one_shot(QUERY, supports, ["gone"], ["a", "b", "c", "d"], draws=3, seed=0)[0])
