"""DINOv3 against golden files made with transformers, and what loading refuses."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from evads_jax.errors import UserError
from evads_jax.models.dinov3.config import SIZES, DINOv3Config
from evads_jax.models.dinov3.model import forward, image_features, rotary
from evads_jax.models.dinov3.parameters import abstract, axes, init, parameter_count
from evads_jax.models.dinov3.weights import load

GOLDEN = Path(__file__).parent / "golden"
TINY = DINOv3Config(width=32, layers=2, heads=2, mlp_width=48, patch=8)


@pytest.fixture(scope="module")
def golden() -> tuple[np.ndarray, np.ndarray]:
    stored = np.load(GOLDEN / "expected.npz")
    return stored["pixels"].transpose(0, 2, 3, 1), stored["tokens"]


def largest_relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_every_token_is_that_of_transformers(golden):
    pixels, expected = golden
    params, config = load(GOLDEN)
    assert config == TINY
    assert largest_relative(forward(params, config, pixels), expected) <= 1e-5


def test_every_parameter_matters_to_the_golden_tokens(golden):
    pixels, expected = golden
    params, config = load(GOLDEN)
    leaves, structure = jax.tree.flatten(params)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    forward_jit = jax.jit(lambda p: forward(p, config, pixels))
    for i, (path, leaf) in enumerate(zip(paths, leaves, strict=True)):
        if path == "['layers']['attention']['k']['bias']":  # the checkpoints have none
            assert not leaf.any()
            continue
        spoiled = jax.tree.unflatten(structure, [*leaves[:i], leaf * 1.1 + 0.01, *leaves[i + 1 :]])
        assert largest_relative(forward_jit(spoiled), expected) > 1e-4, path


def test_positions_reach_the_patches_only_and_tell_rows_from_columns():
    cosine, sine = rotary(TINY, 2, 3)
    assert cosine.shape == sine.shape == (6, 16)
    wide, tall = rotary(TINY, 1, 4)[1], rotary(TINY, 4, 1)[1]
    assert not np.allclose(wide, tall)


def test_the_registers_are_not_pooled(golden):
    params, config = load(GOLDEN)
    images = np.random.default_rng(0).integers(0, 255, (2, 24, 40, 3), np.uint8)
    tokens = np.asarray(
        forward(params, config, (images / np.float32(255) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225])
    )
    assert np.asarray(image_features(params, config, images)) == pytest.approx(tokens[:, 0], rel=1e-4, abs=1e-4)
    pooled = np.asarray(image_features(params, config, images, pool="patches"))
    assert pooled == pytest.approx(tokens[:, 5:].mean(1), rel=1e-4, abs=1e-4)


def test_the_named_sizes_are_the_published_ones():
    counts = {name: parameter_count(config) for name, config in SIZES.items()}
    zero_key_biases = {name: c.layers * c.width for name, c in SIZES.items()}
    real = {name: (counts[name] - zero_key_biases[name]) / 1e6 for name in counts}
    assert real == pytest.approx({"vit_s": 21.6, "vit_b": 85.65, "vit_l": 303.1}, rel=2e-3)


def test_each_parameter_is_declared_once_with_axes_for_every_dimension():
    names, shapes = axes(TINY), abstract(TINY)
    is_axes = lambda x: isinstance(x, tuple)  # noqa: E731
    jax.tree.map(
        lambda a, s: pytest.fail(f"{a} {s}") if len(a) != len(s.shape) else None, names, shapes, is_leaf=is_axes
    )
    drawn = init(TINY, jax.random.key(0))
    assert jax.tree.structure(drawn) == jax.tree.structure(shapes)


def test_weights_under_the_prefixed_names_load_too(altered, golden):
    folder = altered(GOLDEN, lambda name: "model." + name if name.startswith("layer.") else name)
    params, config = load(folder)
    assert largest_relative(forward(params, config, golden[0]), golden[1]) <= 1e-5


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"norm.weight": None}, "no tensor 'norm.weight'"),
        ({"norm.weight": np.ones(7, np.float32)}, r"\(7,\), not \(32,\)"),
        ({"head.weight": np.ones(7, np.float32)}, "head.weight"),
    ],
)
def test_wrong_weights_are_one_line(altered, tensors, message):
    with pytest.raises(UserError, match=message):
        load(altered(GOLDEN, **tensors))


def test_folders_without_weights_are_one_line(altered, tmp_path):
    with pytest.raises(UserError, match="no such folder of weights"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no \.safetensors"):
        load(tmp_path)
    folder = altered(GOLDEN)
    raw = json.loads((folder / "config.json").read_text()) | {"use_gated_mlp": True}
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match="use_gated_mlp"):
        load(folder)
    (folder / "model.safetensors").write_bytes(b"not tensors")
    (folder / "config.json").write_text((GOLDEN / "config.json").read_text())
    with pytest.raises(UserError, match="not a readable safetensors"):
        load(folder)
