"""CosFace (arXiv 1801.09414): classification of unit vectors among products, whose classes the devices share.

    L = −log softmax(s · (cos θⱼ − m·[j = label]))[label]

With 10⁵ to 10⁶ products the logits are the largest array of a step. Each device of the tensor axis has C/tp classes
and computes their logits for the rows of its group; the largest logit, the sum of exponentials and the label's logit
go between devices, never the logits (as in `models.vocabulary`).
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from evads_jax.models.cope.batch import unit
from evads_jax.models.partitioning import BATCH_AXES
from evads_jax.models.vocabulary import TP, is_split


def cosface_loss(
    weights: Float[Array, "C E"],
    embeddings: Float[Array, "B E"],
    labels: Int[Array, " B"],
    valid: Bool[Array, " B"],
    *,
    scale: float = 64.0,
    margin: float = 0.4,
) -> Float[Array, ""]:
    """The loss's mean over the valid rows; 0 without any.

    On a mesh (`jax.set_mesh`) whose axes divide rows and classes, rows are split over data and fsdp, classes over tp.

    Args:
      weights: one direction per class, of any length.
      embeddings: unit vectors.
      labels: the class of each row; anything where a row is not valid.
      valid: the rows that count.
      scale: s.
      margin: m.
    """
    embeddings = jnp.where(valid[:, None], embeddings, 0.0)
    labels = jnp.where(valid, labels, 0)
    split = is_split(jax.sharding.get_abstract_mesh(), len(embeddings), len(weights))
    part = functools.partial(_logprobs, scale=scale, margin=margin, axis=TP if split else None)
    logprobs = jax.checkpoint(part)  # the backward pass computes the logits again
    if split:
        rows = PartitionSpec(BATCH_AXES)
        logprobs = jax.shard_map(logprobs, in_specs=(PartitionSpec(TP), rows, rows), out_specs=rows)
    logprob = logprobs(weights, embeddings, labels)
    return -jnp.where(valid, logprob, 0.0).sum() / jnp.maximum(valid.sum(), 1)


def _logprobs(
    weights: Array, embeddings: Array, labels: Array, scale: float, margin: float, axis: str | None
) -> Float[Array, " B"]:
    """Log-probability of the labels, from all classes, or from those of one device of a mesh axis."""
    first = jax.lax.axis_index(axis) * len(weights) if axis else 0
    largest, summed = (
        (functools.partial(f, axis_name=axis) if axis else lambda x: x) for f in (jax.lax.pmax, jax.lax.psum)
    )
    own = jnp.arange(len(weights)) == (labels - first)[:, None]
    logits = scale * (jnp.matmul(embeddings, unit(weights).T, precision="highest") - margin * own)
    logits = logits - largest(jax.lax.stop_gradient(logits.max(axis=1)))[:, None]
    total, chosen = summed((jnp.exp(logits).sum(axis=1), jnp.where(own, logits, 0.0).sum(axis=1)))
    return chosen - jnp.log(total)
