"""The clipped policy-gradient loss, as sums that can be added up before one division.

Per token s of completion i, with ratio ρ = π(token) / π_old(token) and advantage A_i:

    ℓ = −min(ρ · A_i, clip(ρ, 1 − ε_low, 1 + ε_high) · A_i) + β · KL

(PPO's surrogate, arXiv 1707.06347; separate bounds, «clip-higher», from DAPO, arXiv 2503.14476). The losses differ only
in how tokens are weighted, that is in the sum they take and in what it is divided by. Every function returns the
two apart: a micro-batch or a device adds its sums and counts to those of the others, gradients of sums add up
likewise, and one division at the end gives the same result however the batch was split.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Bool, Float

from evads_jax.rl.kl import k3, kl


class Aggregate(NamedTuple):
    """A sum and what it is to be divided by, both float32 scalars."""

    total: Float[jax.Array, ""]
    denominator: Float[jax.Array, ""]


def _completions(mask: jax.Array) -> jax.Array:
    """How many completions have at least one scored token."""
    return jnp.sum(jnp.any(mask, axis=-1)).astype(jnp.float32)


def grpo(token_loss: Float[jax.Array, "B G S"], mask: Bool[jax.Array, "B G S"], max_tokens: int) -> Aggregate:
    """`1/N Σ_i 1/|o_i| Σ_s ℓ_is`: the mean over completions of each one's token mean.

    Denominator: N, the completions. A token of a short completion weighs more than one of a long completion.
    Source: DeepSeekMath, arXiv 2402.03300, equation 3.
    """
    lengths = jnp.sum(mask, axis=-1).astype(jnp.float32)
    means = jnp.sum(jnp.where(mask, token_loss, 0.0), axis=-1) / jnp.maximum(lengths, 1.0)
    return Aggregate(jnp.sum(means), _completions(mask))


def dapo(token_loss: Float[jax.Array, "B G S"], mask: Bool[jax.Array, "B G S"], max_tokens: int) -> Aggregate:
    """`Σ_i Σ_s ℓ_is / Σ_i |o_i|`: the mean over all tokens of the update's batch.

    Denominator: the tokens of the whole batch, over all micro-batches and devices; every token weighs the same.
    Source: DAPO, arXiv 2503.14476, section 3.3, whose sum runs over one prompt's group; over the whole batch as in TRL.
    """
    return Aggregate(jnp.sum(jnp.where(mask, token_loss, 0.0)), jnp.sum(mask).astype(jnp.float32))


def bnpo(token_loss: Float[jax.Array, "B G S"], mask: Bool[jax.Array, "B G S"], max_tokens: int) -> Aggregate:
    """`Σ_i Σ_s ℓ_is / Σ_i |o_i|` over the local batch.

    Denominator: the tokens of the local batch. Source: TRL's loss of that name, after BNPO, arXiv 2506.02864. TRL's
    local batch is what one device holds between two accumulations, which lets the hardware choose the weights; ours
    is the batch of the update, whatever it is split into. So one call equals TRL's, and the sum over calls `dapo`.
    """
    return dapo(token_loss, mask, max_tokens)


def dr_grpo(token_loss: Float[jax.Array, "B G S"], mask: Bool[jax.Array, "B G S"], max_tokens: int) -> Aggregate:
    """`1/(N · L) Σ_i Σ_s ℓ_is` with L = `max_tokens`, a constant.

    Denominator: completions times the longest length allowed, not the longest seen, so neither lengths nor padding
    weigh in. Belongs with advantages of scale `none`. Source: Dr. GRPO, arXiv 2503.20783, section 3.2.
    """
    return Aggregate(jnp.sum(jnp.where(mask, token_loss, 0.0)), _completions(mask) * max_tokens)


LOSSES: dict[str, Callable[[jax.Array, jax.Array, int], Aggregate]] = {
    "grpo": grpo,
    "bnpo": bnpo,
    "dapo": dapo,
    "dr_grpo": dr_grpo,
}


@struct.dataclass
class LossSums:
    """Sums over one part of a batch; add the parts, then divide. All float32 scalars.

    Attributes:
      loss: the numerator of the loss; its gradients add up over parts as it does.
      denominator: what the summed `loss`, and the summed gradient, is divided by. It may be 0 when nothing is kept.
      tokens: scored tokens, the divisor of all the following.
      clipped_low: tokens with A < 0 whose ratio fell below 1 − ε_low, so that they have no policy gradient.
      clipped_high: tokens with A > 0 whose ratio rose above 1 + ε_high, likewise.
      ratio: sum of π / π_old.
      kl: sum of the KL term's estimates to the reference; 0 without a reference.
      approx_kl: sum of k3 of π_old against π, how far the policy has moved since the rollout.
      entropy: sum of the policy's token entropies in nats; 0 when none were given.
    """

    loss: Float[jax.Array, ""]
    denominator: Float[jax.Array, ""]
    tokens: Float[jax.Array, ""]
    clipped_low: Float[jax.Array, ""]
    clipped_high: Float[jax.Array, ""]
    ratio: Float[jax.Array, ""]
    kl: Float[jax.Array, ""]
    approx_kl: Float[jax.Array, ""]
    entropy: Float[jax.Array, ""]

    def __add__(self, other: "LossSums") -> "LossSums":
        """The sums over both parts."""
        return jax.tree.map(jnp.add, self, other)

    def value(self) -> Float[jax.Array, ""]:
        """The loss: `loss / denominator`, and 0 where nothing was kept."""
        return self.loss / jnp.where(self.denominator > 0, self.denominator, 1.0)

    def metrics(self) -> dict[str, Float[jax.Array, ""]]:
        """Means over tokens: `loss`, `clip_low`, `clip_high`, `ratio`, `kl`, `approx_kl`, `entropy`, and `tokens`."""
        tokens = jnp.maximum(self.tokens, 1.0)
        return {
            "loss": self.value(),
            "clip_low": self.clipped_low / tokens,
            "clip_high": self.clipped_high / tokens,
            "ratio": self.ratio / tokens,
            "kl": self.kl / tokens,
            "approx_kl": self.approx_kl / tokens,
            "entropy": self.entropy / tokens,
            "tokens": self.tokens,
        }


def policy_loss(
    name: str,
    logprob: Float[jax.Array, "B G S"],
    old_logprob: Float[jax.Array, "B G S"],
    advantages: Float[jax.Array, "B G"],
    mask: Bool[jax.Array, "B G S"],
    *,
    max_tokens: int,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    reference_logprob: Float[jax.Array, "B G S"] | None = None,
    kl_name: str = "k3",
    kl_weight: float = 0.0,
    entropy: Float[jax.Array, "B G S"] | None = None,
) -> LossSums:
    """The loss called `name` over a batch or a part of one.

    Args:
      name: a key of `LOSSES`.
      logprob: log-probabilities of the completion tokens under the parameters being trained.
      old_logprob: the same under the parameters that sampled them; no gradient.
      advantages: one per completion; no gradient.
      mask: the tokens that count: real ones of completions that are kept (`Advantages.kept`). Nothing outside the
        mask matters, NaN included.
      max_tokens: longest completion allowed, the constant of `dr_grpo`.
      clip_low: ε_low. Not given in the paper.
      clip_high: ε_high. Not given in the paper.
      reference_logprob: the same tokens under the reference (the SFT model); no gradient. None: no KL term.
      kl_name: estimator of the KL term, see `rl.kl`, or `none`.
      kl_weight: β. Not given in the paper.
      entropy: the policy's entropies, for the metrics only.

    Returns:
      Sums and counts, float32. `jax.grad` of `.loss`, summed over parts and divided by the summed `.denominator`, is
      the gradient of the whole.

    Raises:
      ValueError: an unknown loss or estimator.
    """
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}; known: {', '.join(LOSSES)}")

    def real(values):  # Masked on the way in: a NaN that only meets a zero later would still poison the gradient.
        return jnp.where(mask, values.astype(jnp.float32), 0.0)

    new, old = real(logprob), jax.lax.stop_gradient(real(old_logprob))
    weight = jax.lax.stop_gradient(real(jnp.broadcast_to(advantages[:, :, None], mask.shape)))
    ratio = jnp.exp(new - old)
    clipped = jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    token_loss = -jnp.minimum(ratio * weight, clipped * weight)
    divergence = jnp.zeros_like(new)
    if reference_logprob is not None and kl_name != "none":
        divergence = kl(kl_name, new, real(reference_logprob))
        token_loss = token_loss + kl_weight * divergence
    total, denominator = LOSSES[name](token_loss, mask, max_tokens)

    def count(where):
        return jnp.sum(where & mask).astype(jnp.float32)

    def add(values):
        return jax.lax.stop_gradient(jnp.sum(real(values)))

    return LossSums(
        loss=total,
        denominator=denominator,
        tokens=count(mask),
        clipped_low=count((ratio < 1.0 - clip_low) & (weight < 0)),
        clipped_high=count((ratio > 1.0 + clip_high) & (weight > 0)),
        ratio=add(ratio),
        kl=add(divergence),
        approx_kl=add(k3(old, new)),
        entropy=add(jnp.zeros_like(new) if entropy is None else entropy),
    )
