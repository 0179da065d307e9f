"""G samples for each of B prompts: encode the videos once, prefill once, decode all samples together."""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from evads_jax.models.qwen_vl import Prefix, PromptBatch, QwenVLConfig
from evads_jax.models.qwen_vl.parameters import Params
from evads_jax.models.qwen_vl.scoring import run_prompts
from evads_jax.sampling.cache import KVCache
from evads_jax.sampling.config import SamplingConfig
from evads_jax.sampling.decode import decode


@struct.dataclass
class Rollout:
    """The samples.

    Attributes:
      tokens: sampled ids, the pad id beyond `lengths`.
      lengths: tokens of each sample, its stop token included; 0 for an absent prompt (one of length 0).
      logprobs: log-probability of each token under the model itself, equal to `qwen_vl.score`'s; 0 beyond `lengths`.
      finished: whether the sample ended with a stop token, not by running out of room.
    """

    tokens: Int[Array, "B G S"]
    lengths: Int[Array, "B G"]
    logprobs: Float[Array, "B G S"]
    finished: Bool[Array, "B G"]


@functools.partial(jax.jit, static_argnames=("config", "G", "sampling"))
def sample(
    params: Params,
    config: QwenVLConfig,
    prompts: PromptBatch,
    prompt_ids: Int[Array, " B"],
    G: int,
    sampling: SamplingConfig,
    key: Array,
) -> Rollout:
    """Samples G completions per prompt.

    Sample g of prompt i is drawn with fold_in(fold_in(key, prompt_ids[i]), g): it depends neither on the other
    prompts of the batch, nor on the padding, nor on S.

    Args:
      params: the model's parameters.
      config: the model's sizes.
      prompts: the prompts; one of length 0 is padding and gets empty samples.
      prompt_ids: a number per prompt, that is its own.
      G: samples per prompt.
      sampling: how tokens are chosen, and S.
      key: PRNG key of this rollout.
    """
    return continue_prompts(params, config, run_prompts(params, config, prompts), prompt_ids, G, sampling, key)


def continue_prompts(
    params: Params,
    config: QwenVLConfig,
    prefix: Prefix,
    prompt_ids: Int[Array, " B"],
    G: int,
    sampling: SamplingConfig,
    key: Array,
) -> Rollout:
    """The second half of `sample`: decodes from prompts that were run.

    Args:
      params: the model's parameters.
      config: the model's sizes.
      prefix: the prompts, from `run_prompts`.
      prompt_ids: as in `sample`.
      G: samples per prompt.
      sampling: how tokens are chosen, and S.
      key: PRNG key of this rollout.
    """
    cache = KVCache.create(config, prefix, G, sampling.widths[0])
    keys = jax.vmap(lambda i: jax.vmap(lambda g: jax.random.fold_in(jax.random.fold_in(key, i), g))(jnp.arange(G)))
    out = decode(params, config, sampling, cache, prefix.last, keys(prompt_ids), prefix.lengths == 0)
    return Rollout(out.tokens, out.lengths, out.logprobs, out.done)
