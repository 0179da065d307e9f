"""How a judge learns: from the verdict and, beside it, from what it is to know of each value that a candidate names.

A verdict takes three steps for every value: find what the script has in its place, compare, and weigh. A verdict is one
number for all of them, and a model that starts from nothing finds none of the steps by it. So each gets its layers.
At the token with which a named value ends, the state after `named` layers predicts what the script's value is called,
and the state after `compared` layers whether it is the one that stands there; both must be in one token's state, in
this order, for a layer to compare them. The layers above weigh. A judge in use computes none of these predictions.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from evads_jax.models import qwen_vl
from evads_jax.models.qwen_vl import QwenVLConfig
from evads_jax.models.qwen_vl.scoring import run_prompts, token_scores
from evads_jax.train import optimizer
from evads_jax.train.inputs import SFTBatch
from evads_jax.train.judge_inputs import VALUE_TOKENS, MarkedBatch
from evads_jax.train.sft import SFTLearner
from evads_jax.train.state import TrainState

Tree = Any


@dataclasses.dataclass(frozen=True)
class Marks:
    """Where and how much of a `MarkedBatch` is learned beside the verdict.

    Attributes:
      weight: of both losses of the marks.
      named: layers after which the name of the script's value is predicted.
      compared: layers after which it is predicted whether a value is the script's.
      tokens: what is predicted for another value, and for the script's.
    """

    weight: float
    named: int
    compared: int
    tokens: tuple[int, int]


class JudgeLearner(SFTLearner):
    """Minimises the mean negative log-probability of what a batch scores, and of its marks where it has any.

    With marks it is verdict + weight · (named + compared): the mean over the labels' tokens, the mean over the values
    named, and the mean of the means over those that are the script's and over those that are not.

    Args:
      params: where it starts; they are copied.
      model: the model's sizes.
      optimizer: from `optimizer.make`.
      look: parameters → metrics on validation examples, of which `loss` may stop the stage.
      marks: how a `MarkedBatch` is learned from.
    """

    def __init__(
        self,
        params: Tree,
        model: QwenVLConfig,
        optimizer: optimizer.Optimizer,
        look: Callable[[Tree], dict[str, Any]],
        marks: Marks | None = None,
    ):
        super().__init__(params, model, optimizer)
        self._look, self._marks = look, marks

    def validate(self, now: TrainState) -> dict[str, Any]:
        """See `Learner`."""
        return self._look(now.params)

    def _loss(self, params: Tree, batch: SFTBatch, frozen: Tree) -> tuple[jax.Array, dict[str, jax.Array]]:
        marks, model = self._marks, self._model
        if marks is None or not isinstance(batch, MarkedBatch):
            return super()._loss(params, batch, frozen)
        prefix = run_prompts(params, model, batch.prompt)
        layers = (marks.named, marks.compared, model.layers)
        states = qwen_vl.extend_through(params, model, prefix, batch.suffix.tokens, layers)

        def logprob(states: Float[Array, "B G S D"], at: Int[Array, "B G M"], token: Int[Array, "B G M"]) -> Array:
            """Of tokens, predicted by the states at some places alone: most places predict nothing."""
            rows = jnp.take_along_axis(states, at[..., None], axis=2).reshape(-1, model.width)
            return token_scores(params, model, rows, token.reshape(-1))[0].reshape(at.shape)

        counted, at = jax.lax.top_k(batch.suffix.mask.astype(jnp.int32), VALUE_TOKENS)
        verdicts = logprob(states[2], jnp.maximum(at - 1, 0), jnp.take_along_axis(batch.suffix.tokens, at, axis=2))
        there, place = batch.places >= 0, jnp.maximum(batch.places, 0)
        named = logprob(states[0], place, batch.names)
        compared = logprob(states[1], place, jnp.asarray(marks.tokens)[batch.right.astype(jnp.int32)])
        parts = {
            "verdict": _mean(-verdicts, counted > 0),
            "named": _mean(-named, there),
            "compared": (_mean(-compared, there & batch.right) + _mean(-compared, there & ~batch.right)) / 2,
        }
        loss = parts["verdict"] + marks.weight * (parts["named"] + parts["compared"])
        return loss, parts | {"tokens": jnp.sum(batch.suffix.mask).astype(jnp.float32)}


def _mean(values: Array, of: Array) -> Array:
    """The mean of some values; 0 of none."""
    return jnp.sum(values, where=of) / jnp.maximum(jnp.sum(of), 1)
