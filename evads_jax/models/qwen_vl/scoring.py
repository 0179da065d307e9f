"""Log-probabilities of given continuations: the one differentiable forward pass that every loss is made of."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from evads_jax.models.qwen_vl import text
from evads_jax.models.qwen_vl.batch import PromptBatch, SuffixBatch
from evads_jax.models.qwen_vl.config import QwenVLConfig
from evads_jax.models.qwen_vl.parameters import Params
from evads_jax.models.qwen_vl.vision import encode_video


@struct.dataclass
class TokenScores:
    """What the model thought of each suffix token; zero where `SuffixBatch.mask` is False.

    Attributes:
      logprob: log-probability of the token given its prompt and what stands before it in its suffix.
      entropy: entropy in nats of the distribution that it is drawn from.
    """

    logprob: Float[Array, "B G S"]
    entropy: Float[Array, "B G S"]


def score(params: Params, config: QwenVLConfig, prompt: PromptBatch, suffix: SuffixBatch) -> TokenScores:
    """Scores G suffixes of each of B prompts in one forward pass that runs every prompt, and its video, once.

    Equal, gradients included, to G separate passes over [prompt | suffix]. Suffix token s is predicted from token
    s − 1, token 0 from the prompt's last real token.

    Args:
      params: the model's parameters.
      config: the model's sizes (static).
      prompt: the prompts.
      suffix: their continuations; padding may hold anything.
    """
    B, G, S = suffix.tokens.shape
    prefix = text.prefill(params, config, prompt, encode_video(params, config, prompt.video))
    hidden = text.extend(params, config, prefix, suffix.tokens)
    first = jnp.broadcast_to(prefix.last[:, None, None], (B, G, 1, config.width)).astype(hidden.dtype)
    predicting = jnp.concatenate([first, hidden[:, :, :-1]], axis=2).reshape(B * G * S, -1)
    logprob, entropy = token_scores(params, config, predicting, suffix.tokens.reshape(-1))
    mask = suffix.mask & (jnp.arange(S) < suffix.lengths[..., None])
    return TokenScores(*(jnp.where(mask, x.reshape(B, G, S), 0.0) for x in (logprob, entropy)))


def token_scores(
    params: Params, config: QwenVLConfig, hidden: Float[Array, "n D"], targets: Int[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Log-probability of each target and entropy of its distribution, float32 at least.

    Logits exist for `config.logit_chunk` tokens at a time, in the forward and in the backward pass.
    """
    n = hidden.shape[0]
    chunks = -(-n // config.logit_chunk)
    size = -(-n // chunks)
    padding = chunks * size - n
    hidden = jnp.pad(hidden, ((0, padding), (0, 0))).reshape(chunks, size, -1)
    targets = jnp.pad(targets, (0, padding)).reshape(chunks, size)

    @jax.checkpoint
    def chunk(hidden, targets):
        return from_logits(text.head(params, config, hidden), targets)

    if chunks == 1:
        logprob, entropy = (x[None] for x in chunk(hidden[0], targets[0]))
    else:
        _, (logprob, entropy) = jax.lax.scan(lambda _, inputs: (None, chunk(*inputs)), None, (hidden, targets))
    return logprob.reshape(-1)[:n], entropy.reshape(-1)[:n]


def from_logits(
    logits: Float[Array, "n V"], targets: Int[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """The log softmax at the targets, and the softmax's entropy log Z − Σ p·l."""
    logits = logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    weights = jnp.exp(logits)
    total = weights.sum(axis=-1)
    log_total = jnp.log(total)
    chosen = jnp.where(jnp.arange(logits.shape[-1]) == targets[:, None], logits, 0).sum(axis=-1)
    return chosen - log_total, log_total - (weights * logits).sum(axis=-1) / total
