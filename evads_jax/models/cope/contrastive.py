"""The symmetric contrastive loss of one pair of embeddings, with the whole batch of all devices as negatives.

    L = ½ [CE(A·Bᵀ/τ) + CE(B·Aᵀ/τ)]        CE(row) = log Σⱼ exp(lⱼ) − (1 − ε)·l₊ − ε·meanⱼ(lⱼ)

with smoothing ε, over the row's candidates j: its positive and the valid rows of other products. Similarities are
computed for some anchors at a time and once more in the backward pass, so that memory grows with B·chunk, not B². On
a mesh each device has its own rows as anchors, gets the others' embeddings, which are small, and sends gradients back
to them: exactly what one device would compute.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from evads_jax.models.partitioning import BATCH_AXES, MESH_AXES

Rows = tuple[Float[Array, "n E"], Int[Array, " n"], Bool[Array, " n"]]  # embeddings, products, valid
EXCLUDED = -1e30  # finite: a row without any candidate stays finite, and is not counted


def pair_loss(
    left: Float[Array, "B E"],
    right: Float[Array, "B E"],
    valid: Bool[Array, " B"],
    products: Int[Array, " B"] | None = None,
    *,
    temperature: float,
    smoothing: float,
    chunk: int | None = None,
) -> Float[Array, ""]:
    """The loss's mean over the valid rows, where row i of `left` and row i of `right` belong together; 0 without any.

    Args:
      left: unit vectors.
      right: unit vectors.
      valid: the rows that count; the others are neither anchors nor negatives, whatever they hold.
      products: rows of the same product are not each other's negatives; default: every row has its own.
      temperature: τ.
      smoothing: ε.
      chunk: anchors of a device whose similarities exist at one time; None: all, and they are kept.
    """
    B = left.shape[0]
    products = jnp.arange(B) if products is None else products
    left, right = (jnp.where(valid[:, None], x, 0.0) for x in (left, right))

    split = _is_split(jax.sharding.get_abstract_mesh(), B)

    def one_way(anchors: Rows, first: int | Array, candidates: Rows) -> Array:
        def losses(anchors: Rows, places: Array) -> Array:
            return _losses(anchors, places, candidates, temperature, smoothing)

        return _in_chunks(losses, anchors, first + jnp.arange(len(anchors[0])), chunk)

    def both_ways(left: Array, right: Array, products: Array, valid: Array) -> Array:
        inputs = left, right, products, valid
        whole_left, whole_right, *known = (
            [jax.lax.all_gather(x, BATCH_AXES, tiled=True) for x in inputs] if split else inputs
        )
        first = jax.lax.axis_index(BATCH_AXES) * len(left) if split else 0
        total = one_way((left, products, valid), first, (whole_right, *known))
        total = total + one_way((right, products, valid), first, (whole_left, *known))
        return jax.lax.psum(total, BATCH_AXES) if split else total

    if split:
        rows = PartitionSpec(BATCH_AXES)
        both_ways = jax.shard_map(both_ways, in_specs=(rows,) * 4, out_specs=PartitionSpec())
    total = both_ways(left, right, products, valid)
    return total / (2 * jnp.maximum(valid.sum(), 1))


def _is_split(mesh: AbstractMesh, rows: int) -> bool:
    """Whether a mesh of several devices splits so many rows without remainder."""
    if mesh.empty or mesh.size == 1 or set(mesh.axis_names) != set(MESH_AXES):
        return False
    return rows % (mesh.shape["data"] * mesh.shape["fsdp"]) == 0


def _losses(
    anchors: Rows, places: Int[Array, " n"], candidates: Rows, temperature: float, smoothing: float
) -> Float[Array, " n"]:
    """CE of some anchors; `places` says which candidate is an anchor's positive."""
    (rows, products, valid), (others, other_products, other_valid) = anchors, candidates
    positive = jnp.arange(len(others)) == places[:, None]
    allowed = (positive | (products[:, None] != other_products)) & other_valid
    # Not in the accelerators' short floats: an error of 2⁻⁸ in a similarity is one of 2⁻⁸/τ in the logit.
    logits = jnp.where(allowed, jnp.matmul(rows, others.T, precision="highest") / temperature, EXCLUDED)
    mean = jnp.where(allowed, logits, 0.0).sum(axis=1) / jnp.maximum(allowed.sum(axis=1), 1)
    at_positive = jnp.where(positive, logits, 0.0).sum(axis=1)
    losses = jax.nn.logsumexp(logits, axis=1) - (1 - smoothing) * at_positive - smoothing * mean
    return jnp.where(valid, losses, 0.0)


def _in_chunks(
    losses: Callable[[Rows, Array], Array], anchors: Rows, places: Int[Array, " n"], chunk: int | None
) -> Float[Array, ""]:
    """The sum of `losses` of all anchors, of at most `chunk` at a time in the forward and in the backward pass."""
    n = len(places)
    if chunk is None or chunk >= n:
        return losses(anchors, places).sum()
    chunks = -(-n // chunk)
    size = -(-n // chunks)

    def cut(x: Array) -> Array:  # padding is not valid: zeros
        return jnp.pad(x, ((0, chunks * size - n),) + ((0, 0),) * (x.ndim - 1)).reshape(chunks, size, *x.shape[1:])

    parts = jax.tree.map(cut, (anchors, places))
    return jax.lax.map(lambda part: jax.checkpoint(losses)(*part).sum(), parts).sum()
