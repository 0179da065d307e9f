"""What a step must cost at least: its arithmetic and its traffic, over what this machine was seen to do at best."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.command import fastest
from evads_jax.models.qwen_vl import QwenVLConfig, abstract

_SIDE, _FLOATS = 2048, 1 << 26


class Cost(NamedTuple):
    """Floating-point operations, and bytes that are read or written."""

    flops: float
    bytes: float


def peaks(rounds: int = 5) -> dict[str, float]:
    """`flops` a second in a large float32 product, the better of JAX's and NumPy's, and `bytes` a second in a sum.

    The bytes are those read and written by adding a number to 256 MB, in place: new pages cost more than a pass.
    """
    a = np.random.default_rng(0).random((_SIDE, _SIDE), np.float32)
    on_device, x = jnp.asarray(a), jnp.zeros(_FLOATS, jnp.float32)
    multiply, add = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1, donate_argnums=0)

    def add_in_place() -> None:
        nonlocal x
        x = add(x).block_until_ready()

    forms: list[Callable[[], object]] = [lambda: a @ a, lambda: multiply(on_device, on_device).block_until_ready()]
    product = min(fastest(form, rounds + 1) for form in forms)
    return {
        "flops": 2 * _SIDE**3 / product,
        "bytes": 8 * _FLOATS / fastest(add_in_place, rounds + 1),
    }


def floors(config: QwenVLConfig, lengths: Sequence[int], G: int, S: int) -> dict[str, Cost]:
    """What each phase of a step on text cannot do without, every prompt run once.

    Products count 2 operations per element of the matrix and row; of attention, the pairs of tokens that see each
    other; of the last layer, what later tokens read of a prompt (keys and values). Nothing follows a completion's last
    token, so that it is not run. A backward pass is twice a forward pass. Decoding reads the decoder, and all keys and
    values, once for every new token that is run, the head once for every new token.

    Args:
      config: the model's sizes.
      lengths: tokens of each prompt.
      G: completions per prompt.
      S: tokens of each.
    """
    D, L, heads = config.width, config.layers, config.heads * config.head_width
    cached = config.kv_heads * config.head_width
    layer = D * (heads + 2 * cached) + heads * D + 3 * D * config.mlp_width
    tokens, completions, run = sum(lengths), len(lengths) * G, S - 1
    linear = 2 * tokens * ((L - 1) * layer + 2 * D * cached)
    prompts = linear + 4 * heads * (L - 1) * sum(T * (T + 1) / 2 for T in lengths)
    own = completions * run * (run + 1) / 2
    new = 2 * completions * run * L * layer + 4 * heads * L * (G * run * tokens + own)
    head = 2 * completions * S * D * config.vocabulary
    decoder = 4.0 * sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract(config)["text"]["layers"]))
    table, per_token = 4.0 * D * config.vocabulary, 8.0 * cached * L
    return {
        "prefill": Cost(prompts, decoder + per_token * tokens),
        "decode": Cost(new + head, run * (decoder + per_token * tokens) + per_token * own + S * table),
        "update": Cost(3 * (prompts + new + head), 3 * (decoder + table)),
    }


def seconds(cost: Cost, peak: dict[str, float]) -> float:
    """The least time: that of the arithmetic or of the traffic, whichever is longer."""
    return max(cost.flops / peak["flops"], cost.bytes / peak["bytes"])
