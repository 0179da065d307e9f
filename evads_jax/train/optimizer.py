"""The optimizer of every stage: AdamW or Muon after clipping, with a schedule that fits stages of unknown length."""

import math
from typing import Any, NamedTuple

import jax
import optax
from ml_collections import ConfigDict
from optax.contrib import MuonDimensionNumbers, muon

from evads_jax.errors import UserError

DECAYS = ("none", "cosine")
KINDS = ("adamw", "muon")
# Muon's updates get this root mean square times the learning rate, about that of Adam's, so that one rate and one
# weight decay serve both (Liu et al. 2025, «Muon is scalable for LLM training», section 2.2).
MUON_RMS = 0.2


class Optimizer(NamedTuple):
    """An optax transformation and the learning rate that it uses at each step."""

    transformation: optax.GradientTransformation
    schedule: optax.Schedule


def check(section: ConfigDict, name: str = "config") -> None:
    """Refuses what `make` cannot make, before anything is done for it.

    Args:
      section: as for `make`.
      name: the section's, for messages.

    Raises:
      UserError: an unknown optimizer or decay, or a number that makes no sense.
    """
    for field, known in {"optimizer": KINDS, "decay": DECAYS}.items():
        if section[field] not in known:
            raise UserError(f"unknown {field} {section[field]!r}", f"{name}.{field}", "one of " + ", ".join(known))
    for field in ("learning_rate", "clip_norm"):
        if section[field] <= 0:
            raise UserError(f"{field} must be above 0, got {section[field]}", f"{name}.{field}")
    if section.optimizer == "muon" and not section.get("adam_learning_rate"):
        what = "muon needs adam_learning_rate, for tables, norms and biases"
        raise UserError(what, f"{name}.optimizer", "add it to the config, or take adamw")


def make(section: ConfigDict, decay_mask: Any, max_steps: int, matrices: Any = None) -> Optimizer:
    """The optimizer that a stage's config section asks for.

    `muon` (Jordan 2024) makes the momentum of each weight matrix orthogonal before it is applied: all directions are
    learned at the same pace, which brings a small model from fresh parameters to the same loss in about half the
    steps. Tables, norms and biases, which are no maps from vectors to vectors, stay with AdamW (and Nesterov momentum).

    The learning rate rises linearly over `warmup_steps` and then stays. A stage that ends when its validation loss
    stops falling does not know its last step: a schedule that decays towards `max_steps` would either be cut off high
    or, worse, make the loss fall just because the rate falls and so decide when the stage ends. `decay = "cosine"`
    (to zero at `max_steps`) is for stages whose number of steps is fixed.

    Args:
      section: `optimizer`, `learning_rate`, `warmup_steps`, `weight_decay`, `clip_norm` (global norm of the gradients),
        `decay`; `adam_learning_rate` of what Muon leaves to AdamW.
      decay_mask: like the parameters, True where weight decay applies (never norms or biases).
      max_steps: the longest the stage can be.
      matrices: like the parameters, from `matrices`; Muon needs it.

    Raises:
      UserError: see `check`.
      ValueError: Muon without `matrices`.
    """
    check(section)
    if section.optimizer == "muon" and matrices is None:
        raise ValueError("muon needs to know which parameters are matrices")
    schedule = _schedule(section.learning_rate, section.warmup_steps, section.decay, max_steps)
    if section.optimizer == "adamw":
        update = optax.adamw(schedule, weight_decay=section.weight_decay, mask=decay_mask)
    else:
        adam_schedule = _schedule(section.adam_learning_rate, section.warmup_steps, section.decay, max_steps)
        update = muon(
            schedule,
            weight_decay=section.weight_decay,
            weight_decay_mask=decay_mask,
            adam_weight_decay=section.weight_decay,
            muon_weight_dimension_numbers=matrices,
            consistent_rms=MUON_RMS,
            adam_learning_rate=adam_schedule,
        )
    return Optimizer(optax.chain(optax.clip_by_global_norm(section.clip_norm), update), schedule)


def matrices(shapes: Any, axes: Any, fan_in: Any) -> Any:
    """Which parameters are maps from vectors to vectors, and which of their axes are summed over.

    Args:
      shapes: a tree of arrays or shapes.
      axes: like it, the names of each array's axes; "layers" for the leading axis of a stack.
      fan_in: like it, how many inputs each output sums over; 0 where that has no meaning.

    Returns:
      A like tree: optax's numbers of the reduced and of the produced axes; None for tables, norms and biases.
    """

    def one(shape: Any, names: tuple[str | None, ...], inputs: int) -> MuonDimensionNumbers | None:
        stack, ndim = sum(name == "layers" for name in names), len(shape.shape)
        for split in range(stack + 1, ndim):
            if inputs and math.prod(shape.shape[stack:split]) == inputs:
                return MuonDimensionNumbers(tuple(range(stack, split)), tuple(range(split, ndim)))
        return None

    return jax.tree.map(one, shapes, axes, fan_in, is_leaf=lambda x: isinstance(x, tuple))


def _schedule(peak: float, warmup: int, decay: str, max_steps: int) -> optax.Schedule:
    # Begins at peak / warmup, not at 0: no step is spent on an update of zero.
    rise = optax.linear_schedule(peak / max(warmup, 1), peak, max(warmup - 1, 1))
    stay = optax.cosine_decay_schedule(peak, max(max_steps - warmup, 1)) if decay == "cosine" else peak
    rest = stay if callable(stay) else optax.constant_schedule(stay)
    return optax.join_schedules([rise, rest], [warmup])
