"""What a job must hold, compute and move, counted from the model and its trees: the compiler is not asked.

FLOPs are those of the algorithm: a multiply-add is two, causal attention is half a square, what rematerialisation does
again is not counted. They are totals; a chip's share is their part in the number of chips.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax

from evads_jax.models import qwen_vl
from evads_jax.models.qwen_vl import QwenVLConfig
from evads_jax.models.qwen_vl.vision_windows import window_patches
from evads_jax.train.compile_functions import Functions, bytes_per_device

Tree = Any


@dataclasses.dataclass(frozen=True)
class Work:
    """The sizes of a step.

    Attributes:
      B: prompts.
      G: samples per prompt.
      T: prompt tokens.
      S: tokens of a sample.
      units: temporal units per prompt.
      patches: patches of a unit.
    """

    B: int
    G: int
    T: int
    S: int
    units: int
    patches: int


@dataclasses.dataclass(frozen=True)
class Resident:
    """Bytes per device of what stays between the functions of a step.

    Attributes:
      trained: what is trained, float32.
      moments: its optimizer's state.
      frozen: what is not trained; 0 where everything is.
      reference: what the reference holds beside `frozen`; matrices in the activations' type.
    """

    trained: int
    moments: int
    frozen: int
    reference: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.trained + self.moments + self.frozen + self.reference

    def beside(self, function: str) -> int:
        """The part that is no argument of a function, and stays on the device while it runs."""
        return self.reference if function == "update" else self.moments + self.reference


def resident(functions: Functions) -> Resident:
    """The resident set of a job, from its abstract trees and their shardings."""
    return Resident(
        trained=bytes_per_device(functions.state.params),
        moments=bytes_per_device(functions.state.opt_state),
        frozen=bytes_per_device(functions.frozen),
        reference=bytes_per_device(functions.reference),
    )


def cache_bytes(model: QwenVLConfig, work: Work, shards: int, tp: int) -> int:
    """Bytes per device of the keys and values of prompts and samples.

    Args:
      model: the model's sizes.
      work: the step's sizes.
      shards: data · fsdp, which split the prompts.
      tp: splits the key/value heads, where it divides them.
    """
    heads = model.kv_heads // tp if model.kv_heads % tp == 0 else model.kv_heads
    tokens = work.B // shards * (work.T + work.G * work.S)
    return 2 * model.layers * heads * model.head_width * tokens * jax.numpy.dtype(model.dtype).itemsize


def lower_bound(held: Resident, cache: int) -> int:
    """Bytes per device below which no step can run: the resident set and its gradients, or keys and values."""
    return held.total + max(held.trained, cache)


def flops(model: QwenVLConfig, work: Work, trained: Mapping[str, bool], lora: bool) -> dict[str, float]:
    """FLOPs of each function, over all devices.

    Args:
      model: the model's sizes.
      work: the step's sizes.
      trained: whether there is something trained in `text`, in `merger` (those of DeepStack too) and in `tower`.
      lora: whether what is trained are adapters; the gradients of the matrices are not formed then.
    """
    patches = work.B * work.units * work.patches
    matrices = _matrices(model)
    tower = 2 * matrices["tower"] * patches + 4 * model.vision.width * patches * _visible_patches(model, work.patches)
    merger = 2 * matrices["merger"] * patches / model.vision.merge**2
    wide = 4 * model.layers * model.heads * model.head_width
    prompt = work.B * (2 * matrices["text"] * work.T + wide * work.T * (work.T + 1) / 2)
    pairs = work.S * work.T + work.S * (work.S + 1) / 2
    suffix = work.B * work.G * (2 * (matrices["text"] + matrices["head"]) * work.S + wide * pairs)
    # Backward: as much again for the gradients of activations, and as much for those of matrices. What stands before
    # everything trained has neither.
    update, before = 0.0, False
    for part, forward in (("tower", tower), ("merger", merger), ("text", prompt + suffix)):
        update += forward * max(1 + trained[part] * (1 if lora else 2), 2 if before else 1)
        before = before or trained[part]
    prefill = tower + merger + prompt
    return {
        "update": update, "logprobs": prefill + suffix, "prefill": prefill, "decode": suffix,
        "rollout": prefill + suffix,
    }  # fmt: skip


def moved_bytes(functions: Functions, work: Work, cache: int, tp: int) -> dict[str, float]:
    """Bytes that each function must at least read and write in a device's memory.

    The policy's matrices stream through every device, gathered from fsdp, once per pass (decode: per token); the
    update reads parameters, moments and gradients of its share and writes the first two; decode reads the keys and
    values of its groups for every token.
    """
    held = resident(functions)
    policy = sum(
        math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves((functions.frozen, functions.state.params))
    )
    prompts = cache * work.T / (work.T + work.G * work.S)
    per_token = prompts + (cache - prompts) / 2
    decode = work.S * (policy / tp + per_token)
    return {
        "update": 2 * policy / tp + 3 * held.trained + 2 * (held.trained + held.moments), "logprobs": policy / tp,
        "prefill": policy / tp + prompts, "decode": decode, "rollout": policy / tp + prompts + decode,
    }  # fmt: skip


def _matrices(model: QwenVLConfig) -> dict[str, int]:
    """Entries of the matrices that a patch, a video token and a text token are multiplied with, and of the head."""
    sizes = {"tower": 0, "merger": 0, "text": 0, "head": model.vocabulary * model.width}
    trees = qwen_vl.abstract(model), qwen_vl.fan_in(model)
    for (path, leaf), inputs in zip(
        jax.tree_util.tree_leaves_with_path(trees[0]), jax.tree.leaves(trees[1]), strict=True
    ):
        names = [key.key for key in path]
        if not inputs or names[1] in ("embed", "head", "position"):
            continue
        part = "text" if names[0] == "text" else "tower" if names[1] in ("patch", "layers") else "merger"
        sizes[part] += math.prod(leaf.shape)
    return sizes


def _visible_patches(model: QwenVLConfig, patches: int) -> int:
    """Patches that a patch attends to, added up over the tower's layers."""
    vision = model.vision
    if not vision.window:
        return vision.layers * patches
    full = len(vision.full_attention)
    return full * patches + (vision.layers - full) * min(window_patches(vision), patches)
