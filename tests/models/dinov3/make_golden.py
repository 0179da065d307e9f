"""Writes tests/models/dinov3/golden with torch and transformers: `python tests/models/dinov3/make_golden.py`.

A tiny model whose every part matters: the weights are drawn at a scale at which dropping a bias, a LayerScale, a
register or the rotary positions moves the output far beyond the tolerance.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

GOLDEN = Path(__file__).parent / "golden"
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "patch_size": 8}


def redrawn(seed: int, **sizes) -> DINOv3ViTModel:
    """A model of the given sizes in float32, every parameter drawn anew."""
    model = DINOv3ViTModel(DINOv3ViTConfig(num_register_tokens=4, **sizes)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.5
            scale = (parameter[0].numel() ** -0.5) if parameter.ndim == 4 else scale
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(centre + scale * torch.randn(parameter.shape, generator=generator))
    return model


def main() -> None:
    model = redrawn(0, **SIZES)
    model.save_pretrained(GOLDEN)
    pixels = np.random.default_rng(0).normal(size=(2, 3, 24, 40)).astype(np.float32)
    with torch.no_grad():
        tokens = model(torch.from_numpy(pixels)).last_hidden_state.numpy()
    np.savez_compressed(GOLDEN / "expected.npz", pixels=pixels, tokens=tokens)


if __name__ == "__main__":
    main()
