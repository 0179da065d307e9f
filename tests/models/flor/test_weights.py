"""DINO's weights against golden files made with transformers, and what loading refuses."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evads_jax.errors import UserError
from evads_jax.models.flor import FlorConfig, features, load_vit, vit_sizes

FOLDER = Path(__file__).parent / "golden" / "vit"


def config_of(folder, **changes):
    return FlorConfig(network="vit", norm="layer", classes=3, **{"image_size": 12, **vit_sizes(folder), **changes})


def feature(params, config, images):
    return features(params, config, jnp.asarray(images, jnp.float32) / 255, "test")[0]


@pytest.fixture(scope="module")
def expected():
    with np.load(FOLDER / "expected.npz") as file:
        return dict(file)


@pytest.mark.parametrize("side", [12, 20])
def test_the_class_token_is_that_of_transformers_at_any_size(expected, side):
    config = config_of(FOLDER, image_size=side)
    found = feature(load_vit(FOLDER, config, jax.random.key(0)), config, expected[f"images_{side}"])
    wanted = expected[f"features_{side}"]
    assert np.abs(found - wanted).max() / np.abs(wanted).max() <= 1e-5


@pytest.mark.parametrize("norm", ["batch", "fixed"])
def test_every_norm_begins_with_the_scales_of_the_layer_norms(norm):
    plain = load_vit(FOLDER, config_of(FOLDER), jax.random.key(0))["network"]["norm"]["own"]
    mixed = load_vit(FOLDER, dataclasses.replace(config_of(FOLDER), norm=norm), jax.random.key(0))["network"]["norm"]
    assert mixed.keys() == {"batch": {"batch"}, "fixed": {"own", "batch"}}[norm]
    for affine in mixed.values():
        jax.tree.map(np.testing.assert_array_equal, affine, plain)


def test_the_names_of_newer_versions_load_too(altered):
    def renamed(name):
        for old, new in (
            ("encoder.layer.", "layers."), ("attention.attention.query", "attention.q_proj"),
            ("attention.attention.key", "attention.k_proj"), ("attention.attention.value", "attention.v_proj"),
            ("attention.output.dense", "attention.o_proj"), ("intermediate.dense", "mlp.fc1"),
            ("output.dense", "mlp.fc2"),
        ):  # fmt: skip
            name = name.replace(old, new)
        return "vit." + name

    folder = altered(FOLDER, renamed, **{"pooler.dense.bias": np.ones(16, np.float32)})
    one, other = (load_vit(f, config_of(f), jax.random.key(0)) for f in (folder, FOLDER))
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layernorm.weight": None}, "no tensor 'layernorm.weight'"),
        ({"layernorm.weight": np.ones(7, np.float32)}, r"\(7,\), not \(16,\)"),
        ({"classifier.weight": np.ones(7, np.float32)}, "classifier.weight"),
    ],
)
def test_wrong_weights_are_one_line(altered, changes, message):
    folder = altered(FOLDER, **changes)
    with pytest.raises(UserError, match=message):
        load_vit(folder, config_of(folder), jax.random.key(0))


def test_other_sizes_and_configs_are_one_line(tmp_path):
    with pytest.raises(UserError, match="the weights have layers 2, the config 3"):
        load_vit(FOLDER, config_of(FOLDER, layers=3), jax.random.key(0))
    with pytest.raises(UserError, match=r"no readable config\.json"):
        vit_sizes(tmp_path)
    raw = json.loads((FOLDER / "config.json").read_text()) | {"model_type": "deit"}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match="not the config of a ViT"):
        vit_sizes(tmp_path)
