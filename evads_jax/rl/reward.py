"""From verdicts to rewards: the grain of a score, and the sum of the reward's parts.

E-VAds-R1 (arXiv 2602.08355): `G(x) = ⅓ [S(x) + R3(x) + R5(x)]`, `R = 0.8 · G(x_a) + 0.2 · G(x_t) + R_fmt`, with x_a the
answer's and x_t the reasoning trace's score. The paper does not say what S is; it is read here as R2, the strict
score, which gives G(0, .25, .5, .75, 1) = (0, 1/12, 1/3, 5/12, 1): smooth below, a jump at a perfect answer.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import ArrayLike, Bool, Float, Int

from evads_jax.judge.verdict import Missing, Verdict


def r5(score: Float[ArrayLike, "..."]) -> Float[jax.Array, "..."]:
    """The five-level score: the verdict itself."""
    return jnp.asarray(score, jnp.float32)


def r3(score: Float[ArrayLike, "..."]) -> Float[jax.Array, "..."]:
    """The three-level score: .75 → .5, .25 → 0, the others as they are (the released evaluation's rule)."""
    score = r5(score)
    return jnp.where(score >= 1.0, 1.0, jnp.where(score >= 0.5, 0.5, 0.0)).astype(jnp.float32)


def r2(score: Float[ArrayLike, "..."]) -> Float[jax.Array, "..."]:
    """The strict score: 1 for a perfect verdict, else 0."""
    return (r5(score) >= 1.0).astype(jnp.float32)


def mg(score: Float[ArrayLike, "..."]) -> Float[jax.Array, "..."]:
    """The multi-grained score `G = ⅓ (R2 + R3 + R5)`, E-VAds section on MG-GRPO, with S read as R2."""
    return (r2(score) + r3(score) + r5(score)) / 3.0


GRAINS: dict[str, Callable[[Float[ArrayLike, "..."]], Float[jax.Array, "..."]]] = {
    "mg": mg,
    "strict": r2,
    "r3": r3,
    "r5": r5,
}


def grain(score: Float[ArrayLike, "..."], name: str) -> Float[jax.Array, "..."]:
    """Scores on the judge's grid, seen at one grain.

    Args:
      score: values of `judge.verdict.GRID`, any shape.
      name: `mg`, `strict`, `r3` or `r5`, the rows of the reward ablation.

    Raises:
      ValueError: an unknown name.
    """
    if name not in GRAINS:
        raise ValueError(f"unknown reward grain {name!r}; known: {', '.join(GRAINS)}")
    return GRAINS[name](score)


def scores(verdicts: Sequence[Verdict | Missing]) -> tuple[np.ndarray, np.ndarray]:
    """A list of verdicts as two arrays: the scores, and which of them exist.

    Returns:
      `(score, valid)`, float32 and bool, both [len(verdicts)]. A missing verdict has score NaN, so that it cannot
      pass for a zero where the mask is forgotten.
    """
    valid = np.array([isinstance(v, Verdict) for v in verdicts], bool)
    score = np.array([v.score if isinstance(v, Verdict) else np.nan for v in verdicts], np.float32)
    return score, valid


@struct.dataclass
class RewardWeights:
    """The weights of the reward's parts.

    Attributes:
      answer: of the answer's grained score; .8 in the paper.
      trace: of the reasoning trace's grained score; .2 in the paper.
      format: of R_fmt, which is 1 for a well-formed completion and 0 otherwise; the paper adds it unweighted.
    """

    answer: float = 0.8
    trace: float = 0.2
    format: float = 1.0


@struct.dataclass
class Reward:
    """A reward and the parts it is the sum of; all float32 of one shape.

    Attributes:
      total: `answer + trace + format + shaping`; NaN where `valid` is False.
      answer: the answer's weighted part, 0 where invalid.
      trace: the trace's weighted part, 0 where invalid.
      format: the weighted format part, known for every completion.
      valid: both verdicts exist. An invalid reward must not enter any statistic.
      shaping: what was added to the judged parts, see `shaped`; None where nothing was.
    """

    total: Float[jax.Array, "..."]
    answer: Float[jax.Array, "..."]
    trace: Float[jax.Array, "..."]
    format: Float[jax.Array, "..."]
    valid: Bool[jax.Array, "..."]
    shaping: Float[jax.Array, "..."] | None = None


def reward(
    answer_score: Float[ArrayLike, "..."],
    trace_score: Float[ArrayLike, "..."],
    well_formed: Bool[ArrayLike, "..."],
    valid: Bool[ArrayLike, "..."],
    weights: RewardWeights | None = None,
    name: str = "mg",
) -> Reward:
    """`R = w_a · G(x_a) + w_t · G(x_t) + w_f · R_fmt`.

    Args:
      answer_score: verdicts on the answers, on the grid; anything where there is none.
      trace_score: verdicts on the reasoning traces, likewise.
      well_formed: whether the completion keeps the `<think>…</think> <answer>…</answer>` form; R_fmt ∈ {0, 1}.
      valid: whether both verdicts exist. Where one is missing the whole reward is: a sum without one of its parts
        would rank the completion below its group for the judge's failure.
      weights: default the paper's.
      name: the grain of both scores, see `grain`.

    Returns:
      The reward with its parts, of the arguments' common shape.
    """
    weights = weights or RewardWeights()
    valid, well_formed = jnp.asarray(valid, bool), jnp.asarray(well_formed, bool)
    answer = jnp.where(valid, weights.answer * grain(answer_score, name), 0.0)
    trace = jnp.where(valid, weights.trace * grain(trace_score, name), 0.0)
    form = (weights.format * well_formed).astype(jnp.float32)
    total = jnp.where(valid, answer + trace + form, jnp.nan)
    return Reward(total=total, answer=answer, trace=trace, format=form, valid=valid)


def overlong(lengths: Int[ArrayLike, "..."], limit: int, buffer: int) -> Float[jax.Array, "..."]:
    """The soft penalty for long completions, in tokens: 0 up to `limit − buffer`, from there linearly to −1 at `limit`.

    DAPO, arXiv 2503.14476, equation 13, with L_max = `limit` and L_cache = `buffer`. A sampler that stops at `limit`
    makes nothing longer; what it cuts off there has −1.

    Args:
      lengths: tokens of each completion, its stop token included.
      limit: the longest completion allowed.
      buffer: tokens before the limit in which the penalty grows; at least 1.
    """
    over = (limit - buffer) - jnp.asarray(lengths, jnp.float32)
    return jnp.clip(over / buffer, -1.0, 0.0)


def shaped(judged: Reward, shaping: Float[ArrayLike, "..."]) -> Reward:
    """A reward with a further part that no judge gave (length, divergence); missing rewards stay missing.

    Args:
      judged: the reward so far; NumPy in, NumPy out.
      shaping: what is added to it.
    """
    added: Any = np.asarray(shaping, np.float32)
    so_far = 0.0 if judged.shaping is None else judged.shaping
    return dataclasses.replace(judged, total=judged.total + added, shaping=so_far + added)
