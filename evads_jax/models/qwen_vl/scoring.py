"""Log-probabilities of given continuations: the one differentiable forward pass that every loss is made of."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from evads_jax.models import vocabulary
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
    if config.scan_layers:
        features = encode_video(params, config, prompt.video)
        last, hidden = text.read(params, config, prompt, features, suffix.tokens)
        return _scored(params, config, last, hidden, suffix)
    return score_suffixes(params, config, run_prompts(params, config, prompt), suffix)


def run_prompts(params: Params, config: QwenVLConfig, prompt: PromptBatch) -> text.Prefix:
    """The first half of `score`: everything that the suffixes of a prompt share, its video included."""
    return text.prefill(params, config, prompt, encode_video(params, config, prompt.video))


def score_suffixes(params: Params, config: QwenVLConfig, prefix: text.Prefix, suffix: SuffixBatch) -> TokenScores:
    """The second half of `score`, of any part of a prompt's suffixes: they do not know each other.

    Args:
      params: the model's parameters.
      config: the model's sizes (static).
      prefix: the prompts, from `run_prompts`.
      suffix: continuations of theirs.
    """
    return _scored(params, config, prefix.last, text.extend(params, config, prefix, suffix.tokens), suffix)


def _scored(
    params: Params,
    config: QwenVLConfig,
    last: Float[Array, "B D"],
    hidden: Float[Array, "B G S D"],
    suffix: SuffixBatch,
) -> TokenScores:
    """Scores from final states: those of the prompts' last tokens, and those of the suffixes."""
    B, G, S = suffix.tokens.shape
    first = jnp.broadcast_to(last[:, None, None], (B, G, 1, config.width)).astype(hidden.dtype)
    predicting = jnp.concatenate([first, hidden[:, :, :-1]], axis=2).reshape(B * G * S, -1)
    logprob, entropy = token_scores(params, config, predicting, suffix.tokens.reshape(-1))
    mask = suffix.mask & (jnp.arange(S) < suffix.lengths[..., None])
    return TokenScores(*(jnp.where(mask, x.reshape(B, G, S), 0.0) for x in (logprob, entropy)))


def token_scores(
    params: Params, config: QwenVLConfig, hidden: Float[Array, "n D"], targets: Int[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Log-probability of each target and entropy of its distribution, float32 at least.

    Logits exist for `config.logit_chunk` tokens at a time, in the forward and in the backward pass. On a mesh each
    device chunks its own tokens, and its part of the vocabulary stays where it is (`models.vocabulary`).
    """
    if vocabulary.is_split(jax.sharding.get_abstract_mesh(), hidden.shape[0], config.vocabulary):
        return vocabulary.token_scores(hidden, text.output_table(params, config), targets, config.logit_chunk)
    return vocabulary.in_chunks(
        lambda h, t: from_logits(text.head(params, config, h), t), hidden, targets, config.logit_chunk
    )


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
