"""The key/value cache of a group of samples: the prompt's part once per prompt, each sample's own part beside it."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from evads_jax.models.qwen_vl import Prefix, QwenVLConfig


@struct.dataclass
class KVCache:
    """What decoding has computed so far. Decoding runs the layers unrolled, so each has arrays of its own.

    Attributes:
      prompt_keys: per layer, keys of the prompts; shared by the G samples of a prompt.
      prompt_values: per layer, values of the prompts.
      lengths: real tokens of each prompt.
      next_position: the position of the first sampled token.
      keys: per layer, keys of the sampled tokens; places not yet sampled are zero.
      values: per layer, values of the sampled tokens.
    """

    prompt_keys: tuple[Float[Array, "B K T H"], ...]
    prompt_values: tuple[Float[Array, "B K T H"], ...]
    lengths: Int[Array, " B"]
    next_position: Int[Array, " B"]
    keys: tuple[Float[Array, "B K G S H"], ...]
    values: tuple[Float[Array, "B K G S H"], ...]

    @classmethod
    def create(cls, config: QwenVLConfig, prefix: Prefix, G: int, S: int) -> "KVCache":
        """A cache with room for S tokens of G samples per prompt."""
        prompt_keys, prompt_values = (tuple(x[i] for i in range(config.layers)) for x in (prefix.keys, prefix.values))
        B, K, _, H = prompt_keys[0].shape
        empty = tuple(jnp.zeros((B, K, G, S, H), prompt_keys[0].dtype) for _ in range(config.layers))
        return cls(prompt_keys, prompt_values, prefix.lengths, prefix.next_position, empty, empty)

    def widened(self, S: int) -> "KVCache":
        """The cache with room for S tokens, at least as many as it has now."""

        def pad(stack: tuple[Array, ...]) -> tuple[Array, ...]:
            return tuple(jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, S - x.shape[3]), (0, 0))) for x in stack)

        return dataclasses.replace(self, keys=pad(self.keys), values=pad(self.values))

    def only(self, chosen: Int[Array, " n"]) -> "KVCache":
        """The cache of some samples, by their numbers b·G + g: n prompts of one sample each."""
        G = self.keys[0].shape[2]
        prompts = chosen // G

        def own(stack: tuple[Array, ...]) -> tuple[Array, ...]:
            return tuple(x[prompts, :, chosen % G][:, :, None] for x in stack)

        return KVCache(
            prompt_keys=tuple(x[prompts] for x in self.prompt_keys),
            prompt_values=tuple(x[prompts] for x in self.prompt_values),
            lengths=self.lengths[prompts],
            next_position=self.next_position[prompts],
            keys=own(self.keys),
            values=own(self.values),
        )

    def write(self, layer: int, step: jax.Array, k: Array, v: Array) -> "KVCache":
        """The cache with one more token's keys and values [B, K, G, 1, H] in one layer."""

        def put(stack: tuple[Array, ...], new: Array) -> tuple[Array, ...]:
            written = jax.lax.dynamic_update_slice_in_dim(stack[layer], new, step, axis=3)
            return (*stack[:layer], written, *stack[layer + 1 :])

        return dataclasses.replace(self, keys=put(self.keys, k), values=put(self.values, v))
