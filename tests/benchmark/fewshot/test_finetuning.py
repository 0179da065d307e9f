"""Fine-tuning of a tiny network, against one that is written step by step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models.flor import tiny

from evads_jax.benchmark.fewshot import (
    Finetuning,
    Transduction,
    accuracy,
    embed,
    finetuned_accuracy,
    prototypes,
    sample,
)
from evads_jax.benchmark.fewshot.episodes import Episodes
from evads_jax.errors import UserError
from evads_jax.models import flor

CONFIG = flor.FlorConfig(network="vit", norm="flor", width=8, layers=1, heads=2, mlp_width=8, patch=8, image_size=16)
SETTINGS = Finetuning(steps=3, learning_rate=0.5, network_learning_rate=0.02, temperature=1.0)


@pytest.fixture(scope="module")
def world():
    """A network, images of four classes that differ in colour, and episodes."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 8)
    images = rng.integers(0, 160, (4, 1, 1, 3))[labels] + rng.integers(0, 96, (32, 16, 16, 3))
    params = tiny.params(CONFIG)
    episodes = sample(labels, list("abcd"), ways=2, shots=2, queries=4, count=6, seed=0)
    return params, images.astype(np.uint8), episodes


def tuned(world, settings, **others):
    params, images, episodes = world
    return finetuned_accuracy(params, CONFIG, images, episodes, settings, **others)


@pytest.mark.parametrize("transduction", [None, Transduction(2)])
def test_no_steps_are_the_network_as_it_was_trained(world, transduction):
    params, images, episodes = world
    plain = accuracy(embed(params, CONFIG, images, batch=20), episodes, transduction)
    found = tuned(world, dataclasses.replace(SETTINGS, steps=0), transduction=transduction)
    np.testing.assert_allclose(found, plain, atol=1e-6)


@jax.jit
def unit_features(params, moving, values):
    whole = {**params, **{k: v for k, v in moving.items() if k == "network"}}
    x, _ = flor.features(whole, CONFIG, values, "finetune", mix=moving["mix"])
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


@functools.partial(jax.jit, static_argnames="settings")
def one_step(params, moving, states, images, key, settings):
    """A step on the support of two classes with two images each."""
    views = flor.augment(images, key, 16, settings.augmentation)

    def loss(moving):
        support, seen = (unit_features(params, moving, v).reshape(2, 2, -1) for v in (images / 255, views))
        scores = settings.temperature * prototypes.scores(support, seen)
        return optax.softmax_cross_entropy_with_integer_labels(scores, jnp.array([[0, 0], [1, 1]])).mean()

    gradients, after = jax.grad(loss)(moving), {}
    for name, optimizer in optimizers(settings).items():
        if name in moving:
            updates, states[name] = optimizer.update(gradients[name], states[name])
            after[name] = optax.apply_updates(moving[name], updates)
    return after, states


def optimizers(settings):
    return {"mix": optax.adam(settings.learning_rate), "network": optax.adam(settings.network_learning_rate)}


def by_hand(world, settings, number):
    """One episode, step by step: its accuracy and its mix."""
    params, images, episodes = world
    chosen = episodes.indices[number]
    moving = {"mix": jnp.zeros(CONFIG.norm_layers)}  # logit of .01 / (.01 + .01)
    if settings.what == "all":
        moving["network"] = params["network"]
    states = {name: optimizers(settings)[name].init(value) for name, value in moving.items()}
    key = jax.random.fold_in(jax.random.key(settings.seed), number)
    for step_key in jax.random.split(key, settings.steps):
        moving, states = one_step(params, moving, states, images[chosen[:, :2].ravel()], step_key, settings)
    features = np.zeros((len(images), 8), np.float32)
    features[chosen.ravel()] = unit_features(params, moving, images[chosen.ravel()].astype(np.float32) / 255)
    return accuracy(features, Episodes(chosen[None], 2))[0], moving["mix"]


@pytest.mark.parametrize("what", ["mix", pytest.param("all", marks=pytest.mark.slow)])
def test_each_episode_is_tuned_as_by_hand(world, what):
    settings = dataclasses.replace(SETTINGS, what=what)
    found = tuned(world, settings)
    for number in (0, 3):
        expected, mix = by_hand(world, settings, number)
        assert found[number] == pytest.approx(expected, abs=1e-6)
        assert abs(mix).max() > 0.1  # it moved


def test_chunks_never_matter(world):
    one, other = (tuned(world, dataclasses.replace(SETTINGS, chunk=chunk)) for chunk in (1, 4))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_network_of_one_norm_has_no_mix_to_tune(world):
    params, images, episodes = world
    config = dataclasses.replace(CONFIG, norm="layer")
    with pytest.raises(UserError, match="no mix"):
        finetuned_accuracy(params, config, images, episodes, SETTINGS)


@pytest.mark.parametrize("fields", [{"what": "head"}, {"steps": -1}, {"chunk": 0}])
def test_what_cannot_be_done_is_refused(fields):
    with pytest.raises(UserError):
        Finetuning(**fields)
