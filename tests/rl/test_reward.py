import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.judge.verdict import GRID, Missing, Verdict
from evads_jax.rl.reward import GRAINS, RewardWeights, grain, overlong, reward, scores, shaped

EXPECTED = {
    "mg": (0, 1 / 12, 1 / 3, 5 / 12, 1),
    "strict": (0, 0, 0, 0, 1),
    "r3": (0, 0, 0.5, 0.5, 1),
    "r5": (0, 0.25, 0.5, 0.75, 1),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_grain_has_the_values_of_the_paper(name):
    np.testing.assert_allclose(grain(np.array(GRID), name), EXPECTED[name], rtol=1e-6)


def test_the_reward_jumps_only_at_a_perfect_answer():
    steps = np.diff(np.asarray(grain(np.array(GRID), "mg")))
    assert steps[-1] > 2 * steps[:-1].max()
    assert (steps > 0).all()


@given(st.sampled_from(sorted(GRAINS)), st.lists(st.sampled_from(GRID), min_size=2, max_size=2))
def test_no_grain_ranks_a_worse_answer_higher(name, pair):
    low, high = sorted(pair)
    assert grain(low, name) <= grain(high, name)


def test_an_unknown_grain_is_named():
    with pytest.raises(ValueError, match="mgx"):
        grain(1.0, "mgx")


def test_the_parts_are_weighted_and_summed_as_in_the_paper():
    got = reward(np.array([1.0, 0.75, 0.0]), np.array([0.5, 1.0, 0.0]), np.array([True, False, True]), np.ones(3, bool))
    np.testing.assert_allclose(got.total, [0.8 + 0.2 / 3 + 1, 0.8 * 5 / 12 + 0.2, 1.0], rtol=1e-6)
    np.testing.assert_allclose(got.total, np.asarray(got.answer + got.trace + got.format), rtol=1e-6)


def test_the_weights_and_the_grain_can_be_chosen():
    got = reward(0.75, 0.25, True, True, RewardWeights(0.5, 2.0, 0.1), "r5")
    np.testing.assert_allclose(got.total, 0.5 * 0.75 + 2 * 0.25 + 0.1, rtol=1e-6)


def test_a_missing_verdict_is_invalid_and_never_a_zero():
    score, valid = scores([Verdict(0.0), Missing("no reply"), Verdict(1.0)])
    assert valid.tolist() == [True, False, True]
    assert np.isnan(score[1])
    got = reward(score, np.ones(3), np.ones(3, bool), valid)
    assert np.asarray(got.valid).tolist() == [True, False, True]
    assert np.isnan(got.total[1])
    assert not np.isnan(np.asarray(got.total)[[0, 2]]).any()


@given(st.integers(1, 40), st.data())
def test_the_penalty_for_length_is_that_of_dapo(limit, data):
    buffer = data.draw(st.integers(1, limit))
    lengths = np.arange(44)
    want = [0 if n <= limit - buffer else max((limit - buffer - n) / buffer, -1) for n in lengths.tolist()]
    np.testing.assert_allclose(overlong(lengths, limit, buffer), want, rtol=1e-6)


def test_what_is_added_to_a_reward_is_kept_beside_it_and_gives_no_missing_one_a_value():
    judged = reward(np.array([1.0, 0.5, 0.0]), np.ones(3), np.ones(3, bool), np.array([True, True, False]))
    once = shaped(judged, np.array([-0.5, 0.0, -1.0]))
    twice = shaped(once, np.array([0.25, 0.0, 0.0]))
    np.testing.assert_allclose(twice.total, judged.total - np.array([0.25, 0.0, 1.0]), rtol=1e-6)
    assert np.isnan(twice.total[2])
    np.testing.assert_allclose(twice.shaping, [-0.25, 0.0, -1.0])
    assert judged.shaping is None
