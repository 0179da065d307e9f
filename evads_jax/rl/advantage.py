"""Group-relative advantages: how much better a completion is than the others of its prompt.

GRPO (arXiv 2402.03300): `A_i = (r_i − mean(r)) / std(r)` over the G completions of one prompt. Three things are made
explicit here. A missing reward leaves its group's mean and standard deviation. The standard deviation is the sample's
(divisor n − 1). A group without variance is recognised by `max == min` and has advantages of exactly zero: in
float32 the standard deviation of equal numbers need not be zero, and dividing by it would make noise into signal.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import ArrayLike, Bool, Float

SCALES = ("group", "batch", "none")


@struct.dataclass
class Advantages:
    """Advantages of B groups of G completions.

    Attributes:
      values: float32; exactly 0 for missing rewards, dropped groups and groups without variance.
      kept: the completions that may enter the loss: valid ones of groups with at least two valid rewards.
      mean: each group's mean over valid rewards; NaN where there is none.
      std: each group's sample standard deviation; exactly 0 without variance, NaN for fewer than two valid rewards.
      flat: groups of at least two valid rewards, all equal.
      dropped: groups that leave the loss: with fewer than two valid rewards, or flat where those are to be dropped.
    """

    values: Float[jax.Array, "B G"]
    kept: Bool[jax.Array, "B G"]
    mean: Float[jax.Array, " B"]
    std: Float[jax.Array, " B"]
    flat: Bool[jax.Array, " B"]
    dropped: Bool[jax.Array, " B"]


def _is_flat(rewards: jax.Array, mask: jax.Array) -> jax.Array:
    """Whether the masked values of the last axis are all equal."""
    largest = jnp.max(jnp.where(mask, rewards, -jnp.inf), axis=-1)
    smallest = jnp.min(jnp.where(mask, rewards, jnp.inf), axis=-1)
    return largest == smallest


def _moments(rewards: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and sample standard deviation of the masked values of the last axis, NaN for too few of them."""
    count = jnp.sum(mask, axis=-1).astype(jnp.float32)
    mean = jnp.sum(jnp.where(mask, rewards, 0.0), axis=-1) / jnp.maximum(count, 1.0)
    squares = jnp.sum(jnp.where(mask, (rewards - mean[..., None]) ** 2, 0.0), axis=-1)
    std = jnp.sqrt(squares / jnp.maximum(count - 1.0, 1.0))
    std = jnp.where(_is_flat(rewards, mask), 0.0, std)
    return jnp.where(count > 0, mean, jnp.nan), jnp.where(count > 1, std, jnp.nan)


def advantage(
    rewards: Float[ArrayLike, "B G"],
    valid: Bool[ArrayLike, "B G"],
    scale: str = "group",
    epsilon: float = 1e-4,
    *,
    leave_one_out: bool = False,
    drop_flat: bool = False,
) -> Advantages:
    """Advantages within each group.

    Args:
      rewards: finite where valid, anything elsewhere.
      valid: the rewards that exist.
      scale: what `r − mean(group)` is divided by: `group`, the group's standard deviation (GRPO); `batch`, that of all
        kept rewards of the call, so the call must see the whole batch; `none`, one (Dr. GRPO, arXiv 2503.20783).
      epsilon: added to the standard deviation. Not given in the paper; 1e-4 as in TRL.
      leave_one_out: the mean is that of the group's other valid rewards (RLOO, arXiv 2402.14740): of n valid ones,
        `r − mean(others) = n / (n − 1) · (r − mean(group))`.
      drop_flat: groups whose valid rewards are all equal leave the loss, and the batch's standard deviation, rather
        than enter with advantages of zero.

    Returns:
      Values and bookkeeping. Groups with fewer than two valid rewards are dropped: there is nothing to compare with.

    Raises:
      ValueError: an unknown scale.
    """
    if scale not in SCALES:
        raise ValueError(f"unknown advantage scale {scale!r}; known: {', '.join(SCALES)}")
    rewards, valid = jnp.asarray(rewards, jnp.float32), jnp.asarray(valid, bool)
    rewards = jnp.where(valid, rewards, 0.0)
    dropped = jnp.sum(valid, axis=-1) < 2
    flat = _is_flat(rewards, valid) & ~dropped
    if drop_flat:
        dropped = dropped | flat
    kept = valid & ~dropped[:, None]
    mean, std = _moments(rewards, valid)
    centred = rewards - mean[:, None]
    if leave_one_out:
        count = jnp.sum(valid, axis=-1, keepdims=True).astype(jnp.float32)
        centred = centred * (count / jnp.maximum(count - 1.0, 1.0))
    if scale == "group":
        centred = centred / (std[:, None] + epsilon)
    elif scale == "batch":
        centred = centred / (_moments(rewards.reshape(-1), kept.reshape(-1))[1] + epsilon)
    values = jnp.where(kept & ~flat[:, None], centred, 0.0)
    return Advantages(values=values, kept=kept, mean=mean, std=std, flat=flat, dropped=dropped)
