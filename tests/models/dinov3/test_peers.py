"""DINOv3 at its true sizes against transformers, all weights drawn anew."""

import numpy as np
import pytest

from evads_jax.models.dinov3.config import SIZES
from evads_jax.models.dinov3.model import forward
from evads_jax.models.dinov3.weights import load

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("size", ["vit_s", "vit_b", "vit_l"])
def test_true_sizes_give_the_tokens_of_transformers(size, tmp_path):
    torch = pytest.importorskip("torch")
    from dinov3.make_golden import redrawn

    config = SIZES[size]
    model = redrawn(
        1,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.mlp_width,
    )
    model.save_pretrained(tmp_path)
    params, found = load(tmp_path)
    assert found == config
    pixels = np.random.default_rng(0).normal(size=(2, 3, 224, 160)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels)).last_hidden_state.numpy()
    tokens = np.asarray(forward(params, config, pixels.transpose(0, 2, 3, 1)))
    assert np.abs(tokens - expected).max() / np.abs(expected).max() <= 1e-5
