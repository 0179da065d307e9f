"""Log-probabilities of tokens on a mesh, where the vocabulary is split among devices, without ever gathering it.

Each device of the tensor axis has V/tp rows of the output head (their columns, where fsdp splits these, are brought
together). It computes the logits of its part for the tokens of
its groups, and three numbers per token go between devices: the sum of exponentials, what the entropy needs, and the
target's logit, which one device has (and before these the largest logit). Nothing of size V is sent. `reference` is
the same on one device.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, PartitionSpec
from jaxtyping import Array, Float, Int

from evads_jax.models.partitioning import BATCH_AXES, splits

FSDP, TP = "fsdp", "tp"
Scores = tuple[Float[Array, " n"], Float[Array, " n"]]


def reference(hidden: Float[Array, "n D"], head: Float[Array, "V D"], targets: Int[Array, " n"]) -> Scores:
    """Log softmax of `hidden · headᵀ` at the targets, and the softmax's entropy in nats; as short as the definition."""
    logprobs = jax.nn.log_softmax(logits(hidden, head), axis=-1)
    chosen = jnp.take_along_axis(logprobs, targets[:, None], axis=1)[:, 0]
    return chosen, -(jnp.exp(logprobs) * logprobs).sum(axis=-1)


def is_split(mesh: AbstractMesh, tokens: int, vocabulary: int) -> bool:
    """Whether a mesh of several devices splits a vocabulary and so many tokens without remainder."""
    return splits(mesh, tokens) and vocabulary % mesh.shape[TP] == 0


def token_scores(
    hidden: Float[Array, "n D"], head: Float[Array, "V D"], targets: Int[Array, " n"], chunk: int
) -> Scores:
    """`reference` on the current mesh (`jax.set_mesh`): tokens split over data and fsdp, the vocabulary over tp.

    Differentiable; the gradient of `head` is split as `head` is.

    Args:
      hidden: final hidden states.
      head: the output head.
      targets: token ids.
      chunk: tokens of a device whose logits exist at one time.
    """
    rows, shares = PartitionSpec(BATCH_AXES), jax.sharding.get_abstract_mesh().shape[FSDP]
    columns = FSDP if head.shape[1] % shares == 0 else None

    def own(hidden: Array, head: Array, targets: Array) -> Scores:
        # Brought together here, its gradient is added up and split again in one step: no device holds all of the sum.
        head = jax.lax.all_gather(head, FSDP, axis=1, tiled=True) if columns and shares > 1 else head
        return in_chunks(lambda h, t: _part(h, head, t), hidden, targets, chunk)

    return jax.shard_map(own, in_specs=(rows, PartitionSpec(TP, columns), rows), out_specs=(rows, rows))(
        hidden, head, targets
    )


def in_chunks(
    scores: Callable[[Array, Array], Scores], hidden: Float[Array, "n D"], targets: Int[Array, " n"], chunk: int
) -> Scores:
    """`scores(hidden, targets)` of at most `chunk` tokens at a time, in the forward and in the backward pass."""
    n = hidden.shape[0]
    chunks = -(-n // chunk)
    size = -(-n // chunks)
    padding = chunks * size - n
    hidden = jnp.pad(hidden, ((0, padding), (0, 0))).reshape(chunks, size, -1)
    targets = jnp.pad(targets, (0, padding)).reshape(chunks, size)
    scores = jax.checkpoint(scores)
    if chunks == 1:
        logprob, entropy = (x[None] for x in scores(hidden[0], targets[0]))
    else:
        _, (logprob, entropy) = jax.lax.scan(lambda _, inputs: (None, scores(*inputs)), None, (hidden, targets))
    return logprob.reshape(-1)[:n], entropy.reshape(-1)[:n]


def logits(hidden: Float[Array, "n D"], head: Float[Array, "V D"]) -> Float[Array, "n V"]:
    """Logits of final hidden states, float32 at least."""
    accumulate = jnp.promote_types(hidden.dtype, jnp.float32)
    return jax.lax.dot_general(
        hidden, head.astype(hidden.dtype), (((1,), (1,)), ((), ())), preferred_element_type=accumulate
    )


def _part(hidden: Array, head: Array, targets: Array) -> Scores:
    """What one device computes: its tokens, its part of the vocabulary."""
    own = logits(hidden, head)
    own = own - jax.lax.pmax(jax.lax.stop_gradient(own.max(axis=-1)), TP)[:, None]
    weights = jnp.exp(own)
    place = targets - jax.lax.axis_index(TP) * head.shape[0]
    at_target = jnp.where(jnp.arange(head.shape[0]) == place[:, None], own, 0.0).sum(axis=-1)
    total, weighted, chosen = jax.lax.psum((weights.sum(axis=-1), (weights * own).sum(axis=-1), at_target), TP)
    log_total = jnp.log(total)
    return chosen - log_total, log_total - weighted / total
