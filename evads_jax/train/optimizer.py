"""The optimizer of every stage: AdamW after clipping, with a schedule that fits stages of unknown length."""

from typing import Any, NamedTuple

import optax
from ml_collections import ConfigDict

from evads_jax.errors import UserError

DECAYS = ("none", "cosine")


class Optimizer(NamedTuple):
    """An optax transformation and the learning rate that it uses at each step."""

    transformation: optax.GradientTransformation
    schedule: optax.Schedule


def make(section: ConfigDict, decay_mask: Any, max_steps: int) -> Optimizer:
    """The optimizer that a stage's config section asks for.

    The learning rate rises linearly over `warmup_steps` and then stays. A stage that ends when its validation loss
    stops falling does not know its last step: a schedule that decays towards `max_steps` would either be cut off high
    or, worse, make the loss fall just because the rate falls and so decide when the stage ends. `decay = "cosine"`
    (to zero at `max_steps`) is for stages whose number of steps is fixed.

    Args:
      section: `learning_rate`, `warmup_steps`, `weight_decay`, `clip_norm` (global norm of the gradients), `decay`.
      decay_mask: like the parameters, True where weight decay applies (never norms or biases).
      max_steps: the longest the stage can be.

    Raises:
      UserError: an unknown decay, or a number that makes no sense.
    """
    if section.decay not in DECAYS:
        raise UserError(f"unknown decay {section.decay!r}", "config: decay", "one of " + ", ".join(DECAYS))
    for name in ("learning_rate", "clip_norm"):
        if section[name] <= 0:
            raise UserError(f"{name} must be above 0, got {section[name]}", f"config: {name}")
    schedule = _schedule(section.learning_rate, section.warmup_steps, section.decay, max_steps)
    transformation = optax.chain(
        optax.clip_by_global_norm(section.clip_norm),
        optax.adamw(schedule, weight_decay=section.weight_decay, mask=decay_mask),
    )
    return Optimizer(transformation, schedule)


def _schedule(peak: float, warmup: int, decay: str, max_steps: int) -> optax.Schedule:
    # Begins at peak / warmup, not at 0: no step is spent on an update of zero.
    rise = optax.linear_schedule(peak / max(warmup, 1), peak, max(warmup - 1, 1))
    stay = optax.cosine_decay_schedule(peak, max(max_steps - warmup, 1)) if decay == "cosine" else peak
    rest = stay if callable(stay) else optax.constant_schedule(stay)
    return optax.join_schedules([rise, rest], [warmup])
