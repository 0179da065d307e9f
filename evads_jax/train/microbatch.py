"""An update in parts: some groups at a time, and of these some samples at a time, to bound the memory of a step.

Values and gradients of the parts are summed. What a part contributes is already divided by the whole batch's
denominator (`rl.loss.denominator`), so the sums are the whole's, up to rounding, whatever the split. The samples of a
group are split under its prompt: the prompt and its video are run once, forward and backward, and the gradients that
the parts leave at its keys and values are added up before they go back through it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from evads_jax.models import lora
from evads_jax.models.qwen_vl import PromptBatch, QwenVLConfig, SuffixBatch, TokenScores, score
from evads_jax.models.qwen_vl.scoring import run_prompts, score_suffixes
from evads_jax.models.qwen_vl.text import Prefix

Tree = Any
T = TypeVar("T")

# (scores of a part's suffixes, what else is known of them) → (the part's share of the loss, sums to be added up).
Objective = Callable[[TokenScores, Tree], tuple[Float[Array, ""], Tree]]


class Split(NamedTuple):
    """How much of a batch is worked on at one time; both must divide.

    Attributes:
      groups: groups (prompts) at a time; None: all.
      samples: samples of each of these groups at a time; None: all.
    """

    groups: int | None = None
    samples: int | None = None


class Outcome(NamedTuple):
    """Sums over all parts.

    Attributes:
      loss: the loss.
      sums: the objective's sums.
      logprob: log-probabilities of all suffix tokens, [B, G, S].
      gradients: the loss's gradients, like the parameters.
    """

    loss: Float[Array, ""]
    sums: Tree
    logprob: Float[Array, "B G S"]
    gradients: Tree


def value_and_gradients(
    objective: Objective,
    params: Tree,
    model: QwenVLConfig,
    prompt: PromptBatch,
    suffix: SuffixBatch,
    known: Tree,
    split: Split,
    frozen: Tree = None,
) -> Outcome:
    """The loss of B groups of G suffixes and its gradients, computed as `split` says.

    Args:
      objective: a part's share of the loss; shares and sums of parts add up to the whole's.
      params: the model's parameters, or the part of them that is trained.
      model: the model's sizes.
      prompt: the prompts; each has the same number of temporal units (`collate_prompts`).
      suffix: their suffixes.
      known: arrays with leading axes [B, G], which the objective gets beside the scores.
      split: what is worked on at one time.
      frozen: the rest of the parameters (`lora.combine`); None where all are trained.
    """

    def groups(prompt: PromptBatch, part: tuple[SuffixBatch, Tree]) -> Outcome:
        if split.samples is None or split.samples == suffix.tokens.shape[1]:
            return _at_once(objective, params, frozen, model, prompt, *part)
        return _samples_in_turn(objective, params, frozen, model, prompt, *part, split.samples)

    whole = (suffix, known)
    if split.groups is None or split.groups == suffix.tokens.shape[0]:
        return groups(prompt, whole)
    parts = (split_prompts(prompt, model, split.groups), _split_groups(whole, split.groups))
    total, logprob = _added_up(lambda part: _apart(groups(*part)), parts)
    return Outcome(total.loss, total.sums, _join_groups(logprob), total.gradients)


def logprobs(
    params: Tree, model: QwenVLConfig, prompt: PromptBatch, suffix: SuffixBatch, split: Split
) -> Float[Array, "B G S"]:
    """`score(…).logprob` without gradients, computed as `split` says."""

    def groups(part: tuple[PromptBatch, SuffixBatch]) -> Array:
        prompt, suffix = part
        if split.samples is None or split.samples == suffix.tokens.shape[1]:
            return score(params, model, prompt, suffix).logprob
        prefix = run_prompts(params, model, prompt)
        parts = _split_samples(suffix, split.samples)
        return _join_samples(jax.lax.map(lambda part: score_suffixes(params, model, prefix, part).logprob, parts))

    if split.groups is None or split.groups == suffix.tokens.shape[0]:
        return groups((prompt, suffix))
    parts = (split_prompts(prompt, model, split.groups), _split_groups(suffix, split.groups))
    return _join_groups(jax.lax.map(groups, parts))


def split_prompts(prompt: PromptBatch, model: QwenVLConfig, groups: int) -> PromptBatch:
    """Prompts as parts of `groups` each, on a new leading axis; a part's videos go with it.

    Part i takes the prompts i, i + n, i + 2n …: on a mesh, where neighbours share a device, every part has work for
    every device.
    """
    B, (units, patches) = prompt.tokens.shape[0], prompt.video.patches.shape[:2]
    n, per_prompt = B // groups, units // B
    # An index counts the video tokens of the batch that stand before its own; in a part these are fewer.
    b, rows = jnp.arange(B), per_prompt * (patches // model.vision.merge**2)
    index = jnp.where(prompt.video_index >= 0, prompt.video_index - ((b - b // n) * rows)[:, None], -1)
    video = jax.tree.map(lambda x: x.reshape(B, per_prompt, *x.shape[1:]), prompt.video)
    parts = _split_groups(dataclasses.replace(prompt, video_index=index, video=video), groups)
    joined = jax.tree.map(lambda x: x.reshape(n, groups * per_prompt, *x.shape[3:]), parts.video)
    return dataclasses.replace(parts, video=joined)


def _at_once(
    objective: Objective,
    params: Tree,
    frozen: Tree,
    model: QwenVLConfig,
    prompt: PromptBatch,
    suffix: SuffixBatch,
    known: Tree,
) -> Outcome:
    def loss(params):
        scores = score(lora.combine(frozen, params), model, prompt, suffix)
        value, sums = objective(scores, known)
        return value, (sums, scores.logprob)

    (value, (sums, logprob)), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return Outcome(value, sums, logprob, gradients)


def _samples_in_turn(
    objective: Objective,
    params: Tree,
    frozen: Tree,
    model: QwenVLConfig,
    prompt: PromptBatch,
    suffix: SuffixBatch,
    known: Tree,
    samples: int,
) -> Outcome:
    prefix, rest, pull = _differentiable_prefix(params, frozen, model, prompt)

    def part(inputs: tuple[SuffixBatch, Tree]) -> Outcome:
        suffix, known = inputs

        def loss(params, prefix):
            scores = score_suffixes(lora.combine(frozen, params), model, rest(prefix), suffix)
            value, sums = objective(scores, known)
            return value, (sums, scores.logprob)

        (value, (sums, logprob)), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, prefix)
        at_params, at_prefix = gradients
        # In the type of the activations, what later parts add could be lost in rounding.
        wide = jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), at_prefix)
        return Outcome(value, sums, logprob, (at_params, wide))

    total, logprob = _added_up(lambda inputs: _apart(part(inputs)), _split_samples((suffix, known), samples))
    through_suffixes, at_prefix = total.gradients
    (through_prompts,) = pull(jax.tree.map(lambda x, like: x.astype(like.dtype), at_prefix, prefix))
    gradients = jax.tree.map(jnp.add, through_suffixes, through_prompts)
    return Outcome(total.loss, total.sums, _join_samples(logprob), gradients)


def _differentiable_prefix(params: Tree, frozen: Tree, model: QwenVLConfig, prompt: PromptBatch):
    """The prompts' keys, values and last states; what makes a `Prefix` of them; and the way back to the parameters."""

    def states(params):
        prefix = run_prompts(lora.combine(frozen, params), model, prompt)
        return prefix.keys, prefix.values, prefix.last

    def rest(states) -> Prefix:
        keys, values, last = states
        return Prefix(keys, values, prompt.lengths, prompt.next_position, last)

    arrays, pull = jax.vjp(states, params)
    return arrays, rest, pull


def _apart(outcome: Outcome) -> tuple[Outcome, Array]:
    """What is added up over parts, and what is laid side by side."""
    return outcome._replace(logprob=jnp.zeros((), outcome.logprob.dtype)), outcome.logprob


def _added_up(run: Callable[[T], tuple[Outcome, Array]], parts: T) -> tuple[Outcome, Array]:
    """Runs the parts one after the other; only the running sum of their outcomes is kept."""
    first = jax.tree.map(lambda x: x[0], parts)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(run, first)[0])

    def step(total: Outcome, part: T) -> tuple[Outcome, Array]:
        added, logprob = run(part)
        return jax.tree.map(jnp.add, total, added), logprob

    return jax.lax.scan(step, zero, parts)


def _split_groups(tree: T, groups: int) -> T:
    """[B, …] → [n, groups, …], part i with the groups i, i + n, i + 2n …"""
    return jax.tree.map(lambda x: x.reshape(groups, x.shape[0] // groups, *x.shape[1:]).swapaxes(0, 1), tree)


def _join_groups(x: Float[Array, "n groups G S"]) -> Float[Array, "B G S"]:
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])


def _split_samples(tree: T, samples: int) -> T:
    """[B, G, …] → [n, B, samples, …]"""
    return jax.tree.map(
        lambda x: x.reshape(x.shape[0], x.shape[1] // samples, samples, *x.shape[2:]).swapaxes(0, 1), tree
    )


def _join_samples(x: Float[Array, "n B samples S"]) -> Float[Array, "B G S"]:
    n, B, samples = x.shape[:3]
    return x.swapaxes(0, 1).reshape(B, n * samples, *x.shape[3:])
