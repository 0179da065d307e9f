"""MG-GRPO: sample a group of completions per prompt, judge them, and make the better ones likelier.

One step: rollout with the step's parameters → texts → verdicts on answer and trace → multi-grained rewards →
group-relative advantages → one or several policy-gradient updates, with a KL term to the frozen SFT result. Which
loss, and everything that can be set about it: docs/rl.md. Rollout and loss both run each prompt, and its video, once
for the whole group. While the judge works, the device computes the log-probabilities that need no rewards.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from evads_jax.data.chat import stop_ids
from evads_jax.data.loader import make_loader
from evads_jax.data.records import Example
from evads_jax.judge.registry import make_judge
from evads_jax.models import lora
from evads_jax.models.division import Division
from evads_jax.models.qwen_vl import PromptBatch, QwenVLConfig, TokenScores
from evads_jax.processes import gather
from evads_jax.rl import importance, kl
from evads_jax.rl.advantage import Advantages, advantage
from evads_jax.rl.loss import LossSums, denominator, policy_loss
from evads_jax.rl.reward import overlong, shaped
from evads_jax.rl.settings import check
from evads_jax.sampling.config import SamplingConfig
from evads_jax.sampling.rollout import Rollout
from evads_jax.train import completions, judging, optimizer, state, trainable
from evads_jax.train.context import Context
from evads_jax.train.cost import Clock, shares
from evads_jax.train.inputs import PromptsBatch
from evads_jax.train.microbatch import Split, logprobs, value_and_gradients
from evads_jax.train.planned import planned
from evads_jax.train.resampling import Drawn, resample
from evads_jax.train.sampler import Sampler
from evads_jax.train.samples import Known, Samples, keep, narrowed, suffix_of
from evads_jax.train.stage import Learner, Result
from evads_jax.train.state import TrainState

Tree = Any
STAGE = "mg_grpo"


class GRPOLearner(Learner[PromptsBatch]):
    """Group-relative policy optimisation against a judge.

    Args:
      params: where what it trains starts; `initial` copies them, for the reference too, `release` gives them up.
      model: the model's sizes.
      rl: the config section.
      optimizer: from `optimizer.make`.
      rewards: judges a rollout.
      sampling: how completions are sampled.
      folder: the run's folder, where completions are kept.
      division: which prompts of a batch are this process's; default: all.
      frozen: the rest of the policy; None where everything is trained.
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
        division: Division | None = None,
        frozen: Tree = None,
    ):
        check(rl)
        self.frozen = frozen
        self._params, self._model, self._rl, self._optimizer = params, model, rl, optimizer
        self._reference: Tree = None
        self._rewards, self._folder, self._division = rewards, folder, division or Division()
        self._sample = Sampler(model, rl.group, sampling, self._division)
        self._widths = sampling.widths
        self._split = Split(rl.micro_groups, rl.micro_samples)
        self._scored = dataclasses.replace(model, logit_chunk=rl.logit_chunk) if rl.logit_chunk else model
        options = planned(rl.update_hbm_mib) if jax.default_backend() == "tpu" else None
        self.update = jax.jit(self._update, donate_argnums=0, compiler_options=options)
        self.logprobs = jax.jit(
            lambda params, prompt, suffix: logprobs(params, self._scored, prompt, suffix, self._split)
        )
        self.advantage = jax.jit(
            lambda rewards, valid: advantage(
                rewards, valid, rl.scale_advantage, leave_one_out=rl.loss == "rloo", drop_flat=rl.resample_flat > 0
            )
        )
        self._divergence = jax.jit(kl.in_reward)
        self._importance = jax.jit(importance.truncated, static_argnames=("cap", "level"))

    def initial(self) -> TrainState:
        """See `Learner`."""
        if self._rl.kl != "none":
            self._reference = trainable.kept(self._model, self._params)
        return state.create(self._params, self._optimizer.transformation)

    def release(self) -> None:
        """See `Learner`: what the stage began with is not held beside what it makes of it."""
        state.released(self._params)

    def rewind(self, step: int) -> None:
        """See `Learner`."""
        if jax.process_index() == 0:
            completions.rewind(self._folder, STAGE, step)

    def contents(self, batch: PromptsBatch) -> str:
        """See `Learner`: the ids of the questions, of several processes those of this one."""
        whose = f" (of process {jax.process_index()})" if jax.process_count() > 1 else ""
        return "questions " + ", ".join(example.question.id for example in batch.examples) + whose

    def step(self, before: TrainState, batch: PromptsBatch, key: jax.Array) -> tuple[TrainState, dict[str, Any]]:
        """See `Learner`: one rollout and its updates."""
        rl, clock = self._rl, Clock()
        number = int(before.step) // rl.updates_per_rollout + 1
        prompt, ids = self._division.place((batch.prompt, batch.ids))
        policy = lora.combine(self.frozen, before.params)
        drawn, known, resampled = self._draw(policy, prompt, ids, batch.examples, key, clock)
        samples, advantages, judged, weights = self._samples(drawn, known)
        parts = []
        for _ in range(rl.updates_per_rollout):
            before, part = self.update(before, prompt, samples, self.frozen)
            parts.append(part)
        advantages, found = gather(advantages), judged.found
        if rl.keep_completions_every and (number - 1) % rl.keep_completions_every == 0:
            self._keep(number, judged, batch.examples, advantages)
        values = _combined(gather(parts)) | resampled | gather(weights)
        clock.end("update")
        values |= judging.metrics(judged) | _groups(advantages)
        values |= shares(gather(prompt.lengths), found.lengths, batch.prompt.tokens.shape[1], samples.old.shape[-1])
        return before, values | clock.fields

    def _keep(self, number: int, judged: judging.Judged, examples: Sequence[Example], advantages: Advantages) -> None:
        """Writes the completions of a step: those of all processes, by the first."""
        kept = advantages.kept & judged.found.finished if self._rl.mask_truncated else advantages.kept
        places = self._division.numbers if self._division.rows else None
        own = judging.rows(number, judged, examples, np.asarray(advantages.values), np.asarray(kept), places)
        rows = itertools.chain.from_iterable(self._division.collect(own))
        if jax.process_index() == 0:
            completions.write(completions.path_of(self._folder, STAGE, number), list(rows))

    def _draw(
        self,
        params: Tree,
        prompt: PromptBatch,
        ids: jax.Array,
        examples: Sequence[Example],
        key: jax.Array,
        clock: Clock,
    ) -> tuple[Drawn, Known, dict[str, float]]:
        """Samples and judges, and does both again for groups without variance where `resample_flat` says so.

        Log-probabilities are computed while the judge works, but of groups that may be sampled again only when they
        will not be.
        """
        rl = self._rl
        rollout, on_host = self._sample(params, prompt, ids, key, clock)
        judge = self._begin_judging(on_host, examples)
        known = None
        if not rl.resample_flat:
            known = jax.block_until_ready(self._known(params, prompt, rollout))
            clock.end("logprobs")
        drawn = Drawn(rollout, judge())
        clock.end("judge")
        if known is not None:
            return drawn, known, {}
        drawn, metrics = resample(
            drawn, prompt, examples, key, rl.resample_flat,
            draw=lambda prompt, key: self._sample(params, prompt, ids, key, Clock()),
            judge=lambda rollout, examples: self._begin_judging(rollout, examples)(),
            flat=lambda judged: gather(self._advantages(judged).flat), division=self._division,
        )  # fmt: skip
        clock.end("resample")
        known = jax.block_until_ready(self._known(params, prompt, drawn.rollout))
        clock.end("logprobs")
        return drawn, known, metrics

    def _begin_judging(self, rollout: Rollout, examples: Sequence[Example | None]) -> Callable[[], judging.Judged]:
        """Has a rollout judged; the rewards hold the penalty for long completions."""
        rl, finish = self._rl, self._rewards.begin(rollout, examples)
        if not rl.overlong_tokens:
            return finish

        def penalised() -> judging.Judged:
            judged = finish()
            penalty = rl.overlong_weight * overlong(judged.found.lengths, rl.max_new_tokens, rl.overlong_tokens)
            return dataclasses.replace(judged, reward=shaped(judged.reward, penalty))

        return penalised

    def _known(self, params: Tree, prompt: PromptBatch, rollout: Rollout) -> Known:
        """The log-probabilities that the updates need; none of them depends on a reward.

        From here on the completions are padded to the smallest bucket that holds the longest of them.
        """
        longest = int(gather(rollout.lengths).max())
        rollout = narrowed(rollout, next(width for width in self._widths if longest <= width))
        rl, suffix = self._rl, suffix_of(rollout)
        old, sampled, reference = rollout.logprobs, None, None
        if rl.old_logps == "recomputed":
            old, sampled = self.logprobs(params, prompt, suffix), old
        if rl.kl != "none":
            reference = self.logprobs(lora.combine(self.frozen, self._reference), prompt, suffix)
        return Known(suffix, old, sampled, reference)

    def _samples(self, drawn: Drawn, known: Known) -> tuple[Samples, Advantages, judging.Judged, dict[str, Any]]:
        """What the updates learn from, the advantages and final rewards behind it, and further metrics."""
        rl, judged, suffix = self._rl, drawn.judged, known.suffix
        if rl.kl == kl.IN_REWARD:
            divergence = gather(self._divergence(known.old, known.reference, suffix.mask))
            judged = dataclasses.replace(judged, reward=shaped(judged.reward, -rl.kl_weight * divergence))
        advantages = self._advantages(judged)
        suffix = keep(suffix, advantages.kept, drawn.rollout.finished if rl.mask_truncated else None)
        weights, metrics = None, {}
        if known.sampled is not None and rl.importance_cap is not None:
            weights, metrics = self._importance(
                known.old, known.sampled, suffix.mask, cap=rl.importance_cap, level=rl.importance_level
            )
        samples = Samples(suffix, known.old, known.sampled, known.reference, advantages.values, weights)
        return samples, advantages, judged, metrics

    def _advantages(self, judged: judging.Judged) -> Advantages:
        return self.advantage(*self._division.place_whole((judged.reward.total, judged.reward.valid)))

    def _update(
        self, before: TrainState, prompt: PromptBatch, samples: Samples, frozen: Tree = None
    ) -> tuple[TrainState, dict[str, Any]]:
        rl, mask = self._rl, samples.suffix.mask
        whole = denominator(rl.loss, mask, rl.max_new_tokens)

        def objective(scores: TokenScores, part: Samples) -> tuple[jax.Array, LossSums]:
            sums = policy_loss(
                rl.loss, scores.logprob, part.old, part.advantages, part.suffix.mask, max_tokens=rl.max_new_tokens,
                clip_low=rl.clip_low, clip_high=rl.clip_high, dual_clip=rl.dual_clip, cispo_cap=rl.cispo_cap,
                importance=part.importance, reference_logprob=part.reference, kl_name=rl.kl, kl_weight=rl.kl_weight,
                entropy=scores.entropy, entropy_weight=rl.entropy_weight,
            )  # fmt: skip
            return sums.loss / whole, sums

        loss, sums, logprob, gradients = value_and_gradients(
            objective, before.params, self._scored, prompt, samples.suffix, samples, self._split, frozen
        )
        after, metrics = state.apply_gradients(before, self._optimizer.transformation, loss, gradients)
        # With nothing in the loss the optimizer would still move: by its momentum, and by weight decay.
        learned = jax.tree.map(lambda new, old: jnp.where(mask.any(), new, old), after.params, before.params)
        after = dataclasses.replace(after, params=learned)
        sampled = samples.old if samples.sampled is None else samples.sampled
        gap = jnp.where(mask, jnp.abs(logprob - sampled), 0.0)
        metrics |= {"logprob_gap": gap.sum() / jnp.maximum(mask.sum(), 1), "logprob_gap_max": gap.max()}
        return after, metrics | sums.metrics() | {"learning_rate": self._optimizer.schedule(before.step)}


def train_grpo(context: Context, params: Tree) -> Result:
    """The stage `mg_grpo`, for `rl.max_steps` rollouts; its result is the last step's.

    Args:
      context: the experiment.
      params: the SFT result: start and reference; what of it is trained is gone afterwards (`GRPOLearner`).
    """
    config, inputs = context.config, context.inputs()
    rl, tokenizer = config.rl, context.tokenizer
    check(rl)
    division = context.division(rl.batch_prompts, "config.rl.batch_prompts")
    collate = inputs.prompt_collate(rl.batch_prompts, division.numbers)
    batches = make_loader(
        context.sources["rl"], inputs.prompt_transform(config.data.format_rl), collate, batch=rl.batch_prompts,
        unit="question", seed=context.data_seed(STAGE), workers=config.data.workers, rows=division.numbers,
    )  # fmt: skip
    sampling = sampling_config(rl, stop_ids(tokenizer), tokenizer.ids.pad)
    part = context.divide(params, STAGE)
    made = optimizer.make(rl, part.decay_mask, rl.max_steps * rl.updates_per_rollout, part.matrices)
    judge = make_judge(config.judge, config.run.language, context.workdir)
    rewards = judging.RewardFunction(judge, tokenizer, rl, config.run.language, division)
    learner = GRPOLearner(
        part.start, context.model, rl, made, rewards, sampling, context.workdir, division, part.frozen
    )
    stage = context.stage(STAGE, max_steps=rl.max_steps)
    return context.fit(learner, batches, stage, "rl", config.data.format_rl, together=False)


def sampling_config(rl: ConfigDict, stop_ids: tuple[int, ...], pad_id: int) -> SamplingConfig:
    """How rollouts are sampled, by the section `rl` of a config."""
    return SamplingConfig(
        max_new_tokens=rl.max_new_tokens,
        temperature=rl.temperature,
        top_p=rl.top_p,
        stop_ids=stop_ids,
        pad_id=pad_id,
        buckets=tuple(rl.suffix_buckets or ()),
        compact=tuple(rl.compact or ()),
    )


def _combined(parts: list[dict[str, Any]]) -> dict[str, float]:
    """The metrics of a rollout's updates: the gap to the sampler is the first's, the rest are means."""
    values = {name: float(np.mean([part[name] for part in parts], dtype=np.float64)) for name in parts[0]}
    first = {name: float(parts[0][name]) for name in ("logprob_gap", "logprob_gap_max", "tokens")}
    bad = [int(part["first_bad"]) for part in parts if part["first_bad"] >= 0]
    return values | first | {"first_bad": bad[0] if bad else -1}


def _groups(advantages: Advantages) -> dict[str, float]:
    """Shares of groups without variance, and of those that left the loss."""
    return {
        "zero_variance": float(np.mean(advantages.flat)),
        "dropped_groups": float(np.mean(advantages.dropped)),
        "group_std": float(np.nanmean(advantages.std)) if np.isfinite(advantages.std).any() else float("nan"),
    }
