"""The networks at their true sizes against torch and transformers, all weights drawn anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evads_jax.models.flor import FlorConfig, features, init, load_vit, vit_sizes

from .test_model import tree

pytestmark = pytest.mark.peers


@pytest.mark.parametrize(("norm", "weight"), [("batch", 0.0), ("instance", 1.0), ("fixed", 0.5)])
def test_resnet10_gives_the_features_of_torch(norm, weight):
    pytest.importorskip("torch")
    from .make_golden import resnet_case

    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    config = FlorConfig(norm=norm, beta=(0.01, 0.01), image_size=64)
    held = resnet_case(config.widths, weight, images, seed=3)
    params = {**init(config, jax.random.key(0)), **tree(held, "params")}
    for mode in ("test", "train"):
        found = features(params, config, jnp.asarray(images, jnp.float32) / 255, mode)[0]
        # Instance norms of the last block's 2 × 2 maps divide rounding errors by small deviations.
        assert np.abs(found - held[mode]).max() / np.abs(held[mode]).max() <= 5e-5, mode


@pytest.mark.parametrize("side", [224, 64])
def test_vit_s_gives_the_class_token_of_transformers(tmp_path, side):
    pytest.importorskip("transformers")
    from .make_golden import drawn_vit, vit_feature

    sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}
    model = drawn_vit(1, **sizes)
    model.save_pretrained(tmp_path)
    config = FlorConfig(network="vit", norm="layer", image_size=side, **vit_sizes(tmp_path))
    params = load_vit(tmp_path, config, jax.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    found = features(params, config, jnp.asarray(images, jnp.float32) / 255, "test")[0]
    expected = vit_feature(model, images)
    assert np.abs(found - expected).max() / np.abs(expected).max() <= 1e-5
