"""The rollout of a training step, as two programs, prefill and decode, so that the time of each can be told."""

import dataclasses
import functools

import jax
from jaxtyping import ArrayLike, Int

from evads_jax.models.division import Division
from evads_jax.models.qwen_vl import Prefix, PromptBatch, QwenVLConfig
from evads_jax.models.qwen_vl.parameters import Params
from evads_jax.models.qwen_vl.scoring import run_prompts
from evads_jax.processes import gather
from evads_jax.sampling.config import SamplingConfig
from evads_jax.sampling.rollout import Rollout, continue_prompts
from evads_jax.train.cost import Clock

# The second program: `continue_prompts` of what `prefill` left.
decode = jax.jit(continue_prompts, static_argnames=("config", "G", "sampling"))


@functools.partial(jax.jit, static_argnames="config")
def prefill(params: Params, config: QwenVLConfig, prompt: PromptBatch) -> Prefix:
    """The first program: runs the prompts, and leaves keys and values by layer, as decoding takes them.

    As a stack they would stay beside the parts that decoding makes of it.

    Args:
      params: the policy.
      config: its sizes.
      prompt: the prompts.
    """
    prefix = run_prompts(params, config, prompt)
    keys, values = (tuple(x[i] for i in range(config.layers)) for x in (prefix.keys, prefix.values))
    return dataclasses.replace(prefix, keys=keys, values=values)


class Sampler:
    """Samples groups of completions; the same tokens as `sampling.rollout.sample`.

    Args:
      model: the model's sizes.
      group: G, samples per prompt.
      sampling: how tokens are chosen.
      division: which prompts are this process's; default: all.
    """

    def __init__(self, model: QwenVLConfig, group: int, sampling: SamplingConfig, division: Division | None = None):
        self._model, self._group, self._sampling = model, group, sampling
        self._division = division or Division()

    def __call__(
        self, params: Params, prompt: PromptBatch, ids: Int[ArrayLike, " B"], key: jax.Array, clock: Clock
    ) -> tuple[Rollout, Rollout]:
        """Samples; the arguments are those of `sample`.

        Args:
          params: the policy.
          prompt: the prompts, on the device.
          ids: a number per prompt, that is its own; of all prompts.
          key: PRNG key of this rollout.
          clock: told of the phases `prefill` and `decode`, of both as `rollout`, and of the tokens sampled a second.

        Returns:
          The rollout on the device, and this process's part of it on the host.
        """
        prefix = jax.block_until_ready(prefill(params, self._model, prompt))
        clock.end("prefill")
        rollout = decode(params, self._model, prefix, ids, self._group, self._sampling, key)
        on_host, lengths = self._division.fetch(rollout), gather(rollout.lengths)
        clock.end("decode")
        told = clock.fields
        told["seconds_rollout"] = told["seconds_prefill"] + told["seconds_decode"]
        told["sampled_tokens_per_second"] = float(lengths.sum()) / told["seconds_decode"]
        return rollout, on_host
