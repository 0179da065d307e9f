"""The networks against golden files made with torch and transformers, and what the tree of parameters promises."""

import dataclasses
import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evads_jax.errors import UserError
from evads_jax.models.flor import (
    STATISTICS,
    FlorConfig,
    abstract,
    axes,
    decay_mask,
    fan_in,
    features,
    init,
    initial_mix,
    logits,
    model,
    parameter_count,
)

from . import tiny

GOLDEN = Path(__file__).parent / "golden"
# A mean weight of 1/4, in a network of both kinds.
RESNET = FlorConfig(network="resnet10", norm="fixed", beta=(1.0, 3.0), image_size=40, widths=(3, 4, 5, 6), classes=7)
VIT = FlorConfig(network="vit", width=8, layers=2, heads=2, mlp_width=12, patch=4, image_size=8, classes=7)
# Every pass of a ResNet is a compilation of some seconds.
BOTH = pytest.mark.parametrize("base", [pytest.param(RESNET, marks=pytest.mark.slow), VIT], ids=["resnet10", "vit"])


def tree(held, prefix):
    """The nested dict of the golden entries under a prefix."""
    found = {}
    for name, value in held.items():
        *parents, last = name.split("/")
        if parents[:1] == [prefix]:
            node = found
            for parent in parents[1:]:
                node = node.setdefault(parent, {})
            node[last] = value
    return found


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "resnet10.npz") as file:
        held = dict(file)
    params = {**init(RESNET, jax.random.key(0)), **tree(held, "params")}
    return held, params, held["images"].astype(np.float32) / 255


def small(config):
    """Parameters and images."""
    side = config.image_size
    return tiny.params(config), np.random.default_rng(0).uniform(size=(4, side, side, 3)).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("config", "mode"))
def run(params, config, images, mode, key=None, mix=None, valid=None):
    return features(params, config, images, mode, key=key, mix=mix, valid=valid)


def close(found, expected, rtol):
    assert np.abs(found - expected).max() <= rtol * np.abs(expected).max()


def test_resnet10_gives_the_features_of_torch(golden):
    held, params, images = golden
    close(run(params, RESNET, images, "test")[0], held["test"], 1e-5)
    found, statistics = run(params, RESNET, images, "train")
    close(found, held["train"], 1e-5)
    jax.tree.map(lambda a, b: close(a, b, 1e-5), statistics, tree(held, "after")[STATISTICS])


def test_resnet10_has_the_gradients_of_torch_and_none_at_its_statistics(golden):
    held, params, images = golden
    direction = np.linspace(-1, 1, held["train"].size, dtype=np.float32).reshape(held["train"].shape)
    gradient = jax.jit(jax.grad(lambda p: (features(p, RESNET, images, "train")[0] * direction).sum()))(params)
    expected = tree(held, "gradient")["network"]
    scale = max(np.abs(x).max() for x in jax.tree.leaves(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5 * scale), gradient["network"], expected)
    assert not any(x.any() for x in jax.tree.leaves(gradient[STATISTICS]))


@BOTH
def test_finetuning_at_its_start_is_the_test_mode(base):
    params, images = small(base)
    tuned, after = run(params, base, images, "finetune", mix=initial_mix(base))
    close(tuned, run(params, base, images, "test")[0], 1e-6)
    jax.tree.map(np.testing.assert_array_equal, after, params[STATISTICS])


@pytest.mark.parametrize(
    ("base", "own"), [pytest.param(RESNET, "instance", marks=pytest.mark.slow), (VIT, "layer")], ids=["resnet10", "vit"]
)
def test_the_mix_leads_from_the_norm_of_the_batch_to_that_of_one_image(base, own):
    of_batch, of_image = (dataclasses.replace(base, norm=norm) for norm in ("batch", own))
    params, images = small(of_batch)
    renamed = {**params, "network": rename(params["network"])}
    edges = [
        run(params, of_batch, images, "finetune", mix=np.full(base.norm_layers, x, np.float32))[0]
        for x in (-np.inf, np.inf)
    ]
    close(edges[0], run(params, of_batch, images, "test")[0], 1e-6)
    close(edges[1], run(renamed, of_image, images, "test")[0], 1e-6)
    assert np.abs(edges[0] - edges[1]).max() > 0.01


def rename(network):
    """The parameters of a network of batch norms as those of one with norms of one image."""
    if not isinstance(network, dict):
        return network
    return {("own" if name == "batch" else name): rename(value) for name, value in network.items()}


@BOTH
def test_draws_are_of_each_image_and_the_key_decides_them(base):
    config = dataclasses.replace(base, norm="flor", beta=(0.5, 0.5))
    params, images = small(config)
    same = np.broadcast_to(images[:1], images.shape)
    found, _ = run(params, config, same, "train", key=jax.random.key(3))
    assert np.abs(found[0] - found[1:]).max(axis=1).min() > 1e-4
    again, _ = run(params, config, same, "train", key=jax.random.key(3))
    np.testing.assert_array_equal(found, again)
    other, _ = run(params, config, same, "train", key=jax.random.key(4))
    assert np.abs(found - other).max() > 1e-4


@BOTH
def test_padded_images_change_nothing(base):
    config = dataclasses.replace(base, norm="fixed")
    params, images = small(config)
    padded, valid = np.concatenate([images, 9 * images[:2]]), np.arange(6) < 4
    found, after = run(params, config, padded, "train", valid=valid)
    expected, alone = run(params, config, images, "train")
    close(found[:4], expected, 1e-5)
    jax.tree.map(lambda a, b: close(a, b, 1e-5), after, alone)


@pytest.mark.parametrize("base", [RESNET, VIT])
def test_each_array_is_declared_once(base):
    shapes = abstract(base)
    drawn = init(base, jax.random.key(0))
    assert jax.tree.structure(drawn) == jax.tree.structure(shapes)
    mask = decay_mask(base)
    for (path, names), shape, decays in zip(
        jax.tree_util.tree_leaves_with_path(axes(base), is_leaf=lambda x: isinstance(x, tuple)),
        jax.tree.leaves(shapes),
        jax.tree.leaves(mask),
        strict=True,
    ):
        last = path[-1].key
        assert len(names) == len(shape.shape), path
        assert decays == (last not in ("scale", "bias", "mean", "variance")), path


@pytest.mark.parametrize("base", [RESNET, VIT])
def test_every_map_between_channels_says_how_many_inputs_it_sums_over(base):
    leaves = jax.tree_util.tree_leaves_with_path
    inputs = {jax.tree_util.keystr(path): n for path, n in leaves(fan_in(base))}
    for path, shape in leaves(abstract(base)):
        names = [key.key for key in path]
        matrix = names[0] == "network" and names[-1].startswith(("weight", "kernel"))
        first = 1 if "layers" in names else 0
        last = first + 3 if names[-1].startswith("kernel") else first + 1
        expected = math.prod(shape.shape[first:last]) if matrix else 0
        assert inputs[jax.tree_util.keystr(path)] == expected, path


@pytest.mark.parametrize(("side", "stride", "size"), [(1, 1, 3), (2, 1, 3), (3, 2, 3), (4, 2, 3), (12, 2, 7)])
def test_maps_smaller_than_the_kernel_are_convolved_as_others_are(side, stride, size):
    rng = np.random.default_rng(side)
    x, kernel = rng.normal(size=(2, side, side, 5)), rng.normal(size=(size, size, 5, 4))
    found, back = jax.vjp(lambda x, k: model._convolve(x, k, stride), x, kernel)
    expected, expected_back = jax.vjp(lambda x, k: model._convolve_directly(x, k, stride=stride), x, kernel)
    assert "dot_general" in str(jax.make_jaxpr(lambda x: model._convolve(x, kernel, stride))(x))
    close(found, expected, 1e-5)
    jax.tree.map(lambda a, b: close(a, b, 1e-5), back(np.ones_like(found)), expected_back(np.ones_like(found)))


def test_the_published_sizes():
    plain, mixed = (parameter_count(FlorConfig(norm=norm)) for norm in ("batch", "flor"))
    assert plain == 4_900_032 + 5_760 + 512 * 64  # convolutions, affines, head
    assert mixed - plain == 2 * (64 * 3 + 3 * (128 + 256 + 512))  # 2C a layer
    assert FlorConfig().norm_layers == 12
    assert parameter_count(FlorConfig(network="vit", norm="layer", image_size=224)) == pytest.approx(21.7e6, rel=5e-3)


def test_the_head_has_no_bias():
    params = init(RESNET, jax.random.key(0))
    assert logits(params, jnp.zeros((2, 6))).tolist() == [[0.0] * 7] * 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"network": "resnet18"}, "unknown network 'resnet18'"),
        ({"norm": "layer"}, "a resnet10 has no norm 'layer'"),
        ({"beta": (0.0, 1.0)}, "Beta"),
        ({"widths": (8, 8)}, "2 widths"),
        ({"image_size": 32}, "32 pixels leave the last block one"),
        ({"network": "vit", "image_size": 60}, "patches of 16 do not tile 60 pixels"),
        ({"network": "vit", "heads": 5}, "5 heads do not divide the width 384"),
    ],
)
def test_what_is_no_network_is_one_line(fields, message):
    with pytest.raises(UserError, match=message):
        FlorConfig(**fields)


def test_a_config_section_gives_the_network():
    section = {"network": "vit", "norm": "layer", "beta": [0.01, 0.026], "width": 96, "heads": 3, "weights": ""}
    config = FlorConfig.from_config(section, 24)
    assert (config.norm, config.beta, config.width, config.classes) == ("layer", (0.01, 0.026), 96, 24)
