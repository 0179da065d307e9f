"""DINO's ViT weights from a local folder in the Hugging Face layout: config.json and safetensors, as in
facebook/dino-vits16 (ViTModel of transformers; names of versions before and from 5).

Layer norms that become mixed norms give their scale and bias to the batch norm beside them too, whose running
statistics only base training makes meaningful (how the paper starts its ViT is not given).
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from evads_jax.errors import UserError
from evads_jax.models.flor.config import FlorConfig
from evads_jax.models.flor.parameters import Params, abstract, init
from evads_jax.models.qwen_vl.checkpoint_files import read_files

# Names before transformers 5 → names since.
_RENAMED = (
    (re.compile(r"^(vit|model)\."), ""),
    (re.compile(r"^encoder\.layer\."), "layers."),
    (re.compile(r"attention\.attention\.(query|key|value)\."), lambda m: f"attention.{m[1][0]}_proj."),
    (re.compile(r"attention\.output\.dense\."), "attention.o_proj."),
    (re.compile(r"intermediate\.dense\."), "mlp.fc1."),
    (re.compile(r"(?<=\d\.)output\.dense\."), "mlp.fc2."),
)
_UNREAD = ("pooler.", "embeddings.mask_token")
_SIZES = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "patch": "patch_size",
    "norm_epsilon": "layer_norm_eps",
}


def vit_sizes(folder: str | Path) -> dict[str, Any]:
    """The fields of `FlorConfig` that the weights in a folder fix: sizes and the norms' ε.

    Raises:
      UserError: there is no config.json, or it describes no such ViT.
    """
    path = Path(folder) / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.get("model_type") != "vit" or raw.get("hidden_act", "gelu") != "gelu" or not raw.get("qkv_bias", True):
            raise UserError("not the config of a ViT with gelu and biases", str(path), "take e.g. facebook/dino-vits16")
        return {ours: raw[theirs] for ours, theirs in _SIZES.items()}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError("no readable config.json of a ViT beside the weights", str(path)) from error


def load_vit(folder: str | Path, config: FlorConfig, key: jax.Array) -> Params:
    """Parameters whose network is DINO's; head and running statistics are fresh.

    Positions of another number of patches are resampled as transformers does (bicubic, a = −0.75, corners not aligned).

    Args:
      folder: holds config.json and the safetensors files.
      config: a "vit" with the sizes of `vit_sizes(folder)`.
      key: draws the head.

    Raises:
      UserError: no such weights, other sizes, a tensor that is missing, left over or of another shape.
    """
    folder = Path(folder)
    for name, value in vit_sizes(folder).items():
        if getattr(config, name) != value:
            what = f"the weights have {name} {value}, the config {getattr(config, name)}"
            raise UserError(what, f"config.model.{name}", f"the weights are in {folder}")
    tensors: dict[str, np.ndarray] = {}
    for file in read_files(folder):
        for name, value in file.arrays().items():
            for pattern, new in _RENAMED:
                name = pattern.sub(new, name)
            if not name.startswith(_UNREAD):
                tensors[name] = np.asarray(value, np.float32)

    def take(name: str) -> np.ndarray:
        if name not in tensors:
            raise UserError(f"no tensor {name!r} among the weights", str(folder))
        return tensors.pop(name)

    params = {**init(config, key), "network": _assemble(take, config)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract(config)["network"]):
        found: Any = params["network"]
        for part in path:
            found = found[part.key]
        if found.shape != leaf.shape:
            what = f"weights of {jax.tree_util.keystr(path)} are {found.shape}, not {leaf.shape}"
            raise UserError(what, str(folder))
    if tensors:
        raise UserError(f"{len(tensors)} tensors that this model does not have, e.g. {min(tensors)}", str(folder))
    return jax.tree.map(jax.numpy.asarray, params)


def _assemble(take: Callable[[str], np.ndarray], config: FlorConfig) -> Params:
    def linear(name: str) -> Params:
        return {"weight": take(f"{name}.weight").T, "bias": take(f"{name}.bias")}

    def norm(name: str) -> Params:
        affine = {"scale": take(f"{name}.weight"), "bias": take(f"{name}.bias")}
        names = {"batch": ("batch",), "layer": ("own",), "instance": ("own",)}.get(config.norm, ("own", "batch"))
        return dict.fromkeys(names, affine)

    def layer(name: str) -> Params:
        q, k, v = (linear(f"{name}.attention.{part}_proj") for part in "qkv")
        return {
            "norm1": norm(f"{name}.layernorm_before"),
            "qkv": jax.tree.map(lambda *three: np.stack(three, axis=-2), q, k, v),
            "out": linear(f"{name}.attention.o_proj"),
            "norm2": norm(f"{name}.layernorm_after"),
            "up": linear(f"{name}.mlp.fc1"),
            "down": linear(f"{name}.mlp.fc2"),
        }

    kernel, bias = (take(f"embeddings.patch_embeddings.projection.{part}") for part in ("weight", "bias"))
    positions = take("embeddings.position_embeddings")[0]
    return {
        "patch": {"weight": kernel.transpose(2, 3, 1, 0).reshape(-1, len(bias)), "bias": bias},  # rows, columns, RGB
        "class_token": take("embeddings.cls_token")[0],
        "positions": _resampled(positions, config.image_size // config.patch),
        "layers": jax.tree.map(lambda *layers: np.stack(layers), *(layer(f"layers.{i}") for i in range(config.layers))),
        "norm": norm("layernorm"),
    }


def _resampled(positions: np.ndarray, side: int) -> np.ndarray:
    """Positions [1 + n², D] on a grid of `side`²; that of the class token stays."""
    grid = round((len(positions) - 1) ** 0.5)
    if grid == side:
        return positions
    matrix = _cubic(grid, side)
    table = positions[1:].reshape(grid, grid, -1)
    resampled = np.einsum("yi,xj,ijd->yxd", matrix, matrix, table).reshape(side**2, -1)
    return np.concatenate([positions[:1], resampled]).astype(np.float32)


def _cubic(old: int, new: int) -> np.ndarray:
    """The matrix [new, old] of cubic convolution with a = −0.75, the edge values repeated outside."""
    a = -0.75
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        place = np.floor(centre) + tap
        d = np.abs(centre - place)
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        np.add.at(matrix, (np.arange(new), np.clip(place, 0, old - 1).astype(int)), np.where(d <= 1, near, far))
    return matrix
