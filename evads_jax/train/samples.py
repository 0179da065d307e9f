"""What an update learns from, beside the prompts: completions with their log-probabilities and advantages."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from evads_jax.models.qwen_vl import SuffixBatch
from evads_jax.sampling.rollout import Rollout


@struct.dataclass
class Samples:
    """What an update learns from.

    Attributes:
      suffix: the completions; the mask holds the real tokens of those that are kept.
      old: their log-probabilities before the first update: the sampler's, or the trainer's where it recomputed them.
      sampled: the sampler's where `old` is the trainer's; None elsewhere.
      reference: their log-probabilities under the SFT result; None without a KL term.
      advantages: one per completion.
      importance: truncated importance weights; None without them.
    """

    suffix: SuffixBatch
    old: jax.Array
    sampled: jax.Array | None
    reference: jax.Array | None
    advantages: jax.Array
    importance: jax.Array | None


class Known(NamedTuple):
    """What is known of a rollout's completions before they are judged; the last three as in `Samples`."""

    suffix: SuffixBatch  # the mask holds all real tokens
    old: jax.Array
    sampled: jax.Array | None
    reference: jax.Array | None


@functools.partial(jax.jit, static_argnames="width")
def narrowed(rollout: Rollout, width: int) -> Rollout:
    """The rollout with `width` places for the tokens of each sample; none may have more."""
    return dataclasses.replace(rollout, tokens=rollout.tokens[..., :width], logprobs=rollout.logprobs[..., :width])


@jax.jit
def suffix_of(rollout: Rollout) -> SuffixBatch:
    """The completions, with all their tokens in the mask."""
    real = jnp.arange(rollout.tokens.shape[-1]) < rollout.lengths[..., None]
    return SuffixBatch(tokens=rollout.tokens, lengths=rollout.lengths, mask=real)


@jax.jit
def keep(suffix: SuffixBatch, kept: jax.Array, finished: jax.Array | None) -> SuffixBatch:
    """Takes the completions that are not kept, and those not finished, where that is given, out of the mask."""
    kept = kept if finished is None else kept & finished
    return dataclasses.replace(suffix, mask=suffix.mask & kept[..., None])
