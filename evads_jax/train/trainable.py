"""What of the policy a stage trains: all of it, all but the vision tower, or adapters beside it (LoRA).

A stage's state, its optimizer's moments, its gradients and its checkpoints hold the trained part only. The frozen part
is an argument of every jitted step and the same arrays for all stages. With LoRA each stage has an adapter of its
own: that of SFT stays, frozen, under that of MG-GRPO, so that without the latter the policy is the SFT result.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from evads_jax.errors import UserError
from evads_jax.models import lora, partitioning, qwen_vl
from evads_jax.models.qwen_vl import QwenVLConfig
from evads_jax.train import optimizer
from evads_jax.train.checkpoint import load_params
from evads_jax.train.state import released

Tree = Any
VISION = "vision"  # the subtree of the tower and its mergers


class Trainable(NamedTuple):
    """A policy in two parts; `lora.combine(frozen, start)` is the whole.

    Attributes:
      start: what is trained, at its start.
      frozen: the rest; None where everything is trained.
      decay_mask: like `start`, True where weight decay applies.
      matrices: like `start`, from `optimizer.matrices`; None for adapters.
    """

    start: Tree
    frozen: Tree
    decay_mask: Tree
    matrices: Tree = None


def check(config: ConfigDict) -> None:
    """Refuses settings that cannot work, before anything is loaded.

    Raises:
      UserError: naming the field.
    """
    if config.lora.rank < 0:
        raise UserError(f"a rank of {config.lora.rank}", "config.lora.rank", "0 trains the parameters themselves")
    if unknown := [group for group in config.lora.groups if group not in lora.GROUPS]:
        raise UserError(f"unknown group {unknown[0]!r}", "config.lora.groups", "of " + ", ".join(lora.GROUPS))
    if config.lora.rank and not config.lora.groups:
        raise UserError("adapters of no layers", "config.lora.groups", "of " + ", ".join(lora.GROUPS))
    if config.lora.rank and "muon" in (config.sft.optimizer, config.rl.optimizer):
        raise UserError("muon is for whole matrices, not for adapters", "config: optimizer", "use adamw with lora")
    adapted = [group for group in config.lora.groups if lora.GROUPS[group][0][0] == VISION]
    if config.lora.rank and config.train.freeze_vision and adapted:
        what = f"the group {adapted[0]!r} belongs to the vision tower, which is frozen"
        raise UserError(what, "config.lora.groups", "leave it out, or set train.freeze_vision to False")


def divide(
    config: ConfigDict, model: QwenVLConfig, params: Tree, stage: str, mesh: jax.sharding.Mesh | None = None
) -> Trainable:
    """The parts of a policy for one stage.

    Args:
      config: read: lora, train.freeze_vision, run.seed.
      model: the policy's sizes.
      params: the policy that the stage starts from; adapters of earlier stages may lie over it.
      stage: its name; with the run's seed it decides where adapters start.
      mesh: the devices; None for one.
    """
    if config.lora.rank:
        declared = _declared(config, model)
        key = jax.random.fold_in(jax.random.key(config.run.seed), zlib.crc32(f"lora/{stage}".encode()))
        start = lora.init(declared, key)
        if mesh is not None:
            axes = jax.tree.map(lambda factor: factor.axes, declared)
            start = jax.device_put(start, partitioning.shardings(axes, mesh, start))
        return Trainable(start, params, jax.tree.map(lambda _: True, start))
    mask = qwen_vl.decay_mask(model)
    matrices = optimizer.matrices(qwen_vl.abstract(model), qwen_vl.axes(model), qwen_vl.fan_in(model))
    if config.train.freeze_vision:
        start, mask, matrices = (_without_vision(tree) for tree in (params, mask, matrices))
        return Trainable(start, {VISION: params[VISION]}, mask, matrices)
    return Trainable(params, None, mask, matrices)


def prepare(config: ConfigDict, model: QwenVLConfig, params: Tree) -> Tree:
    """The parameters that a run starts from, as they are kept: beside adapters, matrices in the activations' type."""
    return lora.hold(params, qwen_vl.fan_in(model), model.dtype) if config.lora.rank else params


def load_result(
    config: ConfigDict, model: QwenVLConfig, params: Tree, workdir: str | Path, stage: str, mesh: Any = None
) -> Tree:
    """The whole policy that a finished stage ended with.

    Args:
      config: the config of the run.
      model: the policy's sizes.
      params: what the stage started from; the arrays of what it trained are given up, and may be gone already.
      workdir: the run's folder.
      stage: the stage's name.
      mesh: the devices; None for one.

    Raises:
      UserError: as `checkpoint.load_params`.
    """
    divided = divide(config, model, params, stage, mesh)
    return lora.combine(divided.frozen, load_params(workdir, stage, released(divided.start)))


def kept(model: QwenVLConfig, start: Tree) -> Tree:
    """A copy of what a stage trains, as it is kept to be read and never trained: matrices in the activations' type.

    Args:
      model: the policy's sizes.
      start: as in `Trainable`; of adapters all are copied as they are.
    """
    factors = jax.tree.leaves(start, is_leaf=lambda x: isinstance(x, lora.Factors))
    held = start
    if not isinstance(factors[0], lora.Factors):
        fan_in = qwen_vl.fan_in(model)
        held = lora.hold(start, {name: fan_in[name] for name in start}, model.dtype)
    return jax.tree.map(lambda new, old: jnp.copy(new) if new is old else new, held, start)


def _declared(config: ConfigDict, model: QwenVLConfig) -> Tree:
    trees = qwen_vl.abstract(model), qwen_vl.axes(model), qwen_vl.fan_in(model)
    return lora.declare(*trees, config.lora.rank, config.lora.alpha, tuple(config.lora.groups))


def _without_vision(tree: Mapping[str, Tree]) -> dict[str, Tree]:
    return {name: branch for name, branch in tree.items() if name != VISION}
