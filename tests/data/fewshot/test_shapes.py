"""Signed distances, against the nearest of many points on an outline."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.data.fewshot import shapes
from evads_jax.data.fewshot.products import PRODUCTS
from evads_jax.data.fewshot.shapes import View, accent, arc, bar, box, coverage, hole, look, oval, see, taper

SIDE = 96
ACROSS = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
X, Y = np.meshgrid(ACROSS, ACROSS)
PLAIN = View(X, Y, 2 / SIDE)


def straight(*parts):
    """The shape as it is written, unchanged."""
    return see(parts, PLAIN, np.random.default_rng(0), change=0.0)


@pytest.mark.parametrize(
    "part", [oval(0.1, 0, 0.5, 0.5), box(0, 0.1, 0.5, 0.3, 0.1), bar(-0.5, -0.2, 0.4, 0.3, 0.15), arc(0, 0, 0.5, 0.1)]
)
def test_a_distance_is_that_to_the_outline_negative_inside(part):
    distance = part.distance(X, Y, *part.numbers)
    fine = np.linspace(-1, 1, 801)
    fx, fy = np.meshgrid(fine, fine)
    on_outline = np.abs(part.distance(fx, fy, *part.numbers)) < 2e-3
    points = np.stack([fx[on_outline], fy[on_outline]], -1)
    for row, column in np.random.default_rng(0).integers(0, SIDE, (40, 2)):
        nearest = np.hypot(*(points - [X[row, column], Y[row, column]]).T).min()
        assert abs(distance[row, column]) == pytest.approx(nearest, abs=6e-3)


def test_an_oval_is_exact_on_its_outline_and_of_the_right_sign():
    part = oval(0.1, -0.1, 0.7, 0.3)
    angles = np.linspace(0, 2 * np.pi, 50)
    x, y = 0.1 + 0.7 * np.cos(angles), -0.1 + 0.3 * np.sin(angles)
    assert np.abs(part.distance(x, y, *part.numbers)).max() < 1e-6
    inside = ((X - 0.1) / 0.7) ** 2 + ((Y + 0.1) / 0.3) ** 2 < 1
    assert ((part.distance(X, Y, *part.numbers) < 0) == inside).all()


def test_a_taper_is_the_trapezoid_between_its_heights():
    part = taper(0, -0.5, 0.5, 0.2, 0.8)
    inside = (np.abs(Y) < 0.5) & (np.abs(X) < 0.5 + 0.6 * Y)
    distance = part.distance(X, Y, *part.numbers)
    assert ((distance < 0) == inside)[np.abs(distance) > 1e-9].all()


def test_an_open_arc_has_round_ends():
    half = arc(0, 0, 0.5, 0.1, 180, 360)
    distance = half.distance(np.array([0.0, 0.5, 0.5]), np.array([-0.5, 0.05, 0.3]), *half.numbers)
    assert distance == pytest.approx([-0.1, -0.05, 0.2])


def test_a_hole_is_cut_out_of_what_was_there_and_has_an_outline():
    solid = straight(oval(0, 0, 0.8, 0.8), hole(oval(0, 0, 0.4, 0.4)))
    ring = (np.hypot(X, Y) < 0.8) & (np.hypot(X, Y) > 0.4)
    assert ((solid.body < 0) == ring).all()
    assert solid.edge[np.abs(np.hypot(X, Y) - 0.4) < 0.01].max() < 1.0
    outside = straight(oval(0, 0, 0.3, 0.3), hole(oval(0.7, 0, 0.1, 0.1)))
    assert outside.edge[np.abs(np.hypot(X - 0.7, Y) - 0.1) < 0.01].min() > 5


def test_an_accent_is_part_of_the_body_too():
    solid = straight(box(0, 0, 0.5, 0.5), accent(oval(0, 0, 0.2, 0.2)))
    assert ((solid.accent < 0) <= (solid.body < 0)).all()
    assert (solid.accent < 0).any()
    assert not np.isfinite(straight(box(0, 0, 0.5, 0.5)).accent).any()


@given(st.integers(0, 2**32), st.integers(16, 64))
def test_coverage_adds_up_to_the_area(seed, size):
    rng = np.random.default_rng(seed)
    view = look(size, rng, turn=30.0, scale=(0.5, 0.8), shift=0.1)
    solid = see([oval(0, 0, 0.6, 0.6)], view, rng, change=0.0)
    # The view turns, stretches and leans: all of them keep the area, so that only its scale is in it.
    assert coverage(solid.body).sum() == pytest.approx(np.pi * (0.6 / view.pixel) ** 2, rel=0.12)


def test_every_product_fills_some_of_the_picture_and_none_all_of_it():
    for part in PRODUCTS.values():
        for name, parts in part.items():
            share = (straight(*parts).body < 0).mean()
            assert 0.03 < share < 0.75, name


def test_products_of_different_names_look_different():
    """Two names for one outline would be an error that no model could find."""
    seen = {}
    for part in PRODUCTS.values():
        for name, parts in part.items():
            mask = straight(*parts).body < 0
            for other, theirs in seen.items():
                assert (mask & theirs).sum() / (mask | theirs).sum() < 0.85, (name, other)
            seen[name] = mask


def test_the_parts_of_the_products_share_none_and_there_are_enough():
    names = [name for part in PRODUCTS.values() for name in part]
    assert len(set(names)) == len(names)
    assert len(PRODUCTS["train"]) >= 24
    assert min(len(PRODUCTS["validation"]), len(PRODUCTS["novel"])) >= 5
    assert {p.distance for part in PRODUCTS.values() for parts in part.values() for p in parts} <= {
        shapes._oval, shapes._box, shapes._bar, shapes._arc, shapes._taper
    }  # fmt: skip
