import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evads_jax.rl.advantage import advantage

values = st.floats(-2, 3, width=32)


def reference(rewards, valid, scale, epsilon, leave_one_out=False, drop_flat=False):
    """The formula, group by group, in float64."""
    rewards = rewards.astype(np.float64)
    usable = [v & (v.sum() >= 2) for v in valid]
    if drop_flat:
        usable = [u & (r[u].max(initial=-9) != r[u].min(initial=9)) for r, u in zip(rewards, usable, strict=True)]
    batch = np.concatenate([r[u] for r, u in zip(rewards, usable, strict=True)])
    out = np.zeros(rewards.shape)
    for row, u, target in zip(rewards, usable, out, strict=True):
        if u.any() and row[u].max() != row[u].min():
            divisor = {
                "group": lambda r=row[u]: r.std(ddof=1) + epsilon,
                "batch": lambda: batch.std(ddof=1) + epsilon,
                "none": lambda: 1.0,
            }[scale]()
            others = [np.delete(row[u], i).mean() for i in range(u.sum())]
            target[u] = (row[u] - (others if leave_one_out else row[u].mean())) / divisor
    return out


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("options", [{}, {"leave_one_out": True}, {"drop_flat": True}], ids=str)
def test_advantages_equal_the_formula(scale, options):
    rng = np.random.default_rng(0)
    rewards = rng.choice([0, 1 / 12, 1 / 3, 5 / 12, 1], (12, 8)).astype(np.float32)
    valid = rng.random((12, 8)) < 0.7
    valid[0], valid[1] = False, np.arange(8) == 3
    rewards[2] = 0.9
    got = advantage(np.where(valid, rewards, np.nan), valid, scale, 1e-4, **options)
    np.testing.assert_allclose(got.values, reference(rewards, valid, scale, 1e-4, **options), atol=1e-5)


@given(st.integers(2, 40), values, st.sampled_from(["group", "batch", "none"]), st.booleans(), st.data())
@settings(deadline=None, max_examples=60)
def test_constant_groups_of_any_size_and_value_are_exact_zeros(size, value, scale, leave_one_out, data):
    other = data.draw(st.lists(values, min_size=size, max_size=size))
    rewards = np.array([[value] * size, other], np.float32)
    got = advantage(rewards, np.ones_like(rewards, bool), scale, 1e-8, leave_one_out=leave_one_out)
    assert (np.asarray(got.values[0]) == 0).all()
    assert got.flat[0]
    assert got.std[0] == 0
    assert np.asarray(got.kept[0]).all()


@given(st.lists(st.tuples(values, st.booleans()), min_size=2, max_size=12), st.randoms(), st.booleans())
@settings(deadline=None, max_examples=60)
def test_permuting_a_group_permutes_its_advantages(group, random, leave_one_out):
    order = list(range(len(group)))
    random.shuffle(order)
    rewards, valid = np.array([group], np.float32)[:, :, 0], np.array([[v for _, v in group]])
    plain = np.asarray(advantage(rewards, valid, epsilon=1e-2, leave_one_out=leave_one_out).values)
    moved = np.asarray(advantage(rewards[:, order], valid[:, order], epsilon=1e-2, leave_one_out=leave_one_out).values)
    np.testing.assert_allclose(moved, plain[:, order], atol=2e-4)


def test_a_missing_reward_leaves_mean_and_std_and_gets_nothing():
    with_hole = advantage(np.array([[1.0, np.nan, 0.0, 0.5]]), np.array([[True, False, True, True]]))
    without = advantage(np.array([[1.0, 0.0, 0.5]]), np.ones((1, 3), bool))
    np.testing.assert_array_equal(np.asarray(with_hole.values)[0, [0, 2, 3]], np.asarray(without.values)[0])
    assert with_hole.values[0, 1] == 0
    assert not with_hole.kept[0, 1]
    assert with_hole.mean[0] == without.mean[0]


@pytest.mark.parametrize("count", [0, 1])
def test_a_group_with_fewer_than_two_rewards_is_dropped(count):
    valid = np.arange(4)[None] < count
    got = advantage(np.where(valid, 1.0, np.nan), valid)
    assert got.dropped[0]
    assert not got.flat[0]
    assert not np.asarray(got.kept).any()
    assert (np.asarray(got.values) == 0).all()


def test_a_flat_group_stays_at_zero_or_leaves_as_asked():
    rewards, valid = np.array([[0.5, 0.5, np.nan], [0, 1, 0.5]], np.float32), np.array([[1, 1, 0], [1, 1, 1]], bool)
    stays, leaves = (advantage(rewards, valid, drop_flat=drop) for drop in (False, True))
    for got in (stays, leaves):
        assert got.flat.tolist() == [True, False]
        assert (np.asarray(got.values[0]) == 0).all()
    assert stays.dropped.tolist() == [False, False]
    assert stays.kept.tolist() == valid.tolist()
    assert leaves.dropped.tolist() == [True, False]
    assert leaves.kept.tolist() == [[False] * 3, [True] * 3]


def test_an_unknown_scale_is_named():
    with pytest.raises(ValueError, match="groups"):
        advantage(np.zeros((1, 2)), np.ones((1, 2), bool), "groups")
