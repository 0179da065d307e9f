"""The text's encoder: BERT's blocks (RoBERTa's are the same), without token types."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from evads_jax.models.cope.config import CopeConfig
from evads_jax.models.cope.parameters import Params
from evads_jax.models.cope.transformer import post_norm_block, run_layers
from evads_jax.models.norms import layer_norm

EPSILON = 1e-12  # of BERT's layer norms


def encode_text(
    params: Params, config: CopeConfig, tokens: Int[Array, "B T"], count: Int[Array, " B"]
) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
    """Hidden states of the tokens, each of which sees all real ones of its text.

    A clip without text has one token all the same, a learned vector.

    Args:
      params: of the encoder.
      config: the model's sizes.
      tokens: token ids.
      count: real tokens of each text.

    Returns:
      The states, and which of them are real.

    Raises:
      ValueError: more tokens than the config says.
    """
    T = tokens.shape[1]
    if config.text_tokens < T:
        raise ValueError(f"{T} tokens, the config has {config.text_tokens}")
    # Ids beyond the count may lie outside the table: what they would look up must not become NaN.
    x = params["embed"][jnp.where(jnp.arange(T) < count[:, None], tokens, 0)]
    x = jnp.where((count > 0)[:, None, None], x, params["nothing"])
    x = layer_norm(params["norm_in"], x + params["position"][:T], EPSILON).astype(config.dtype)
    said = jnp.arange(T) < jnp.maximum(count, 1)[:, None]
    x = run_layers(
        lambda layer, x: post_norm_block(layer, x, config.text_heads, said, EPSILON), params["layers"], x, config
    )
    return x, said
