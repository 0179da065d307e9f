"""DINOv3 weights from a local folder in the Hugging Face layout: config.json and *.safetensors."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from evads_jax.errors import UserError
from evads_jax.models.dinov3.config import DINOv3Config, read_config
from evads_jax.models.dinov3.parameters import Params, abstract

# Names differ between versions of transformers by a prefix: `layer.0.…` and `model.layer.0.…`.
_PREFIX = re.compile(r"^(model\.)*(?=layer\.|embeddings\.|norm\.)")
_LAYER = {
    "norm1": ("norm1", "norm"),
    "attention.q": ("attention.q_proj", "linear"),
    "attention.k": ("attention.k_proj", "linear"),
    "attention.v": ("attention.v_proj", "linear"),
    "attention.out": ("attention.o_proj", "linear"),
    "scale1": ("layer_scale1.lambda1", "array"),
    "norm2": ("norm2", "norm"),
    "up": ("mlp.up_proj", "linear"),
    "down": ("mlp.down_proj", "linear"),
    "scale2": ("layer_scale2.lambda1", "array"),
}


def load(folder: str | Path) -> tuple[Params, DINOv3Config]:
    """Reads parameters and config.

    Args:
        folder: holds config.json and one or more .safetensors files.

    Raises:
        UserError: no such folder, no weights in it, a tensor that is missing or of another shape, or one that is
            left over.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        what = "no .safetensors in the folder of weights" if folder.is_dir() else "no such folder of weights"
        raise UserError(what, str(folder), "it needs config.json and model.safetensors")
    config = read_config(folder)
    tensors = _Tensors(files)
    params = _assemble(tensors, config)
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract(config)):
        found: Any = params
        for part in path:
            found = found[part.key]
        if found.shape != leaf.shape:
            name = jax.tree_util.keystr(path)
            raise UserError(f"weights of {name} are {found.shape}, not {leaf.shape}", str(folder))
    if left := tensors.left():
        raise UserError(f"{len(left)} tensors that this model does not have, e.g. {left[0]}", str(folder))
    return params, config


class _Tensors:
    """The tensors of several files by their unprefixed names; remembers which were asked for."""

    def __init__(self, files: list[Path]):
        self._values: dict[str, np.ndarray] = {}
        self._where = str(files[0].parent)
        for file in files:
            try:
                with safe_open(file, framework="flax") as opened:
                    for name in opened.keys():  # noqa: SIM118 - not a mapping
                        value = np.asarray(opened.get_tensor(name), np.float32)
                        self._values[_PREFIX.sub("", name)] = value
            except (SafetensorError, OSError) as error:
                raise UserError("not a readable safetensors file", str(file)) from error
        self._asked: set[str] = {"embeddings.mask_token"}  # used in pre-training only

    def __call__(self, name: str, missing: np.ndarray | None = None) -> np.ndarray:
        self._asked.add(name)
        if name in self._values:
            return self._values[name]
        if missing is None:
            raise UserError(f"no tensor {name!r} among the weights", self._where)
        return missing

    def left(self) -> list[str]:
        return sorted(self._values.keys() - self._asked)


def _assemble(tensors: _Tensors, config: DINOv3Config) -> Params:
    kernel = tensors("embeddings.patch_embeddings.weight")  # [D, 3, p, p]
    params: Params = {
        "patch": {
            "weight": kernel.transpose(2, 3, 1, 0).reshape(-1, kernel.shape[0]),
            "bias": tensors("embeddings.patch_embeddings.bias"),
        },
        "class_token": tensors("embeddings.cls_token")[0],
        "registers": tensors("embeddings.register_tokens", np.zeros((1, 0, config.width), np.float32))[0],
        "norm": _read(tensors, "norm", "norm"),
        "layers": {},
    }
    for ours, (theirs, kind) in _LAYER.items():
        stacked = jax.tree.map(
            lambda *layers: np.stack(layers),
            *(_read(tensors, f"layer.{i}.{theirs}", kind) for i in range(config.layers)),
        )
        node = params["layers"]
        *parents, last = ours.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = stacked
    return params


def _read(tensors: _Tensors, name: str, kind: str) -> Any:
    if kind == "array":
        return tensors(name)
    if kind == "norm":
        return {"scale": tensors(f"{name}.weight"), "bias": tensors(f"{name}.bias")}
    weight = tensors(f"{name}.weight")
    zero = np.zeros(len(weight), np.float32) if name.endswith("k_proj") else None
    return {"weight": np.ascontiguousarray(weight.T), "bias": tensors(f"{name}.bias", zero)}
