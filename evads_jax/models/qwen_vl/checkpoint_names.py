"""Which tensors of a Hugging Face checkpoint a declared parameter is, and how the two are laid out.

The list is derived from the declaration in `parameters`: each declared parameter finds its place in the tables below,
so that one without a place cannot be loaded or saved by mistake.

Three spellings of the same names are about: `visual.…` and `model.…` (Qwen2.5-VL), `model.visual.…` and
`model.language_model.…` (Qwen3-VL), and these without the first `model.`. Here they are all `visual.…`,
`language_model.…` and `lm_head.weight`.
"""

import dataclasses
import math
import re

import jax
import numpy as np

from evads_jax.models.qwen_vl.config import QwenVLConfig
from evads_jax.models.qwen_vl.parameters import abstract

HEAD, EMBED = "lm_head.weight", "language_model.embed_tokens.weight"

_SPELLINGS = (
    (re.compile(r"^(model\.)?visual\."), "visual."),
    (re.compile(r"^(model\.)?language_model\.(model\.)?"), "language_model."),
    (re.compile(r"^model\."), "language_model."),
)
_RELEASED = {
    "qwen3_vl": {"visual.": "model.visual.", "language_model.": "model.language_model."},
    "qwen2_5_vl": {"visual.": "visual.", "language_model.": "model."},
}

# Path of a parameter → name; `{}` is the number of the layer. Weights, scales and biases that stand below a module
# (`…/weight`, `…/scale`, `…/bias`) take the module's name and the ending.
_TENSORS = {
    "text/embed": EMBED,
    "text/head": HEAD,
    "text/layers/q": "language_model.layers.{}.self_attn.q_proj.weight",
    "text/layers/k": "language_model.layers.{}.self_attn.k_proj.weight",
    "text/layers/v": "language_model.layers.{}.self_attn.v_proj.weight",
    "text/layers/q_bias": "language_model.layers.{}.self_attn.q_proj.bias",
    "text/layers/k_bias": "language_model.layers.{}.self_attn.k_proj.bias",
    "text/layers/v_bias": "language_model.layers.{}.self_attn.v_proj.bias",
    "text/layers/out": "language_model.layers.{}.self_attn.o_proj.weight",
    "text/layers/gate": "language_model.layers.{}.mlp.gate_proj.weight",
    "text/layers/up": "language_model.layers.{}.mlp.up_proj.weight",
    "text/layers/down": "language_model.layers.{}.mlp.down_proj.weight",
    "vision/position": "visual.pos_embed.weight",
}
_MODULES = {
    "text/norm": "language_model.norm",
    "text/layers/norm1": "language_model.layers.{}.input_layernorm",
    "text/layers/norm2": "language_model.layers.{}.post_attention_layernorm",
    "text/layers/q_norm": "language_model.layers.{}.self_attn.q_norm",
    "text/layers/k_norm": "language_model.layers.{}.self_attn.k_norm",
    "vision/patch": "visual.patch_embed.proj",
    "vision/layers/norm1": "visual.blocks.{}.norm1",
    "vision/layers/norm2": "visual.blocks.{}.norm2",
    "vision/layers/qkv": "visual.blocks.{}.attn.qkv",
    "vision/layers/out": "visual.blocks.{}.attn.proj",
}
_GATED = {  # Qwen2.5-VL
    "vision/layers/gate": "visual.blocks.{}.mlp.gate_proj",
    "vision/layers/up": "visual.blocks.{}.mlp.up_proj",
    "vision/layers/down": "visual.blocks.{}.mlp.down_proj",
    "vision/merger/norm": "visual.merger.ln_q",
    "vision/merger/up": "visual.merger.mlp.0",
    "vision/merger/down": "visual.merger.mlp.2",
}
_PLAIN = {  # Qwen3-VL
    "vision/layers/up": "visual.blocks.{}.mlp.linear_fc1",
    "vision/layers/down": "visual.blocks.{}.mlp.linear_fc2",
    "vision/merger/norm": "visual.merger.norm",
    "vision/merger/up": "visual.merger.linear_fc1",
    "vision/merger/down": "visual.merger.linear_fc2",
    "vision/deepstack/norm": "visual.deepstack_merger_list.{}.norm",
    "vision/deepstack/up": "visual.deepstack_merger_list.{}.linear_fc1",
    "vision/deepstack/down": "visual.deepstack_merger_list.{}.linear_fc2",
}
_STACKS = ("text/layers/", "vision/layers/", "vision/deepstack/")
_TABLES = ("text/embed", "text/head", "vision/position")
_ENDINGS = {"weight": "weight", "scale": "weight", "bias": "bias"}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a parameter lies in a checkpoint.

    A matrix is [out, in] there and [in…, out…] here, heads apart; everything else differs by a reshape at most.

    Attributes:
      path: keys that lead to the parameter in the tree.
      shape: the parameter's, with the layers' axis where there is one.
      names: one tensor per layer, or a single one.
      stacked: whether the parameter's first axis is that of its layers.
      tensor: shape of each tensor.
      inputs: how many axes of one layer's parameter are contracted; 0 for what is no matrix.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    names: tuple[str, ...]
    stacked: bool
    tensor: tuple[int, ...]
    inputs: int

    @property
    def layer(self) -> tuple[int, ...]:
        """Shape of the parameter in one layer."""
        return self.shape[1:] if self.stacked else self.shape

    def ours(self, tensor: np.ndarray) -> np.ndarray:
        """A tensor of the checkpoint as one layer of the parameter; a view, nothing is read."""
        if not self.inputs:
            return tensor.reshape(self.layer)
        layer, outputs = self.layer, len(self.layer) - self.inputs
        apart = tensor.reshape(*layer[self.inputs :], *layer[: self.inputs])
        return apart.transpose(*range(outputs, len(layer)), *range(outputs))

    def theirs(self, layer: np.ndarray) -> np.ndarray:
        """One layer of the parameter as the checkpoint's tensor; inverse of `ours`."""
        order = (*range(self.inputs, layer.ndim), *range(self.inputs))
        return layer.transpose(order).reshape(self.tensor)


def canonical(name: str) -> str:
    """A tensor's name in the one spelling used here."""
    for pattern, spelling in _SPELLINGS:
        if pattern.match(name):
            return pattern.sub(spelling, name)
    return name


def released(name: str, family: str) -> str:
    """A canonical name as the family's released checkpoints spell it."""
    for start, spelling in _RELEASED[family].items():
        if name.startswith(start):
            return spelling + name.removeprefix(start)
    return name


def places(config: QwenVLConfig) -> list[Place]:
    """The place of every declared parameter, in the order of the tree's leaves."""
    modules = _MODULES | (_GATED if config.traits.vision_gated else _PLAIN)
    found = []
    for keys, leaf in jax.tree_util.tree_leaves_with_path(abstract(config)):
        path = tuple(key.key for key in keys)
        joined = "/".join(path)
        module, _, last = joined.rpartition("/")
        name = _TENSORS.get(joined) or f"{modules[module]}.{_ENDINGS[last]}"
        stacked = joined.startswith(_STACKS)
        layer = leaf.shape[1:] if stacked else leaf.shape
        vector = name.endswith(".bias") or len(layer) == 1
        inputs = 0 if vector or joined in _TABLES else 2 if module.endswith("out") or last == "out" else 1
        tensor = (math.prod(layer),) if vector else layer
        if inputs:
            tensor = (math.prod(layer[inputs:]), math.prod(layer[:inputs]))
        if joined == "vision/patch/weight":  # a convolution whose kernel is as large as its stride
            vision = config.vision
            tensor = (vision.width, 3, vision.temporal_patch, vision.patch, vision.patch)
        names = tuple(name.format(i) for i in range(leaf.shape[0])) if stacked else (name,)
        found.append(Place(path, leaf.shape, names, stacked, tensor, inputs))
    return found
