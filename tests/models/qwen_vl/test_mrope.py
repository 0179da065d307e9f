import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.models.qwen_vl import mrope

from . import tiny


def test_text_counts_up_equally_on_all_axes():
    positions, after = mrope.token_positions(4, [], [])
    np.testing.assert_array_equal(positions, np.tile(np.arange(4)[:, None], (1, 3)))
    assert after == 4


def test_video_tokens_lie_on_their_grid_and_text_goes_on_after_the_longer_side():
    positions, after = mrope.token_positions(9, [(1, 6)], [(2, 3)])
    assert positions[0].tolist() == [0, 0, 0]
    assert positions[1:7].tolist() == [[1, 1 + r, 1 + c] for r in range(2) for c in range(3)]
    assert positions[7:].tolist() == [[4, 4, 4], [5, 5, 5]]
    assert after == 6


@pytest.mark.parametrize("spans", [[(1, 5)], [(5, 6)], [(1, 6), (3, 6)]])
def test_spans_that_do_not_fit_their_grids_are_refused(spans):
    with pytest.raises(ValueError, match="do not fit"):
        mrope.token_positions(9, spans, [(2, 3)] * len(spans))


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3)), max_size=4), st.integers(0, 5))
def test_positions_never_go_back_and_end_at_the_next_one(units, tail):
    spans, grids, n = [], [], 0
    for height, width, gap in units:
        spans.append((n + gap, height * width))
        grids.append((height, width))
        n += gap + height * width
    positions, after = mrope.token_positions(n + tail, spans, grids)
    assert np.all(np.diff(positions[:, 0]) >= 0)
    assert after == (positions.max() + 1 if len(positions) else 0)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 200))
def test_a_rotated_product_depends_on_the_distance_only(a, b, shift):
    q, k = (jax.random.normal(jax.random.key(seed), (1, 1, tiny.CONFIG.head_width)) for seed in (0, 1))

    def product(i, j):
        at = lambda p: mrope.text_rotation(jnp.array([p]), tiny.CONFIG)  # noqa: E731
        return float((mrope.rotate(q, *at(i)) * mrope.rotate(k, *at(j))).sum())

    assert abs(product(a, b) - product(a + shift, b + shift)) < 1e-3


def test_frequencies_are_dealt_to_time_height_and_width_in_turn():
    positions = jnp.array([[100, 0, 0], [0, 100, 0], [0, 0, 100]])
    turned = np.asarray(mrope.rotation(positions, tiny.CONFIG)[1]) != 0
    assert turned.astype(int).tolist() == [[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0], [0, 0, 1, 0, 0, 1]]


def test_equal_positions_rotate_as_text():
    at = jnp.arange(7)
    pairs = zip(
        mrope.rotation(jnp.tile(at[:, None], (1, 3)), tiny.CONFIG), mrope.text_rotation(at, tiny.CONFIG), strict=True
    )
    assert all(jnp.array_equal(a, b) for a, b in pairs)
