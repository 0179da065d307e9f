"""The evads_jax side of the benchmarks: a GRPO step, or a rollout, by the functions that training calls.

Run by `benchmarks.sides`. A step is what `GRPOLearner.step` does between two batches, without the judge and the files:
rollout (`train.sampler.Sampler`), rewards (drawn, in no time), advantages, loss, gradients and update
(`GRPOLearner.update`).
"""

import dataclasses
import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.decoder import VL, Sizes, Work
from benchmarks.sides import ROOT, Channel
from evads_jax.models import qwen_vl
from evads_jax.models.qwen_vl import QwenVLConfig
from evads_jax.models.qwen_vl.checkpoint import load_parameters, read_config
from evads_jax.models.qwen_vl.parameters import Params
from evads_jax.sampling import SamplingConfig
from evads_jax.train import optimizer
from evads_jax.train.cost import Clock
from evads_jax.train.grpo import GRPOLearner
from evads_jax.train.sampler import Sampler
from evads_jax.train.samples import Samples, keep, suffix_of

PHASES = ("prefill", "decode", "reward", "update")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a step is computed.

    Attributes:
      micro_groups: prompts at one time in the update; None: all.
      naive: every completion with a copy of its prompt, as if prompts were not shared.
    """

    micro_groups: int | None = None
    naive: bool = False

    @property
    def name(self) -> str:
        """For tables."""
        return f"{'all' if self.micro_groups is None else self.micro_groups} at a time"


def load(folder: str | None, sizes: Sizes) -> tuple[Params, QwenVLConfig]:
    """The parameters and sizes of the checkpoint that `write_checkpoints` wrote; without one, drawn parameters."""
    if folder is None:
        config = sizes.config()
        return qwen_vl.init(config, jax.random.key(0)), config
    config = dataclasses.replace(read_config(Path(folder) / VL), scan_layers=False)
    return load_parameters(Path(folder) / VL, config), config


class Steps:
    """GRPO steps on the same prompts over and over.

    Args:
      params: the policy to start from.
      config: its sizes.
      work: prompts and lengths.
      settings: how they are computed.
    """

    def __init__(self, params: Params, config: QwenVLConfig, work: Work, settings: Settings):
        copies, samples = (work.group, 1) if settings.naive else (1, work.group)
        self._shape, rows = (work.prompts, work.group), work.prompts * copies
        prompts = [prompt for prompt in work.drawn(config) for _ in range(copies)]
        self._prompt = place(work.batch(prompts, config))
        self._ids = np.arange(rows, dtype=np.int32)
        rl = runpy.run_path(str(ROOT / "configs" / "mg_grpo.py"))["get_config"]().rl
        rl.update(
            loss="grpo", kl="none", batch_prompts=rows, group=max(work.group, 2), max_new_tokens=work.new,
            optimizer="adamw", learning_rate=1e-6, warmup_steps=0, weight_decay=0.0, clip_norm=1.0,
            micro_groups=settings.micro_groups, logit_chunk=256,
        )  # fmt: skip
        sampling = SamplingConfig(work.new)  # no stop id: every completion has its full length
        made = optimizer.make(rl, qwen_vl.decay_mask(config), 10**6)
        self._learner = GRPOLearner(params, config, rl, made, None, sampling, ROOT)  # type: ignore[arg-type]
        self._sampler = Sampler(config, samples, sampling)
        self._state, self._draw, self._key = place(self._learner.initial()), np.random.default_rng(3), jax.random.key(0)

    def step(self) -> dict[str, float]:
        """Seconds of each phase."""
        clock = Clock()
        self._key, key = jax.random.split(self._key)
        rollout, _ = self._sampler(self._state.params, self._prompt, self._ids, key, clock)
        rewards = self._draw.random(self._shape, np.float32)
        advantages = self._learner.advantage(rewards, np.ones(self._shape, bool))
        values, kept = (x.reshape(rollout.lengths.shape) for x in (advantages.values, advantages.kept))
        samples = Samples(keep(suffix_of(rollout), kept, None), rollout.logprobs, None, None, values, None)
        clock.end("reward")
        self._state, metrics = self._learner.update(self._state, self._prompt, samples, None)
        jax.block_until_ready(self._state)
        clock.end("update")
        if self._shape[1] > 1 and not np.isfinite(metrics["loss"]):
            raise FloatingPointError("the loss is not finite")
        return {phase: clock.fields[f"seconds_{phase}"] for phase in PHASES}


class Rollouts:
    """The same for sampling alone."""

    def __init__(self, params: Params, config: QwenVLConfig, work: Work, settings: Settings):
        self._params, self._prompt = place(params), place(work.batch(work.drawn(config), config))
        self._sampler = Sampler(config, work.group, SamplingConfig(work.new))
        self._ids, self._key = np.arange(work.prompts, dtype=np.int32), jax.random.key(0)

    def step(self) -> dict[str, float]:
        """Seconds of each phase."""
        clock = Clock()
        self._key, key = jax.random.split(self._key)
        _, on_host = self._sampler(self._params, self._prompt, self._ids, key, clock)
        assert on_host.lengths.min() == on_host.tokens.shape[-1]
        return {phase: clock.fields[f"seconds_{phase}"] for phase in PHASES[:2]}


def place(tree: Any) -> Any:
    """Arrays committed to the device, as those are that a step gives back: otherwise the second step compiles again."""
    return jax.device_put(tree, jax.devices()[0])


def checked(params: Params, config: QwenVLConfig, work: Work) -> list[float]:
    """The log-probabilities that all sides must agree on."""
    one = dataclasses.replace(work, prompts=1)
    prompt = one.batch(work.drawn(config)[:1], config)
    score = jax.jit(qwen_vl.score, static_argnums=1)
    return jnp.ravel(score(params, config, prompt, work.checked_suffix(config.vocabulary)).logprob).tolist()


def main(spec: dict[str, Any]) -> None:
    """One side."""
    channel = Channel()
    work = Work(**spec["work"])
    params, config = load(spec.get("folder"), Sizes(**spec["sizes"]))
    made = {"step": Steps, "rollout": Rollouts}[spec["kind"]](
        params, config, work, Settings(**spec.get("settings", {}))
    )
    channel.say(logprobs=checked(params, config, work))
    while True:
        channel.hear()
        begin = time.perf_counter()
        phases = made.step()
        channel.say(seconds=time.perf_counter() - begin, **phases)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
