"""Supervised fine-tuning on `<think>clues</think>` `<answer>answer</answer>`, and its continuation as a control.

A batch holds videos. The questions of a video share its prompt up to the question, which is run once; question,
closing and target follow as suffixes. The loss is the mean negative log-probability of all completion tokens of the
batch (each token weighs the same, whatever its completion's length), never of a prompt's.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from evads_jax.data.loader import make_loader
from evads_jax.errors import UserError
from evads_jax.models import lora
from evads_jax.models.qwen_vl import QwenVLConfig, score
from evads_jax.train import optimizer, state
from evads_jax.train.context import Context
from evads_jax.train.cost import shares
from evads_jax.train.inputs import SFTBatch
from evads_jax.train.stage import Learner, Result, Stage
from evads_jax.train.state import TrainState

Tree = Any


class SFTLearner(Learner[SFTBatch]):
    """Minimises the negative log-probability of completions.

    Args:
      params: where what it trains starts; `initial` copies them, `release` gives them up.
      model: the model's sizes.
      optimizer: from `optimizer.make`.
      validation: makes an iterator over the validation batches; None: no validation.
      place: puts a batch, or this process's rows of it, on the devices.
      frozen: the rest of the policy; None where everything is trained.
    """

    shown = ("loss", "grad_norm", "learning_rate")

    def __init__(
        self,
        params: Tree,
        model: QwenVLConfig,
        optimizer: optimizer.Optimizer,
        validation: Callable[[], Iterator[SFTBatch]] | None = None,
        place: Callable[[Tree], Tree] = jax.device_put,
        frozen: Tree = None,
    ):
        self._params, self._model, self._optimizer, self.frozen = params, model, optimizer, frozen
        self._validation, self._place = validation, place
        self.update = jax.jit(self._update, donate_argnums=0)
        self.sums = jax.jit(self._sums)

    def initial(self) -> TrainState:
        """See `Learner`."""
        return state.create(self._params, self._optimizer.transformation)

    def release(self) -> None:
        """See `Learner`: what the stage began with is not held beside what it makes of it."""
        state.released(self._params)

    def step(self, before: TrainState, batch: SFTBatch, key: jax.Array) -> tuple[TrainState, dict[str, Any]]:
        """See `Learner`; nothing is random here but the order of the data."""
        return self.update(before, self._place(batch), self.frozen)

    def validate(self, now: TrainState) -> dict[str, Any]:
        """The loss over all completion tokens of the validation videos, and how many there are."""
        if self._validation is None:
            return {}
        total: Any = 0.0
        tokens: Any = 0.0
        for batch in self._validation():
            one, count = self.sums(now.params, self._place(batch), self.frozen)
            total, tokens = total + one, tokens + count
        if not float(tokens):
            raise UserError("the validation videos have no question that fits", "config.data.suffix_tokens", "raise it")
        return {"loss": total / tokens, "tokens": tokens}

    def _sums(self, params: Tree, batch: SFTBatch, frozen: Tree = None) -> tuple[jax.Array, jax.Array]:
        scores = score(lora.combine(frozen, params), self._model, batch.prompt, batch.suffix)
        return -jnp.sum(scores.logprob), jnp.sum(batch.suffix.mask).astype(jnp.float32)

    def _loss(self, params: Tree, batch: SFTBatch, frozen: Tree) -> tuple[jax.Array, dict[str, jax.Array]]:
        """What is minimised, and what else is told of a step."""
        total, tokens = self._sums(params, batch, frozen)
        return total / jnp.maximum(tokens, 1.0), {"tokens": tokens}

    def _update(self, before: TrainState, batch: SFTBatch, frozen: Tree = None) -> tuple[TrainState, dict[str, Any]]:
        (loss, told), gradients = jax.value_and_grad(self._loss, has_aux=True)(before.params, batch, frozen)
        after, metrics = state.apply_gradients(before, self._optimizer.transformation, loss, gradients)
        rate = self._optimizer.schedule(before.step)
        prompt, suffix = batch.prompt, batch.suffix
        # Here, and not on the host, which has only its own rows of the batch.
        held = shares(prompt.lengths, suffix.lengths, prompt.tokens.shape[1], suffix.tokens.shape[2])
        return after, {"loss": loss, "learning_rate": rate, **told, **metrics, **held}


def train_sft(context: Context, params: Tree) -> Result:
    """The stage `sft`: until the validation loss stops falling; its result is the best by that loss.

    Args:
      context: the experiment.
      params: where it starts.
    """
    sft = context.config.sft
    stage = context.stage("sft", max_steps=sft.max_steps, validate_every=sft.validate_every, patience=sft.patience)
    return _train(context, params, stage, sft.max_steps, "sft")


def train_control(context: Context, params: Tree, *, steps: int, split: str = "sft") -> Result:
    """The stage `control`: SFT continued from the SFT result.

    It does not stop early, and the optimizer starts afresh as MG-GRPO's does; its result is the last step's, as for
    MG-GRPO. Validation only looks on. Its learning rate is that of SFT over so many steps: where SFT decays to zero, so
    does the control.

    Args:
      context: the experiment.
      params: the SFT result.
      steps: ends after so many steps.
      split: the split whose questions it learns.
    """
    stage = context.stage("control", max_steps=steps, validate_every=context.config.sft.validate_every)
    return _train(context, params, stage, steps, split)


def _train(context: Context, params: Tree, stage: Stage, steps: int, split: str) -> Result:
    config, inputs = context.config, context.inputs()
    sft = config.sft
    division = context.division(sft.batch_videos, "config.sft.batch_videos")
    transform = inputs.sft_transform(sft.questions_per_video)
    collate = inputs.sft_collate(sft.batch_videos, sft.questions_per_video, division.numbers)

    def loader(split: str, training: bool) -> Any:
        return make_loader(
            context.sources[split], transform, collate, batch=sft.batch_videos, unit="video",
            seed=context.data_seed(stage.name), shuffle=training, epochs=None if training else 1,
            workers=config.data.workers if training else 0, rows=division.numbers, drop_remainder=training,
        )  # fmt: skip

    part = context.divide(params, stage.name)
    made = optimizer.make(sft, part.decay_mask, steps, part.matrices)
    validation = functools.partial(loader, "validation", False)
    learner = SFTLearner(part.start, context.model, made, validation, division.place, part.frozen)
    return context.fit(learner, loader(split, True), stage, split, config.data.format_sft, together=True)
