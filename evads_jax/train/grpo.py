"""MG-GRPO: sample a group of completions per prompt, judge them, and make the better ones likelier.

One step: rollout with the step's parameters → texts → verdicts on answer and trace → multi-grained rewards →
group-relative advantages → one or several clipped policy-gradient updates, with a KL term to the frozen SFT result.
Rollout and loss both run each prompt, and its video, once for the whole group.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from ml_collections import ConfigDict

from evads_jax.data.loader import make_loader
from evads_jax.errors import UserError
from evads_jax.judge.registry import make_judge
from evads_jax.models.qwen_vl import PromptBatch, QwenVLConfig, SuffixBatch, decay_mask, score
from evads_jax.rl.advantage import SCALES, Advantages, advantage
from evads_jax.rl.kl import KL
from evads_jax.rl.loss import LOSSES, policy_loss
from evads_jax.rl.reward import GRAINS
from evads_jax.sampling.config import SamplingConfig
from evads_jax.sampling.rollout import Rollout, sample
from evads_jax.train import completions, judging, optimizer, state
from evads_jax.train.context import Context
from evads_jax.train.inputs import PromptsBatch
from evads_jax.train.stage import Learner, Result
from evads_jax.train.state import TrainState

Tree = Any
STAGE = "mg_grpo"


@struct.dataclass
class Rolled:
    """What an update learns from.

    Attributes:
      prompt: the prompts.
      suffix: the completions; the mask holds the real tokens of those that are kept.
      old: their log-probabilities when they were sampled.
      reference: their log-probabilities under the SFT result; None without a KL term.
      advantages: one per completion.
    """

    prompt: PromptBatch
    suffix: SuffixBatch
    old: jax.Array
    reference: jax.Array | None
    advantages: jax.Array


def check(rl: ConfigDict) -> None:
    """Refuses settings that cannot work, before anything is loaded.

    Raises:
      UserError: naming the field.
    """
    known = {"loss": LOSSES, "kl": ("none", *KL), "reward": GRAINS, "scale_advantage": SCALES}
    for field, names in known.items():
        if rl[field] not in names:
            raise UserError(f"unknown {field} {rl[field]!r}", f"config.rl.{field}", "one of " + ", ".join(names))
    for field, least in {"group": 2, "batch_prompts": 1, "updates_per_rollout": 1, "max_new_tokens": 1}.items():
        if rl[field] < least:
            raise UserError(f"{field} must be at least {least}, got {rl[field]}", f"config.rl.{field}")
    if rl.temperature <= 0:
        raise UserError("a group of greedy completions has no variance", "config.rl.temperature", "set it above 0")


class GRPOLearner(Learner[PromptsBatch]):
    """Group-relative policy optimisation against a judge.

    Args:
      params: where it starts, and the frozen reference; they are copied to start from.
      model: the model's sizes.
      rl: the config section.
      optimizer: from `optimizer.make`.
      rewards: judges a rollout.
      sampling: how completions are sampled.
      folder: the run's folder, where completions are kept.
      place: puts a batch on the devices.
    """

    shown = ("reward", "reward_answer", "well_formed", "kl", "entropy", "completion_tokens")

    def __init__(
        self,
        params: Tree,
        model: QwenVLConfig,
        rl: ConfigDict,
        optimizer: optimizer.Optimizer,
        rewards: judging.RewardFunction,
        sampling: SamplingConfig,
        folder: Path,
        place: Callable[[Tree], Tree] = jax.device_put,
    ):
        check(rl)
        self._params, self._model, self._rl, self._optimizer = params, model, rl, optimizer
        self._rewards, self._sampling, self._folder, self._place = rewards, sampling, folder, place
        self.update = jax.jit(self._update, donate_argnums=0)
        self.reference = jax.jit(lambda params, prompt, suffix: score(params, model, prompt, suffix).logprob)
        self.advantage = jax.jit(lambda rewards, valid: advantage(rewards, valid, rl.scale_advantage))

    def initial(self) -> TrainState:
        """See `Learner`."""
        return state.create(self._params, self._optimizer.transformation)

    def rewind(self, step: int) -> None:
        """See `Learner`."""
        completions.rewind(self._folder, STAGE, step)

    def step(self, before: TrainState, batch: PromptsBatch, key: jax.Array) -> tuple[TrainState, dict[str, Any]]:
        """See `Learner`: one rollout and its updates."""
        rl, clock = self._rl, _Phases()
        number = int(before.step) // rl.updates_per_rollout + 1
        prompt = self._place(batch.prompt)
        rollout = sample(before.params, self._model, prompt, batch.ids, rl.group, self._sampling, key)
        on_host = jax.device_get(rollout)
        clock.end("rollout")
        judged = self._rewards(on_host, batch.examples)
        clock.end("judge")
        advantages = self.advantage(judged.reward.total, judged.reward.valid)
        rolled = self._rolled(prompt, rollout, advantages)
        parts = []
        for _ in range(rl.updates_per_rollout):
            before, part = self.update(before, rolled)
            parts.append(part)
        advantages = jax.device_get(advantages)
        if rl.keep_completions_every and (number - 1) % rl.keep_completions_every == 0:
            rows = judging.rows(number, judged, on_host, batch.examples, advantages.values, advantages.kept)
            completions.write(completions.path_of(self._folder, STAGE, number), rows)
        values = _combined(jax.device_get(parts))
        clock.end("update")
        return before, values | judging.metrics(judged, on_host) | _groups(advantages) | clock.seconds

    def _rolled(self, prompt: PromptBatch, rollout: Rollout, advantages: Advantages) -> Rolled:
        real = jnp.arange(rollout.tokens.shape[-1]) < rollout.lengths[..., None]
        suffix = SuffixBatch(tokens=rollout.tokens, lengths=rollout.lengths, mask=real & advantages.kept[..., None])
        reference = None if self._rl.kl == "none" else self.reference(self._params, prompt, suffix)
        return Rolled(prompt, suffix, rollout.logprobs, reference, advantages.values)

    def _update(self, before: TrainState, rolled: Rolled) -> tuple[TrainState, dict[str, Any]]:
        rl, mask = self._rl, rolled.suffix.mask

        def mean_loss(params):
            scores = score(params, self._model, rolled.prompt, rolled.suffix)
            sums = policy_loss(
                rl.loss, scores.logprob, rolled.old, rolled.advantages, mask, max_tokens=rl.max_new_tokens,
                clip_low=rl.clip_low, clip_high=rl.clip_high, reference_logprob=rolled.reference, kl_name=rl.kl,
                kl_weight=rl.kl_weight, entropy=scores.entropy,
            )  # fmt: skip
            return sums.value(), (sums, scores.logprob)

        (loss, (sums, logprob)), gradients = jax.value_and_grad(mean_loss, has_aux=True)(before.params)
        after, metrics = state.apply_gradients(before, self._optimizer.transformation, loss, gradients)
        gap = jnp.where(mask, jnp.abs(logprob - rolled.old), 0.0)
        metrics |= {"logprob_gap": gap.sum() / jnp.maximum(mask.sum(), 1), "logprob_gap_max": gap.max()}
        return after, metrics | sums.metrics() | {"learning_rate": self._optimizer.schedule(before.step)}


def train_grpo(context: Context, params: Tree) -> Result:
    """The stage `mg_grpo`, for `rl.max_steps` rollouts; its result is the last step's.

    Args:
      context: the experiment.
      params: the SFT result: start and reference.
    """
    config, inputs = context.config, context.inputs()
    rl, ids = config.rl, context.tokenizer.ids
    check(rl)
    batches = make_loader(
        context.sources["rl"], inputs.prompt_transform(config.data.format_rl), inputs.prompt_collate(rl.batch_prompts),
        batch=rl.batch_prompts, unit="question", seed=context.data_seed(STAGE), workers=config.data.workers,
    )  # fmt: skip
    sampling = SamplingConfig(
        max_new_tokens=rl.max_new_tokens, temperature=rl.temperature, top_p=rl.top_p, stop_ids=(ids.im_end,),
        pad_id=ids.pad,
    )  # fmt: skip
    made = optimizer.make(rl, decay_mask(context.model), rl.max_steps * rl.updates_per_rollout)
    judge = make_judge(config.judge, config.run.language, context.workdir)
    rewards = judging.RewardFunction(judge, context.tokenizer, rl, config.run.language)
    learner = GRPOLearner(params, context.model, rl, made, rewards, sampling, context.workdir, context.place)
    stage = context.stage(STAGE, max_steps=rl.max_steps)
    return context.fit(learner, batches, stage, "rl", config.data.format_rl, together=False)


class _Phases:
    """Seconds of the phases of a step."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def end(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[f"seconds_{phase}"], self._began = now - self._began, now


def _combined(parts: list[dict[str, Any]]) -> dict[str, float]:
    """The metrics of a rollout's updates: the gap to the sampler is the first's, the rest are means."""
    values = {name: float(np.mean([part[name] for part in parts], dtype=np.float64)) for name in parts[0]}
    first = {name: float(parts[0][name]) for name in ("logprob_gap", "logprob_gap_max", "tokens")}
    bad = [int(part["first_bad"]) for part in parts if part["first_bad"] >= 0]
    return values | first | {"first_bad": bad[0] if bad else -1}


def _groups(advantages: Advantages) -> dict[str, float]:
    """Shares of groups without variance and of dropped ones."""
    return {
        "zero_variance": float(np.mean(advantages.flat)),
        "dropped_groups": float(np.mean(advantages.dropped)),
        "group_std": float(np.nanmean(advantages.std)) if np.isfinite(advantages.std).any() else float("nan"),
    }
