"""Encoders that start from downloaded weights: a CLIP-class ViT for the frames, Chinese RoBERTa for the text.

Folders are in the Hugging Face layout, config.json and safetensors. For the frames: CLIPModel, CLIPVisionModel,
ChineseCLIPModel, and XCLIPModel, which also has the message tokens and the multi-frame integration transformer. For the
text: BertModel (which Chinese RoBERTa and its small versions are published as), of which the first layers are taken.
What the files do not have stays as it was drawn.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from evads_jax.errors import UserError
from evads_jax.models.cope.config import CopeConfig
from evads_jax.models.cope.parameters import Params
from evads_jax.models.cope.text import EPSILON as _BERT_EPSILON
from evads_jax.models.qwen_vl.checkpoint_files import read_files

_CLIP_EPSILON = 1e-5  # of CLIP's norms; the default of `layer_norm`
# Name in config.json → our field, and the value that transformers takes where the name is absent.
_CLIP_SIZES: Mapping[str, tuple[str, int | str]] = {
    "hidden_size": ("visual_width", 768),
    "num_hidden_layers": ("visual_layers", 12),
    "num_attention_heads": ("visual_heads", 12),
    "intermediate_size": ("visual_mlp_width", 3072),
    "patch_size": ("visual_patch", 32),
    "image_size": ("frame_size", 224),
    "hidden_act": ("visual_activation", "quick_gelu"),
}
_MIT_SIZES: Mapping[str, tuple[str, int | str]] = {
    "mit_hidden_size": ("mit_width", 512),
    "mit_num_hidden_layers": ("mit_layers", 1),
    "mit_num_attention_heads": ("mit_heads", 8),
}
_BERT_SIZES: Mapping[str, tuple[str, int | str]] = {
    "hidden_size": ("text_width", 768),
    "num_attention_heads": ("text_heads", 12),
    "intermediate_size": ("text_mlp_width", 3072),
}

# Our names → theirs, within a layer.
_CLIP_BLOCK = {
    "norm1": "layer_norm1",
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.out": "self_attn.out_proj",
    "norm2": "layer_norm2",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}
_MESSAGE = {
    "linear": "message_fc",
    "norm": "message_ln",
    "attention.q": "message_attn.q_proj",
    "attention.k": "message_attn.k_proj",
    "attention.v": "message_attn.v_proj",
    "attention.out": "message_attn.out_proj",
}
_BERT_BLOCK = {
    "attention.q": "attention.self.query",
    "attention.k": "attention.self.key",
    "attention.v": "attention.self.value",
    "attention.out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm2": "output.LayerNorm",
}


def load_visual(params: Params, config: CopeConfig, folder: str | Path) -> Params:
    """The parameters with the frames' encoder of a folder, in every domain's encoders.

    Args:
      params: from `init`.
      config: their sizes; `mit_width` must be that of the folder's projection, where it has one.
      folder: the weights.

    Raises:
      UserError: no weights, sizes other than the config's, or a tensor that is missing, left over or of another shape.
    """
    folder = Path(folder)
    sizes = _read_config(folder)
    sizes = sizes.get("vision_config", sizes)
    _check(sizes, config, _CLIP_SIZES, folder)
    _check_epsilon(sizes, _CLIP_EPSILON, folder)
    tensors = _Tensors(
        folder,
        "vision_model.",
        ("text_model.", "text_projection", "logit_scale", "prompts_", "embeddings.position_ids"),
    )
    kernel = tensors.array("embeddings.patch_embedding.weight")  # [D, 3, p, p]
    norm_in = "pre_layernorm" if tensors.has("pre_layernorm") else "pre_layrnorm"  # so it is spelled
    found = {
        "patch": {"weight": kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel))},
        "class_token": tensors.array("embeddings.class_embedding")[None],
        "position": tensors.array("embeddings.position_embedding.weight"),
        "norm_in": tensors.module(norm_in),
        "layers": tensors.stack(_CLIP_BLOCK, "encoder.layers", config.visual_layers),
        "norm_out": tensors.module("post_layernorm"),
    }
    if tensors.has("visual_projection"):
        found["projection"] = tensors.module("visual_projection", bias=False)
    if tensors.has("mit."):
        _check(sizes, config, _MIT_SIZES, folder)
        found["message"] = tensors.stack(_MESSAGE, "encoder.layers", config.visual_layers)
        found["mit_position"] = tensors.array("mit.position_embedding")[0, : config.frames]
        found["mit_layers"] = tensors.stack(_CLIP_BLOCK, "mit.encoder.layers", config.mit_layers)
    return _with_encoder(params, "visual", found, tensors)


def load_text(params: Params, config: CopeConfig, folder: str | Path) -> Params:
    """The parameters with the text's encoder of a folder, its first `text_layers`, in every domain's encoders.

    Args:
      params: from `init`.
      config: their sizes; `vocabulary` must be the folder's.
      folder: the weights.

    Raises:
      UserError: as `load_visual`.
    """
    folder = Path(folder)
    sizes = _read_config(folder)
    if sizes.get("model_type", "bert") != "bert" or sizes.get("hidden_act", "gelu") != "gelu":
        what = f"a {sizes.get('model_type')} model with {sizes.get('hidden_act')} is not read as text encoder"
        raise UserError(what, str(folder), "take a BertModel; Chinese RoBERTa is published as one")
    layers = sizes.get("num_hidden_layers", 12)
    if layers < config.text_layers:
        raise UserError(f"the weights have {layers} layers", str(folder), f"set config.model.text_layers to {layers}")
    _check(sizes, config, _BERT_SIZES, folder)
    _check_epsilon(sizes, _BERT_EPSILON, folder)
    later = tuple(f"encoder.layer.{i}." for i in range(config.text_layers, layers))
    tensors = _Tensors(folder, "bert.", ("cls.", "embeddings.position_ids", *later))
    # All tokens are of the first type: its vector is part of every position's.
    position = tensors.array("embeddings.position_embeddings.weight")[: config.text_tokens]
    found = {
        "embed": tensors.array("embeddings.word_embeddings.weight"),
        "position": position + tensors.array("embeddings.token_type_embeddings.weight")[0],
        "norm_in": tensors.module("embeddings.LayerNorm"),
        "layers": tensors.stack(_BERT_BLOCK, "encoder.layer", config.text_layers),
    }
    if tensors.has("pooler"):
        found["pooler"] = tensors.module("pooler.dense")
    return _with_encoder(params, "text", found, tensors)


class _Tensors:
    """A folder's tensors by their names without prefix; remembers which were asked for."""

    def __init__(self, folder: Path, prefix: str, ignored: tuple[str, ...]):
        arrays = {name: array for file in read_files(folder) for name, array in file.arrays().items()}
        short = {name.removeprefix(prefix): array for name, array in arrays.items()}
        self._values = {name: array for name, array in short.items() if not name.startswith(ignored)}
        self._asked: set[str] = set()
        self.where = str(folder)

    def has(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self._values)

    def array(self, name: str) -> np.ndarray:
        self._asked.add(name)
        if name not in self._values:
            raise UserError(f"no tensor {name!r} among the weights", self.where)
        return np.asarray(self._values[name], np.float32)

    def module(self, name: str, bias: bool = True) -> Params:
        """A linear layer, its matrix turned to [in, out], or a norm; a bias that it has must be there."""
        weight = self.array(f"{name}.weight")
        found = {"weight": weight.T} if weight.ndim == 2 else {"scale": weight}
        return found | ({"bias": self.array(f"{name}.bias")} if bias else {})

    def stack(self, names: Mapping[str, str], prefix: str, layers: int) -> Params:
        """The modules of all layers, stacked on a leading axis."""
        tree: Params = {}
        for ours, theirs in names.items():
            each = [self.module(f"{prefix}.{i}.{theirs}") for i in range(layers)]
            *parents, last = ours.split(".")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = {part: np.stack([module[part] for module in each]) for part in each[0]}
        return tree

    def left(self) -> list[str]:
        return sorted(self._values.keys() - self._asked)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError("no readable config.json beside the weights", str(folder)) from error


def _check(
    sizes: Mapping[str, Any], config: CopeConfig, names: Mapping[str, tuple[str, int | str]], folder: Path
) -> None:
    for theirs, (ours, default) in names.items():
        value = sizes.get(theirs, default)
        if value != getattr(config, ours):
            what = f"the weights have {theirs} {value!r}, the model {getattr(config, ours)!r}"
            raise UserError(what, str(folder), f"set config.model.{ours} to {value!r}")


def _check_epsilon(sizes: Mapping[str, Any], ours: float, folder: Path) -> None:
    """The norms' ε is no field of the model: published CLIPs and BERTs have these."""
    if (value := sizes.get("layer_norm_eps", ours)) != ours:
        raise UserError(f"the weights have layer_norm_eps {value!r}, the model {ours!r}", str(folder))


def _with_encoder(params: Params, name: str, found: Params, tensors: _Tensors) -> Params:
    if left := tensors.left():
        raise UserError(f"{len(left)} tensors that this model does not have, e.g. {left[0]}", tensors.where)
    encoders = {
        domain: {**encoder, name: _laid_over(encoder[name], found, name, tensors.where)}
        for domain, encoder in params["encoders"].items()
    }
    return {**params, "encoders": encoders}


def _laid_over(drawn: Any, found: Any, name: str, where: str) -> Any:
    """`drawn`, with the leaves that were found in place of its own."""
    if isinstance(found, Mapping):
        return {
            key: _laid_over(value, found[key], f"{name}/{key}", where) if key in found else value
            for key, value in drawn.items()
        }
    if found.shape != drawn.shape:
        raise UserError(f"weights of {name} are {found.shape}, not {drawn.shape}", where)
    return jnp.asarray(found)
