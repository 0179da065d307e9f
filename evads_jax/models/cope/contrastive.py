"""The symmetric contrastive loss of one pair of embeddings, with the whole batch of all devices as negatives.

    L = ½ [CE(A·Bᵀ/τ) + CE(B·Aᵀ/τ)]        CE(row) = log Σⱼ exp(lⱼ) − (1 − ε)·l₊ − ε·meanⱼ(lⱼ)

with smoothing ε, over the row's candidates j: its positive and the valid rows of other products. Both directions need
the same logits, one along the rows of the matrix and the other along its columns. So it is computed once, for some rows
at a time, and once more in the backward pass, which knows all sums by then: with the logits' gradient W, that of A is
W·B/τ and that of B is Wᵀ·A/τ. Memory grows with B·chunk, not B². On a mesh each device has its own rows of A, gets the
others' rows of B, which are small, adds up the columns with the others, and gives them their part of the gradient:
exactly what one device would compute.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from evads_jax.models.partitioning import BATCH_AXES, splits

ROWS, EVERYWHERE = PartitionSpec(BATCH_AXES), PartitionSpec()
EXCLUDED = -1e30  # finite: a row without any candidate stays finite, and is not counted


class Sums(NamedTuple):
    """Of every row of the logits, or of every column.

    Attributes:
      lse: log Σ exp of the candidates' logits.
      mean: their mean.
      candidates: how many they are, 1 at least.
    """

    lse: Float[Array, " n"]
    mean: Float[Array, " n"]
    candidates: Float[Array, " n"]


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
      chunk: rows of a device whose logits exist at one time; None: all.
    """
    B = left.shape[0]
    products = jnp.arange(B) if products is None else products
    left, right = (jnp.where(valid[:, None], x, 0.0) for x in (left, right))
    left = left / temperature
    split = splits(jax.sharding.get_abstract_mesh(), B)
    both = _sums(left, right, products, valid, chunk, split)
    at_positive = (left * right).sum(axis=1)
    one, other = (sums.lse - (1 - smoothing) * at_positive - smoothing * sums.mean for sums in both)
    return jnp.where(valid, one + other, 0.0).sum() / (2 * jnp.maximum(valid.sum(), 1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _sums(
    left: Array, right: Array, products: Array, valid: Array, chunk: int | None, split: bool
) -> tuple[Sums, Sums]:
    """The sums of the logits left·rightᵀ along rows and columns; counts have no gradient."""
    run: Callable[..., Any] = functools.partial(_local_sums, chunk=chunk, split=split)
    if split:
        run = _on_mesh(run, (ROWS,) * 4, (ROWS, EVERYWHERE))
    return run(left, right, products, valid)


def _forward(left: Array, right: Array, products: Array, valid: Array, chunk: int | None, split: bool) -> Any:
    both = _sums(left, right, products, valid, chunk, split)
    return both, (left, right, products, valid, both)


def _backward(chunk: int | None, split: bool, kept: Any, slopes: tuple[Sums, Sums]) -> Any:
    left, right, products, valid, both = kept
    # A logit's gradient: lse's slope · softmax + mean's slope / count, of its row and of its column.
    factors = tuple((one.lse, slope.lse, slope.mean / one.candidates) for one, slope in zip(both, slopes, strict=True))
    run: Callable[..., Any] = functools.partial(_local_gradients, chunk=chunk, split=split)
    if split:
        run = _on_mesh(run, (*(ROWS,) * 5, EVERYWHERE), (ROWS, ROWS))
    return *run(left, right, products, valid, *factors), None, None


_sums.defvjp(_forward, _backward)


def _on_mesh(run: Callable[..., Any], given: Any, made: Any) -> Callable[..., Any]:
    """A function of one device's rows as one of all rows. What it adds up itself is the same everywhere: unchecked."""
    return jax.shard_map(run, in_specs=given, out_specs=made, check_vma=False)


def _local_sums(
    left: Float[Array, "n E"], right: Float[Array, "n E"], products: Array, valid: Array, chunk: int | None, split: bool
) -> tuple[Sums, Sums]:
    """Of the rows of one device, and of all columns."""
    first, candidates = _candidates(right, products, valid, split)

    def step(columns: tuple[Array, ...], rows: tuple[Array, ...]) -> tuple[tuple[Array, ...], Sums]:
        logits, allowed = _logits(rows, candidates)
        largest, exponentials, totals, counts = columns
        kept, highest = jnp.where(allowed, logits, 0.0), jnp.maximum(largest, logits.max(axis=0))
        added = jnp.exp(logits - highest).sum(axis=0)
        exponentials = exponentials * jnp.exp(largest - highest) + added
        columns = highest, exponentials, totals + kept.sum(axis=0), counts + allowed.sum(axis=0)
        count = jnp.maximum(allowed.sum(axis=1), 1).astype(logits.dtype)
        return columns, Sums(jax.nn.logsumexp(logits, axis=1), kept.sum(axis=1) / count, count)

    zeros = jnp.zeros(len(candidates[0]), left.dtype)
    columns, rows = _in_chunks(step, (zeros + EXCLUDED, zeros, zeros, zeros), (left, products, valid), first, chunk)
    largest, exponentials, totals, counts = columns
    if split:
        highest = jax.lax.pmax(largest, BATCH_AXES)
        exponentials = exponentials * jnp.exp(largest - highest)
        exponentials, totals, counts = jax.lax.psum((exponentials, totals, counts), BATCH_AXES)
        largest = highest
    counts = jnp.maximum(counts, 1)
    return rows, Sums(largest + jnp.log(exponentials), totals / counts, counts)


def _local_gradients(
    left: Float[Array, "n E"],
    right: Float[Array, "n E"],
    products: Array,
    valid: Array,
    of_rows: tuple[Array, ...],
    of_columns: tuple[Array, ...],
    chunk: int | None,
    split: bool,
) -> tuple[Float[Array, "n E"], Float[Array, "n E"]]:
    """Of the rows of one device on either side."""
    first, candidates = _candidates(right, products, valid, split)
    column_lse, column_slope, column_mean = of_columns

    def step(total: Array, rows: tuple[Array, ...]) -> tuple[Array, Array]:
        lse, slope, mean = (x[:, None] for x in rows[4:])
        logits, allowed = _logits(rows[:4], candidates)
        gradient = slope * jnp.exp(logits - lse) + mean
        gradient = gradient + column_slope * jnp.exp(logits - column_lse) + column_mean
        gradient = jnp.where(allowed, gradient, 0.0)
        total = total + jnp.matmul(gradient.T, rows[0], precision="highest")
        return total, jnp.matmul(gradient, candidates[0], precision="highest")

    start = jnp.zeros_like(candidates[0])
    total, of_left = _in_chunks(step, start, (left, products, valid), first, chunk, of_rows)
    return of_left, jax.lax.psum_scatter(total, BATCH_AXES, tiled=True) if split else total


def _candidates(right: Array, products: Array, valid: Array, split: bool) -> tuple[Any, tuple[Array, Array, Array]]:
    """The place of this device's first row, and the candidates of all devices."""
    given = right, products, valid
    if not split:
        return 0, given
    right, products, valid = (jax.lax.all_gather(x, BATCH_AXES, tiled=True) for x in given)
    return jax.lax.axis_index(BATCH_AXES) * len(given[0]), (right, products, valid)


def _logits(rows: tuple[Array, ...], candidates: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    """Logits of some rows, excluded where a column is no candidate, and where it is one."""
    (left, products, valid, places), (others, other_products, other_valid) = rows, candidates
    positive = jnp.arange(len(others)) == places[:, None]
    allowed = (positive | (products[:, None] != other_products)) & other_valid & valid[:, None]
    # Not in the accelerators' short floats: an error of 2⁻⁸ in a similarity is one of 2⁻⁸/τ in the logit.
    return jnp.where(allowed, jnp.matmul(left, others.T, precision="highest"), EXCLUDED), allowed


def _in_chunks(
    step: Callable[[Any, tuple[Array, ...]], tuple[Any, Any]],
    start: Any,
    rows: tuple[Array, ...],
    first: Any,
    chunk: int | None,
    more: tuple[Array, ...] = (),
) -> tuple[Any, Any]:
    """`step` over rows, their places and more of them, at most `chunk` at a time: what it carries, and each row's."""
    n = len(rows[0])
    parts = (*rows, first + jnp.arange(n), *more)
    if chunk is None or chunk >= n:
        return step(start, parts)
    chunks = -(-n // chunk)
    size = -(-n // chunks)

    def cut(x: Array) -> Array:  # padding is not valid: zeros
        return jnp.pad(x, ((0, chunks * size - n),) + ((0, 0),) * (x.ndim - 1)).reshape(chunks, size, *x.shape[1:])

    carried, given = jax.lax.scan(step, start, jax.tree.map(cut, parts))
    return carried, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:n], given)
