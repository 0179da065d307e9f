"""The policy-gradient losses by name, as sums that can be added up before one division.

Per token s of completion i, with ratio ρ = π(token) / π_old(token) and advantage A_i:

    ℓ = −w · min(ρ · A_i, clip(ρ, 1 − ε_low, 1 + ε_high) · A_i) + β · KL − η · H

(PPO's surrogate, arXiv 1707.06347; separate bounds, «clip-higher», from DAPO, arXiv 2503.14476). w is a truncated
importance weight (`rl.importance`), 1 without one; H the token's entropy. The losses differ in what ρ is a ratio of,
in how it is bounded, in the sum they take and in what it is divided by. Every function returns sum and divisor
apart: a micro-batch or a device adds its sums and counts to those of the others, gradients of sums add up likewise,
and one division at the end gives the same result however the batch was split.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Bool, Float

from evads_jax.rl.kl import IN_REWARD, k1, k3, kl

CISPO_CAPS = ("verl", "trl")

# |log ρ| of a whole completion beyond which ρ is cut (e²⁰ ≈ 5·10⁸): keeps 0 · ∞ out of the gradient.
_LARGEST_LOG_RATIO = 20.0


class Aggregate(NamedTuple):
    """A sum and what it is to be divided by, both float32 scalars."""

    total: Float[jax.Array, ""]
    denominator: Float[jax.Array, ""]


def _completions(mask: jax.Array) -> jax.Array:
    """How many completions have at least one scored token."""
    return jnp.sum(jnp.any(mask, axis=-1)).astype(jnp.float32)


def _lengths(mask: jax.Array) -> jax.Array:
    """Scored tokens of each completion, at least 1."""
    return jnp.maximum(jnp.sum(mask, axis=-1).astype(jnp.float32), 1.0)


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


def gspo(token_loss: Float[jax.Array, "B G S"], mask: Bool[jax.Array, "B G S"], max_tokens: int) -> Aggregate:
    """`1/N Σ_i −min(s_i · A_i, clip(s_i) · A_i)` with `s_i = (π(o_i) / π_old(o_i))^(1/|o_i|)`.

    One ratio per completion, the geometric mean of its tokens' ratios, so a completion is clipped as a whole; its
    bounds are much narrower than a token's (3e-4 and 4e-4 in the paper). KL and entropy are means over tokens.
    Denominator: N, the completions. Source: GSPO, arXiv 2507.18071, equations 5 to 7; TRL's
    `importance_sampling_level="sequence"` with its loss `grpo`.
    """
    return grpo(token_loss, mask, max_tokens)


def cispo(token_loss: Float[jax.Array, "B G S"], mask: Bool[jax.Array, "B G S"], max_tokens: int) -> Aggregate:
    """`Σ_i Σ_s −sg(ρ̂_is) · A_i · log π_is / Σ_i |o_i|`, sg the stop-gradient and ρ̂ the capped ratio.

    A capped token keeps its gradient, only its weight is bounded. The cap differs between projects and has a name:
    `verl` and the paper take `clip(ρ, 1 − ε_low, 1 + ε_high)`, `trl` takes `min(ρ, ε_high)`, an absolute bound.
    Denominator: the tokens of the whole batch. Source: MiniMax-M1, arXiv 2506.13585, equations 4 and 5.
    """
    return dapo(token_loss, mask, max_tokens)


def rloo(token_loss: Float[jax.Array, "B G S"], mask: Bool[jax.Array, "B G S"], max_tokens: int) -> Aggregate:
    """`1/N Σ_i −min(ρ_i · A_i, clip(ρ_i) · A_i)` with `ρ_i = π(o_i) / π_old(o_i)`, the ratio of whole completions.

    The advantage is the reward less the mean of the *others* of its group (`advantage(leave_one_out=True)`); on policy
    the gradient is REINFORCE's, `−1/N Σ_i A_i ∇ log π(o_i)`. KL and entropy are sums over a completion's tokens, as log
    π(o_i) is. Denominator: N, the completions. Source: RLOO, arXiv 2402.14740; ratio and clipping as in TRL's
    RLOOTrainer.
    """
    return Aggregate(jnp.sum(jnp.where(mask, token_loss, 0.0)), _completions(mask))


LOSSES: dict[str, Callable[[jax.Array, jax.Array, int], Aggregate]] = {
    "grpo": grpo,
    "bnpo": bnpo,
    "dapo": dapo,
    "dr_grpo": dr_grpo,
    "gspo": gspo,
    "cispo": cispo,
    "rloo": rloo,
}

# The losses whose ratio is a completion's, and how its log is made of the tokens' ones; the others' is a token's.
COMPLETION_RATIO = {"gspo": "mean", "rloo": "sum"}


def denominator(name: str, mask: Bool[jax.Array, "B G S"], max_tokens: int) -> Float[jax.Array, ""]:
    """What the loss called `name` divides its sum by, 1 where nothing is kept; it depends on the mask alone."""
    count = LOSSES[name](jnp.zeros(mask.shape, jnp.float32), mask, max_tokens).denominator
    return jnp.where(count > 0, count, 1.0)


@struct.dataclass
class LossSums:
    """Sums over one part of a batch; add the parts, then divide. All float32 scalars.

    Attributes:
      loss: the numerator of the loss; its gradients add up over parts as it does.
      denominator: what the summed `loss`, and the summed gradient, is divided by. It may be 0 when nothing is kept.
      tokens: scored tokens, the divisor of all the following.
      clipped_low: tokens with A < 0 whose ratio fell below 1 − ε_low, so that they have no policy gradient.
      clipped_high: tokens with A > 0 whose ratio rose above 1 + ε_high, likewise. With `cispo` both count the tokens
        whose weight was cut, whatever the sign of A; they keep their gradient.
      clipped_dual: tokens with A < 0 whose ratio rose above the dual clip; None without one.
      ratio: sum of π / π_old, of the completion where the loss's ratio is a completion's.
      kl: sum of the KL term's estimates to the reference; 0 without a reference.
      approx_kl: sum of k3 of π_old against π, how far the policy has moved since the rollout.
      entropy: sum of the policy's token entropies in nats; 0 when none were given.
    """

    loss: Float[jax.Array, ""]
    denominator: Float[jax.Array, ""]
    tokens: Float[jax.Array, ""]
    clipped_low: Float[jax.Array, ""]
    clipped_high: Float[jax.Array, ""]
    clipped_dual: Float[jax.Array, ""] | None
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
        """Means over tokens: `loss`, `clip_low`, `clip_high`, `ratio`, `kl`, `approx_kl`, `entropy`, and `tokens`.

        With a dual clip also `clip_dual`.
        """
        tokens = jnp.maximum(self.tokens, 1.0)
        dual = {} if self.clipped_dual is None else {"clip_dual": self.clipped_dual / tokens}
        return dual | {
            "loss": self.value(),
            "clip_low": self.clipped_low / tokens,
            "clip_high": self.clipped_high / tokens,
            "ratio": self.ratio / tokens,
            "kl": self.kl / tokens,
            "approx_kl": self.approx_kl / tokens,
            "entropy": self.entropy / tokens,
            "tokens": self.tokens,
        }


class _Surrogate(NamedTuple):
    """The policy-gradient part of the loss per token, and which tokens (padding included) were clipped."""

    loss: jax.Array
    low: jax.Array
    high: jax.Array
    dual: jax.Array | None


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
    dual_clip: float | None = None,
    cispo_cap: str = "verl",
    importance: Float[jax.Array, "B G S"] | None = None,
    reference_logprob: Float[jax.Array, "B G S"] | None = None,
    kl_name: str = "k3",
    kl_weight: float = 0.0,
    entropy: Float[jax.Array, "B G S"] | None = None,
    entropy_weight: float = 0.0,
) -> LossSums:
    """The loss called `name` over a batch or a part of one; a completion is never split between parts.

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
      dual_clip: c > 1; where A < 0 the loss is at most −c · A, however large ρ is (arXiv 1912.09729). None: no bound.
      cispo_cap: what bounds the ratio of `cispo`: `verl` or `trl`.
      importance: weights of the surrogate, see `rl.importance`; no gradient. None: 1.
      reference_logprob: the same tokens under the reference (the SFT model); no gradient. None: no KL term.
      kl_name: estimator of the KL term, see `rl.kl`, or `none`; with `k1_in_reward` it is in the rewards and here only
        measured.
      kl_weight: β. Not given in the paper.
      entropy: the policy's entropies.
      entropy_weight: η, the entropy bonus; 0: `entropy` serves the metrics only.

    Returns:
      Sums and counts, float32. `jax.grad` of `.loss`, summed over parts and divided by the summed `.denominator`, is
      the gradient of the whole.

    Raises:
      ValueError: an unknown loss, cap or estimator, or a bonus without entropies.
    """
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}; known: {', '.join(LOSSES)}")
    if cispo_cap not in CISPO_CAPS:
        raise ValueError(f"unknown cispo cap {cispo_cap!r}; known: {', '.join(CISPO_CAPS)}")

    def real(values):  # Masked on the way in: a NaN that only meets a zero later would still poison the gradient.
        return jnp.where(mask, values.astype(jnp.float32), 0.0)

    new, old = real(logprob), jax.lax.stop_gradient(real(old_logprob))
    weight = jax.lax.stop_gradient(real(jnp.broadcast_to(advantages[:, :, None], mask.shape)))
    ratio = jnp.exp(_log_ratio(name, new - old, mask))
    if name == "cispo":
        surrogate = _capped(new, ratio, weight, clip_low, clip_high, cispo_cap)
    else:
        surrogate = _clipped(ratio, weight, clip_low, clip_high, dual_clip)
    token_loss = surrogate.loss
    if COMPLETION_RATIO.get(name) == "sum":  # a completion's loss, shared out among its tokens
        token_loss = token_loss / _lengths(mask)[..., None]
    if importance is not None:
        token_loss = token_loss * jax.lax.stop_gradient(real(importance))
    divergence = jnp.zeros_like(new)
    if reference_logprob is not None and kl_name == IN_REWARD:
        divergence = k1(new, real(reference_logprob))
    elif reference_logprob is not None and kl_name != "none":
        divergence = kl(kl_name, new, real(reference_logprob))
        token_loss = token_loss + kl_weight * divergence
    if entropy_weight:
        if entropy is None:
            raise ValueError("an entropy bonus needs the entropies")
        token_loss = token_loss - entropy_weight * real(entropy)
    total, count_of_loss = LOSSES[name](token_loss, mask, max_tokens)

    def count(where):
        return jnp.sum(where & mask).astype(jnp.float32)

    def add(values):
        return jax.lax.stop_gradient(jnp.sum(real(values)))

    return LossSums(
        loss=total,
        denominator=count_of_loss,
        tokens=count(mask),
        clipped_low=count(surrogate.low),
        clipped_high=count(surrogate.high),
        clipped_dual=None if surrogate.dual is None else count(surrogate.dual),
        ratio=add(ratio),
        kl=add(divergence),
        approx_kl=add(k3(old, new)),
        entropy=add(jnp.zeros_like(new) if entropy is None else entropy),
    )


def _log_ratio(name: str, log_ratio: jax.Array, mask: jax.Array) -> jax.Array:
    """The loss's log ρ, from the tokens' ones; a completion's stands at each of its tokens."""
    if name not in COMPLETION_RATIO:
        return log_ratio
    whole = jnp.sum(log_ratio, axis=-1, keepdims=True)
    if COMPLETION_RATIO[name] == "mean":
        whole = whole / _lengths(mask)[..., None]
    whole = jnp.clip(whole, -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)
    return jnp.broadcast_to(whole, log_ratio.shape)


def _clipped(ratio: jax.Array, weight: jax.Array, low: float, high: float, dual: float | None) -> _Surrogate:
    """PPO's clipped surrogate, and with `dual` its bound for negative advantages."""
    clipped = jnp.clip(ratio, 1.0 - low, 1.0 + high)
    loss = -jnp.minimum(ratio * weight, clipped * weight)
    beyond = None
    if dual is not None:
        beyond = (weight < 0) & (ratio > dual)
        loss = jnp.where(beyond, -dual * weight, loss)
    return _Surrogate(loss, (ratio < 1.0 - low) & (weight < 0), (ratio > 1.0 + high) & (weight > 0), beyond)


def _capped(new: jax.Array, ratio: jax.Array, weight: jax.Array, low: float, high: float, cap: str) -> _Surrogate:
    """REINFORCE on every token, weighted by its capped ratio."""
    least, most = (1.0 - low, 1.0 + high) if cap == "verl" else (0.0, high)
    loss = -jax.lax.stop_gradient(jnp.clip(ratio, least, most)) * weight * new
    return _Surrogate(loss, ratio < least, ratio > most, None)
