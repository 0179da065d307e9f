"""Sizes of a DINOv3 vision transformer."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from evads_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class DINOv3Config:
    """A plain (ungated) DINOv3 ViT.

    Attributes:
        width, layers, heads, mlp_width: the transformer.
        patch: side of a patch in pixels.
        registers: register tokens, which stand between the class token and the patches.
        rope_theta: base of the rotary periods.
        norm_epsilon: of every layer norm.
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    patch: int = 16
    registers: int = 4
    rope_theta: float = 100.0
    norm_epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        """Width of one attention head; a multiple of 4, for two axes of sine and cosine."""
        return self.width // self.heads


SIZES = {
    "vit_s": DINOv3Config(width=384, heads=6, mlp_width=1536),
    "vit_b": DINOv3Config(),
    "vit_l": DINOv3Config(width=1024, layers=24, heads=16, mlp_width=4096),
}


def read_config(folder: Path) -> DINOv3Config:
    """The config of a folder in the Hugging Face layout.

    Raises:
        UserError: there is no config.json, or it describes a model that this package does not compute.
    """
    path = folder / "config.json"
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError("no readable config.json beside the weights", str(folder)) from error
    expected = {
        "model_type": "dinov3_vit",
        "hidden_act": "gelu",
        "use_gated_mlp": False,
        "query_bias": True,
        "value_bias": True,
        "proj_bias": True,
        "mlp_bias": True,
        "num_channels": 3,
    }
    for name, value in expected.items():
        if raw.get(name, value) != value:
            raise UserError(f"{name} is {raw[name]!r}, only {value!r} is supported", str(path), "use ViT-S, -B or -L")
    rope = raw.get("rope_parameters") or {}
    return DINOv3Config(
        width=raw["hidden_size"],
        layers=raw["num_hidden_layers"],
        heads=raw["num_attention_heads"],
        mlp_width=raw["intermediate_size"],
        patch=raw.get("patch_size", 16),
        registers=raw.get("num_register_tokens", 0),
        rope_theta=float(raw.get("rope_theta") or rope.get("rope_theta") or 100.0),
        norm_epsilon=raw.get("layer_norm_eps", 1e-5),
    )
