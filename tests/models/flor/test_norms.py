"""The norm layer against a NumPy float64 reference, in its three modes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evads_jax.models.flor import norms
from evads_jax.models.flor.config import FlorConfig

from . import reference

B, C = 3, 4
SHAPES = {"resnet10": (B, 3, 2, C), "vit": (B, 5, C)}
OWN_AXES = {"resnet10": (0, 1), "vit": (-1,)}


def case(network, seed=0):
    """Input, parameters and running statistics, float64."""
    rng = np.random.default_rng(seed)
    affine = [(rng.normal(1, 0.3, C), rng.normal(0, 0.3, C)) for _ in range(2)]
    return rng.normal(0.5, 2, SHAPES[network]), affine, (rng.normal(0, 0.5, C), rng.uniform(0.5, 2, C))


@functools.partial(jax.jit, static_argnames=("network", "train", "pure"))
def layer(network, x, weight, affine, running, train, valid=None, pure=None):
    params = {
        name: {"scale": scale, "bias": bias} for name, (scale, bias) in zip(("own", "batch"), affine, strict=True)
    }
    statistics = dict(zip(("mean", "variance"), running, strict=True))
    config = FlorConfig(network=network, norm="flor", width=C, heads=1)
    return norms.normalise(params, statistics, config, x, weight if pure is None else pure, train, valid)


def ours(network, x, weight, affine, running, train, valid=None, pure=None):
    single = jax.tree.map(lambda v: np.asarray(v, np.float32), (x, weight, affine, running))
    return layer(network, *single, train, valid, pure)


@pytest.mark.parametrize("network", ["resnet10", "vit"])
@pytest.mark.parametrize("mode", ["train", "test", "finetune"])
def test_each_mode_is_the_reference(network, mode):
    x, affine, running = case(network)
    config = FlorConfig(network=network, beta=(0.5, 1.0), layers=6)
    mix = jnp.linspace(-2.0, 2.0, config.norm_layers)
    drawn = norms.weights(config, mode, B, jax.random.key(0), mix)
    weight = norms.of_layer(drawn, 1)
    expected = {"train": None, "test": 1 / 3, "finetune": 1 / (1 + np.exp(-float(mix[1])))}[mode]
    plain = np.broadcast_to(np.asarray(weight, np.float64).reshape(-1), B)
    if expected is not None:
        np.testing.assert_allclose(plain, expected, rtol=1e-6)
    found, after = ours(network, x, weight, affine, running, mode == "train")
    wanted, new = reference.norm(x, plain, affine, running, own_axes=OWN_AXES[network], train=mode == "train")
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(after["mean"], new[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after["variance"], new[1], rtol=1e-5)


@pytest.mark.parametrize("network", ["resnet10", "vit"])
@pytest.mark.parametrize("train", [True, False])
def test_gradients_are_those_of_the_reference(network, train):
    x, affine, running = case(network, 1)
    weight = np.array([0.2, 0.9, 0.5])
    direction = np.random.default_rng(2).normal(size=x.shape)

    def scalar(x, own_scale, own_bias, batch_scale, batch_bias, weight):
        given = [(own_scale, own_bias), (batch_scale, batch_bias)]
        return (reference.norm(x, weight, given, running, own_axes=OWN_AXES[network], train=train)[0] * direction).sum()

    values = [x, *affine[0], *affine[1], weight]
    single = jax.tree.map(np.float32, running)

    @jax.jit
    def gradients(*values):
        def total(x, a, b, c, d, w):
            return (layer(network, x, w, [(a, b), (c, d)], single, train)[0] * direction).sum()

        return jax.grad(total, argnums=tuple(range(6)))(*values)

    found = gradients(*map(np.float32, values))
    for i, name in enumerate(("x", "own scale", "own bias", "batch scale", "batch bias", "weight")):
        wanted = reference.gradient(lambda v, i=i: scalar(*values[:i], v, *values[i + 1 :]), values[i])
        np.testing.assert_allclose(found[i], wanted, rtol=1e-4, atol=1e-4, err_msg=name)


def test_a_pure_weight_leaves_the_other_norm_out():
    x, affine, running = case("resnet10")
    for pure in (0.0, 1.0):
        for train in (True, False):
            alone, _ = ours("resnet10", x, 0, affine, running, train, pure=pure)
            mixed, _ = ours("resnet10", x, np.full(B, pure), affine, running, train)
            np.testing.assert_allclose(alone, mixed, rtol=1e-6, atol=1e-6)


def test_padding_does_not_enter_the_statistics():
    x, affine, running = case("resnet10")
    padded = np.concatenate([x, 100 + x[:2]])
    valid = np.arange(B + 2) < B
    found, after = ours("resnet10", padded, 0.5, affine, running, True, valid)
    wanted, new = ours("resnet10", x, 0.5, affine, running, True)
    np.testing.assert_allclose(found[:B], wanted, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), after, new)


@pytest.mark.parametrize("beta", [(0.01, 0.01), (0.01, 0.026), (2.0, 1.0)])
def test_weights_are_drawn_from_the_beta_distribution(beta):
    config = FlorConfig(beta=beta)
    drawn = np.asarray(norms.weights(config, "train", 2000, jax.random.key(0), None), np.float64)
    a, b = beta
    assert drawn.shape == (12, 2000)
    assert 0 <= drawn.min() <= drawn.max() <= 1
    assert drawn.mean() == pytest.approx(a / (a + b), abs=0.02)
    assert drawn.var() == pytest.approx(a * b / ((a + b) ** 2 * (a + b + 1)), abs=0.02)
    assert abs(np.corrcoef(drawn)[0, 1:]).max() < 0.1  # each layer has draws of its own


def test_only_flor_draws_and_only_while_training():
    for norm, mode, weight in (
        ("batch", "train", 0.0), ("instance", "test", 1.0), ("fixed", "train", 0.25), ("flor", "test", 0.25)
    ):  # fmt: skip
        assert norms.weights(FlorConfig(norm=norm, beta=(1.0, 3.0)), mode, 2, None, None) == weight


@pytest.mark.parametrize(("mode", "message"), [("train", "key"), ("finetune", "mix"), ("tset", "no mode")])
def test_what_a_mode_needs_must_be_given(mode, message):
    with pytest.raises(ValueError, match=message):
        norms.weights(FlorConfig(), mode, 2, None, None)
