"""Truncated importance weights: what the sampler drew from, against what the trainer computes.

Sampler and trainer evaluate the same parameters in different programs (other shapes, other kernels, other precision),
so their log-probabilities differ. With the old log-probabilities recomputed by the trainer the loss's ratio begins at
1, up to what its programs with and without gradients round differently, and the gap is a weight of its own,

    w = min(π_recomputed / π_sampler, C)

truncated from above, so that it corrects without ever blowing up (TIS; TRL's `vllm_importance_sampling_correction`,
verl's rollout correction). With the sampler's own log-probabilities as the old ones the ratio holds the gap already.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

LEVELS = ("token", "sequence")


def truncated(
    recomputed: Float[jax.Array, "B G S"],
    sampled: Float[jax.Array, "B G S"],
    mask: Bool[jax.Array, "B G S"],
    cap: float,
    level: str = "token",
) -> tuple[Float[jax.Array, "B G S"], dict[str, Float[jax.Array, ""]]]:
    """The weights, and how they look.

    Args:
      recomputed: log-probabilities of the trainer under the parameters that sampled.
      sampled: the sampler's.
      mask: the tokens that count; what stands elsewhere does not matter.
      cap: C, the largest weight.
      level: `token`: each token has its ratio; `sequence`: all tokens of a completion have the completion's ratio, the
        product of its tokens'.

    Returns:
      The weights, 1 outside the mask; and, over the masked tokens, `importance_mean` and `importance_capped`: the mean
      weight and the share of truncated ones.

    Raises:
      ValueError: an unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"unknown level {level!r}; known: {', '.join(LEVELS)}")
    log_ratio = jnp.where(mask, recomputed, 0.0) - jnp.where(mask, sampled, 0.0)
    if level == "sequence":
        log_ratio = jnp.broadcast_to(jnp.sum(log_ratio, axis=-1, keepdims=True), log_ratio.shape)
    ratio = jnp.exp(log_ratio)
    weights = jnp.where(mask, jnp.minimum(ratio, cap), 1.0)
    tokens = jnp.maximum(jnp.sum(mask), 1).astype(jnp.float32)
    return weights, {
        "importance_mean": jnp.sum(jnp.where(mask, weights, 0.0)) / tokens,
        "importance_capped": jnp.sum(mask & (ratio > cap)) / tokens,
    }
