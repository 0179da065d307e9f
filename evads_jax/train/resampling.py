"""Dynamic sampling: groups that teach nothing are sampled again, a bounded number of times.

A group whose valid rewards are all equal has no advantages. As in DAPO (arXiv 2503.14476, section 3.2) its place is
filled before the update; not with another prompt, though, but with new samples of the same one under a new key, so that
the order of the data, and with it an exact resume, does not depend on the rewards. What is still flat after the last
round leaves the loss and is counted (`advantage(drop_flat=True)`).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from evads_jax.data.records import Example
from evads_jax.models.division import Division
from evads_jax.models.qwen_vl import PromptBatch
from evads_jax.sampling.rollout import Rollout
from evads_jax.train.judging import Judged

# Keys of later rounds are folded with numbers that no prompt has: those are below 2³¹.
_FIRST_ROUND = 1 << 31


class Drawn(NamedTuple):
    """A rollout and what it was worth.

    Attributes:
      rollout: on the device.
      judged: texts, verdicts and rewards.
    """

    rollout: Rollout
    judged: Judged


def resample(
    drawn: Drawn,
    prompt: PromptBatch,
    examples: Sequence[Example],
    key: jax.Array,
    rounds: int,
    *,
    draw: Callable[[PromptBatch, jax.Array], tuple[Rollout, Rollout]],
    judge: Callable[[Rollout, Sequence[Example | None]], Judged],
    flat: Callable[[Judged], Bool[np.ndarray, " B"]],
    division: Division,
) -> tuple[Drawn, dict[str, float]]:
    """Samples flat groups again until none is flat or the rounds are used up.

    A round has the shapes of the whole batch, so that nothing is compiled anew: the other prompts are absent (length
    0), and decoding ends with the longest of the groups that are there.

    Args:
      drawn: the first rollout.
      prompt: its prompts, on the device.
      examples: what this process's part of them asks.
      key: the rollout's key.
      rounds: the most rounds.
      draw: samples prompts with a key; gives the rollout on the device and on the host.
      judge: reads and judges a rollout on the host; prompts without an example are absent.
      flat: the groups whose valid rewards are all equal, of the whole batch, the same on every process.
      division: which prompts are this process's.

    Returns:
      The rollout with the groups in it that were last sampled, and the metric `resampled_groups`: how often a group
      was sampled again, per group of the batch.
    """
    sampled = 0
    for number in range(rounds):
        again = flat(drawn.judged)
        if not again.any():
            break
        sampled += int(again.sum())
        mask = division.place_whole(again)
        some = dataclasses.replace(prompt, lengths=_masked(prompt.lengths, mask))
        rollout, on_host = draw(some, jax.random.fold_in(key, _FIRST_ROUND + number))
        own = again[division.mine]
        judged = judge(on_host, [example if flat else None for example, flat in zip(examples, own, strict=True)])
        drawn = Drawn(_where(mask, rollout, drawn.rollout), _replaced(drawn.judged, judged, again, own))
    return drawn, {"resampled_groups": sampled / len(drawn.judged.reward.valid)}


@jax.jit
def _masked(lengths: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.where(mask, lengths, 0)


@jax.jit
def _where(mask: jax.Array, new: Rollout, old: Rollout) -> Rollout:
    return jax.tree.map(lambda a, b: jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


def _replaced(before: Judged, new: Judged, again: Bool[np.ndarray, " B"], own: Bool[np.ndarray, " b"]) -> Judged:
    """`before` with the groups `again` of `new`; `own` are those of this process."""
    mask = np.repeat(own, before.reward.valid.shape[1])

    def lists(old: list[Any], other: list[Any]) -> list[Any]:
        return [b if here else a for a, b, here in zip(old, other, mask, strict=True)]

    def arrays(old: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.where(again[:, None], other, old)

    names = ("texts", "completions", "answers", "traces")
    fields: dict[str, Any] = {name: lists(getattr(before, name), getattr(new, name)) for name in names}
    whole = {name: jax.tree.map(arrays, getattr(before, name), getattr(new, name)) for name in ("found", "reward")}
    return dataclasses.replace(before, **fields, **whole)
