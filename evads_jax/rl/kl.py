"""Per-token estimators of the Kullback-Leibler divergence to a reference, and what each does as a loss.

With x drawn from the policy π, r = π_ref(x) / π(x) (Schulman, «Approximating KL divergence», 2020):

| name | estimate      | expectation under π | gradient, as a loss on samples of π                                |
|------|---------------|---------------------|--------------------------------------------------------------------|
| k1   | −log r        | KL(π ‖ π_ref)       | ∇log π: zero in expectation. It moves nothing but noise.           |
| k2   | ½ (log r)²    | second-order close  | −log r · ∇log π: in expectation exactly ∇KL(π ‖ π_ref), the reverse |
| k3   | r − 1 − log r | KL(π ‖ π_ref)       | (1 − r) · ∇log π: in expectation ∇KL(π_ref ‖ π), the forward       |

So the best estimator of the value is not the one with the right gradient: k3 (GRPO's choice) reads the reverse
divergence and descends the forward one; k2 descends what k1 and k3 estimate. This holds on policy, that is for the
first update after a rollout; later updates use the same per-token terms without importance weights, as TRL does.

`k1_in_reward` takes the divergence out of the loss and into the reward, `r_i − β Σ_s k1`, with the log-probabilities of
the rollout. There k1 does have a gradient, through the advantage: k1 · ∇log π, on policy in expectation exactly the
reverse one, ∇KL(π ‖ π_ref); of whole completions with the loss `rloo` and advantages of scale `none`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

IN_REWARD = "k1_in_reward"


def k1(logprob: Float[jax.Array, "..."], reference: Float[jax.Array, "..."]) -> Float[jax.Array, "..."]:
    """`−log r`; unbiased, may be negative; gradient zero in expectation."""
    return logprob - reference


def k2(logprob: Float[jax.Array, "..."], reference: Float[jax.Array, "..."]) -> Float[jax.Array, "..."]:
    """`½ (log r)²`; biased, never negative; its gradient is that of the reverse divergence KL(π ‖ π_ref)."""
    return 0.5 * (logprob - reference) ** 2


def k3(logprob: Float[jax.Array, "..."], reference: Float[jax.Array, "..."]) -> Float[jax.Array, "..."]:
    """`r − 1 − log r`; unbiased, never negative; its gradient is that of the forward divergence KL(π_ref ‖ π)."""
    difference = reference - logprob
    return jnp.expm1(difference) - difference


KL: dict[str, Callable[[Float[jax.Array, "..."], Float[jax.Array, "..."]], Float[jax.Array, "..."]]] = {
    "k1": k1,
    "k2": k2,
    "k3": k3,
}


def kl(name: str, logprob: Float[jax.Array, "..."], reference: Float[jax.Array, "..."]) -> Float[jax.Array, "..."]:
    """The estimator called `name`, per token.

    Args:
      name: `k1`, `k2` or `k3`.
      logprob: the policy's log-probabilities of its own tokens.
      reference: the reference's log-probabilities of the same tokens; no gradient flows into them.

    Raises:
      ValueError: an unknown name.
    """
    if name not in KL:
        raise ValueError(f"unknown KL estimator {name!r}; known: {', '.join(KL)}")
    return KL[name](logprob, jax.lax.stop_gradient(reference))


def in_reward(
    old: Float[jax.Array, "B G S"], reference: Float[jax.Array, "B G S"], mask: Bool[jax.Array, "B G S"]
) -> Float[jax.Array, "B G"]:
    """`Σ_s k1`, the estimate of a completion's divergence that `k1_in_reward` takes from its reward, β apart.

    Args:
      old: log-probabilities under the policy that sampled the tokens.
      reference: the same under the reference.
      mask: the real tokens; what stands elsewhere does not matter.
    """
    return jnp.sum(jnp.where(mask, k1(old, reference), 0.0), axis=-1)
