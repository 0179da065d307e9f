import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.benchmark.fewshot import sample
from evads_jax.errors import UserError

NAMES = ("mug", "hat", "lamp", "boot")


@given(
    counts=st.lists(st.integers(4, 9), min_size=2, max_size=5),
    shots=st.integers(1, 2),
    seed=st.integers(0, 2**31),
)
def test_an_episode_holds_different_images_of_different_classes(counts, shots, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    names = [str(i) for i in range(len(counts))]
    found = sample(labels, names, ways=2, shots=shots, queries=2, count=3, seed=seed)
    assert found.indices.shape == (3, 2, shots + 2)
    for episode in found.indices:
        assert len(set(episode.ravel())) == episode.size
        classes = labels[episode]
        assert (classes == classes[:, :1]).all()
        assert len(set(classes[:, 0])) == 2


def test_the_same_arguments_give_the_same_episodes_and_more_begin_with_the_fewer():
    labels = np.repeat(np.arange(4), 8)

    def draw(**changes):
        return sample(labels, NAMES, **{"ways": 3, "shots": 1, "queries": 4, "count": 9, "seed": 5} | changes).indices

    np.testing.assert_array_equal(draw(), draw())
    np.testing.assert_array_equal(draw(), draw(count=20)[:9])
    assert (draw() != draw(seed=6)).any()


def test_every_image_and_class_is_drawn_equally_often():
    labels = np.repeat(np.arange(4), 10)
    found = sample(labels, NAMES, ways=2, shots=1, queries=4, count=4000, seed=0)
    times = np.bincount(found.indices[:, :, :1].ravel(), minlength=40)
    assert abs(times / times.mean() - 1).max() < 0.3  # 200 each, a deviation of 14


def test_a_class_with_too_few_images_is_named_and_refused_or_left_out():
    labels = np.repeat(np.arange(4), [6, 3, 6, 6])
    arguments = {"ways": 3, "shots": 1, "queries": 4, "count": 50, "seed": 0}
    with pytest.raises(UserError, match=r"fewer than 1 \+ 4 images: hat \(3\)"):
        sample(labels, NAMES, **arguments)
    found = sample(labels, NAMES, **arguments, too_small="drop")
    assert found.left_out == {"hat": 3}
    assert set(labels[found.indices].ravel()) == {0, 2, 3}
    with pytest.raises(UserError, match="4 ways need as many classes of 5 images or more, there are 3"):
        sample(labels, NAMES, **arguments | {"ways": 4}, too_small="drop")


@pytest.mark.parametrize("changes", [{"ways": 1}, {"shots": 0}, {"queries": 0}, {"count": 0}, {"too_small": "keep"}])
def test_numbers_that_make_no_sense_are_refused(changes):
    arguments = {"ways": 2, "shots": 1, "queries": 1, "count": 1, "seed": 0} | changes
    with pytest.raises(UserError):
        sample(np.repeat(np.arange(4), 5), NAMES, **arguments)
