"""The loss around a network, against sums written out in NumPy and against the network's own modes."""

import jax.numpy as jnp
import numpy as np
import pytest
from models.flor import tiny

from evads_jax.benchmark.fewshot import accuracy, embed, landscape, sample
from evads_jax.models import flor

SIZES = {"network": "vit", "width": 8, "layers": 1, "heads": 2, "mlp_width": 8, "patch": 8, "image_size": 16}
LABELS = np.repeat(np.arange(4), 8)
EPISODES = sample(LABELS, list("abcd"), ways=3, shots=2, queries=4, count=5, seed=0)


def features(seed=0, spread=0.5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(4, 6))[LABELS] + spread * rng.normal(size=(32, 6))


def by_hand(x, temperature):
    """The cross-entropy of every query of every episode, one at a time."""
    losses = []
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    for episode in EPISODES.indices:
        support, queries = unit[episode[:, :2]], unit[episode[:, 2:]]
        mean = support.reshape(-1, 6).mean(0)
        support, queries = (y - mean for y in (support, queries))
        support, queries = (y / np.linalg.norm(y, axis=-1, keepdims=True) for y in (support, queries))
        prototypes = support.mean(1)
        for c in range(3):
            for q in queries[c]:
                scores = -temperature * ((q - prototypes) ** 2).sum(-1)
                losses.append(np.log(np.exp(scores - scores[c]).sum()))
    return np.mean(losses)


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_the_loss_is_the_mean_cross_entropy_of_all_queries(temperature):
    x = features()
    found = landscape.loss(jnp.asarray(x, jnp.float32), EPISODES, temperature, chunk=2)
    assert found == pytest.approx(by_hand(x, temperature), rel=1e-5)


def test_a_change_of_length_nought_is_none_and_a_long_one_leaves_chance():
    x = jnp.asarray(features(spread=0.1), jnp.float32)
    losses = landscape.around(x, EPISODES, (0.0, 0.5, 1000.0), draws=4, seed=0, temperature=10.0)
    assert losses[0] == pytest.approx(landscape.loss(x, EPISODES, 10.0), rel=1e-6)
    assert losses[0] < losses[1] < losses[2]
    assert losses[2] > np.log(3)
    assert losses == landscape.around(x, EPISODES, (0.0, 0.5, 1000.0), draws=4, seed=0, temperature=10.0)
    assert losses != landscape.around(x, EPISODES, (0.0, 0.5, 1000.0), draws=4, seed=1, temperature=10.0)


def test_a_change_is_as_long_as_it_says(monkeypatch):
    seen = []
    monkeypatch.setattr(landscape, "loss", lambda x, *rest: seen.append(x) or 0.0)
    x = jnp.asarray(features(), jnp.float32)
    landscape.around(x, EPISODES, (0.3,), draws=2, seed=0, temperature=10.0)
    for changed in seen:
        ratio = np.linalg.norm(changed - x, axis=-1) / np.linalg.norm(x, axis=-1)
        np.testing.assert_allclose(ratio, 0.3, rtol=1e-4)
    assert np.abs(seen[0] - seen[1]).max() > 0.01


@pytest.fixture(scope="module")
def world():
    """Networks of three norms with scales and statistics that are not those of the start, and coloured images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 160, (4, 1, 1, 3))[LABELS] + rng.integers(0, 96, (32, 16, 16, 3))
    made = {}
    for norm in ("batch", "layer", "flor"):
        model = flor.FlorConfig(norm=norm, **SIZES)
        made[norm] = model, tiny.params(model)
    return made, images.astype(np.uint8)


@pytest.mark.parametrize(("norm", "weight"), [("batch", 0.0), ("layer", 1.0), ("flor", 0.5)])
def test_where_the_walk_meets_the_networks_own_norm_its_loss_is_the_networks(world, norm, weight):
    (model, params), images = world[0][norm], world[1]
    plain = embed(params, model, images)
    (found,) = landscape.between_norms(params, model, images, EPISODES, (weight,), 10.0)
    assert found == pytest.approx(landscape.loss(plain, EPISODES, 10.0), rel=1e-3)
    assert accuracy(plain, EPISODES).mean() > 1 / 3


def test_the_ends_of_the_walk_differ(world):
    (model, params), images = world[0]["flor"], world[1]
    losses = landscape.between_norms(params, model, images, EPISODES, (0.0, 0.5, 1.0), 10.0)
    assert all(np.isfinite(losses))
    assert len({round(x, 4) for x in losses}) == 3
