"""LoRA (arXiv 2106.09685): what is trained is a product of two thin matrices beside each frozen one.

    x·W  →  x·W + α/r · (x·A)·B        A [in, r], B [r, out]

A starts random and B at zero, so that an adapted model starts as the frozen one, bit for bit. W + α/r·A·B is not
formed while training: nothing of W's size is made, kept or differentiated, and W may be held in bfloat16 (`hold`). An
adapter stands in the parameters' tree where its matrix stood (`combine`), and every forward pass, the loss's and the
sampler's, multiplies through `matmul`. Adapters may lie over each other, as that of MG-GRPO does over that of SFT:
without the upper one the model is the SFT result. `merge` folds all of them into plain matrices.

Factors are float32, as is everything that is trained, and are multiplied in the type of the activations.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from evads_jax.errors import UserError

Tree = Any

# Group → where its linear layers stand in the tree of parameters. Norms, biases and tables are never adapted.
GROUPS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "text": (("text", "layers"),),
    "merger": (("vision", "merger"), ("vision", "deepstack")),
    "vision": (("vision", "layers"),),
}
_WIDE = "position"  # a table that is interpolated in float32 whatever the activations' type


@struct.dataclass
class Factors:
    """The trained product beside one matrix, or beside each of a stack of them.

    Attributes:
      a: A; several input axes are one.
      b: B; several output axes are one.
      scale: α/r.
    """

    a: Float[Array, "*stack inputs r"]
    b: Float[Array, "*stack r outputs"]
    scale: float = struct.field(pytree_node=False)


@struct.dataclass
class Adapted:
    """A matrix and what is added to it; stands in a tree of parameters in place of the matrix.

    Attributes:
      weight: the frozen matrix [*stack, inputs…, outputs…], itself adapted where adapters lie over each other.
      factors: the product.
    """

    weight: "Array | Adapted"
    factors: Factors

    @property
    def shape(self) -> tuple[int, ...]:
        """The matrix's shape."""
        return self.weight.shape


def matmul(x: Float[Array, "n inputs"], weight: Array | Adapted) -> Float[Array, "n outputs"]:
    """`x` times a matrix, adapted or not, as two-dimensional products in the type of `x`.

    Args:
      x: the rows.
      weight: [inputs…, outputs…], several axes of either read as one.
    """
    if isinstance(weight, Adapted):
        a, b = (factor.astype(x.dtype) for factor in (weight.factors.a, weight.factors.b))
        return matmul(x, weight.weight) + weight.factors.scale * ((x @ a) @ b)
    return x @ weight.astype(x.dtype).reshape(x.shape[1], -1)


@dataclasses.dataclass(frozen=True)
class Declared:
    """One factor before it has values.

    Attributes:
      shape: its shape.
      axes: its logical axes, see `evads_jax.models.partitioning`.
      bound: it starts uniform in ± this.
    """

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    bound: float


def declare(abstract: Tree, axes: Tree, fan_in: Tree, rank: int, alpha: float, groups: Sequence[str]) -> Tree:
    """The adapter of a model's linear layers, from the declaration of its parameters.

    Args:
      abstract: the parameters' shapes (`qwen_vl.abstract`).
      axes: their logical axes (`qwen_vl.axes`).
      fan_in: what a matrix sums over, 0 at norms and biases (`qwen_vl.fan_in`).
      rank: r.
      alpha: α.
      groups: which linear layers, of `GROUPS`.

    Returns:
      A tree with the names of the parameters' tree, `Factors` of `Declared` at the matrices that are adapted, and
      nothing else.

    Raises:
      UserError: an unknown group, or no group.
    """
    if unknown := [group for group in groups if group not in GROUPS]:
        raise UserError(f"unknown group {unknown[0]!r}", "config.lora.groups", "of " + ", ".join(GROUPS))
    if not groups or rank < 1:
        what = "an adapter needs a rank and at least one group of layers"
        raise UserError(what, "config.lora", "of " + ", ".join(GROUPS) + "; without LoRA, set lora.rank to 0")
    inside = [prefix for group in groups for prefix in GROUPS[group]]

    def factors(path: tuple[str, ...], leaf: Any, names: tuple[str | None, ...], inputs: int) -> Factors | None:
        if not inputs or not any(path[: len(prefix)] == prefix for prefix in inside):
            return None
        stack = names.count("layers")
        first = stack + 1
        while math.prod(leaf.shape[stack:first]) != inputs:
            first += 1
        outputs = math.prod(leaf.shape[first:])
        # PEFT's and torch's bound, √3 below that of a matrix that keeps the variance.
        a = Declared((*leaf.shape[:stack], inputs, rank), (*names[: stack + 1], None), inputs**-0.5)
        b = Declared((*leaf.shape[:stack], rank, outputs), (*names[:stack], None, names[first]), 0.0)
        return Factors(a, b, alpha / rank)  # type: ignore[arg-type]  # they are declared here, not yet arrays

    def walk(path: tuple[str, ...], *trees: Any) -> Any:
        if not isinstance(trees[0], Mapping):
            return factors(path, *trees)
        found = {name: walk((*path, name), *(tree[name] for tree in trees)) for name in trees[0]}
        return {name: value for name, value in found.items() if value is not None} or None

    return walk((), abstract, axes, fan_in)


def init(declared: Tree, key: jax.Array) -> Tree:
    """Draws A; B is zero.

    Args:
      declared: from `declare`.
      key: a PRNG key; the same key gives the same factors.

    Returns:
      The tree with float32 arrays.
    """
    leaves, tree = jax.tree.flatten(declared)
    keys = jax.random.split(key, len(leaves))
    draws = (
        jax.random.uniform(k, leaf.shape, jnp.float32, -1.0, 1.0) * leaf.bound
        for k, leaf in zip(keys, leaves, strict=True)
    )
    return jax.tree.unflatten(tree, list(draws))


def combine(params: Tree, trained: Tree) -> Tree:
    """The whole model, from what is frozen and what is trained.

    Args:
      params: the frozen parameters; None where everything is trained.
      trained: a tree with the names of the whole one: `Factors` are laid over the frozen matrix of the same place,
        other leaves stand for themselves.
    """
    if isinstance(trained, Factors):
        return Adapted(params, trained)
    if isinstance(params, Mapping) and isinstance(trained, Mapping):
        names = [*params, *(name for name in trained if name not in params)]
        return {name: combine(params.get(name), trained.get(name)) for name in names}
    return params if trained is None else trained


def merge(params: Tree) -> Tree:
    """The parameters with every adapter folded into its matrix: W + α/r·A·B, summed in float32, in the type of W."""
    return jax.tree.map(_merged, params, is_leaf=lambda x: isinstance(x, Adapted))


def _merged(leaf: Any) -> Any:
    if not isinstance(leaf, Adapted):
        return leaf
    total: Any = 0.0
    while isinstance(leaf, Adapted):
        product = jnp.matmul(leaf.factors.a, leaf.factors.b, precision="highest")
        total, leaf = total + leaf.factors.scale * product.reshape(leaf.shape), leaf.weight
    return (leaf.astype(jnp.float32) + total).astype(leaf.dtype)


def hold(params: Tree, fan_in: Tree, dtype: str) -> Tree:
    """Frozen parameters as they are kept beside an adapter: matrices in the type of the activations.

    They are only ever multiplied in that type, so this changes no result and halves the memory in bfloat16. Norms,
    biases and the table of vision positions stay float32.

    Args:
      params: the parameters.
      fan_in: as in `declare`.
      dtype: the activations' type.
    """

    def cast(path: Any, leaf: Array, inputs: int) -> Array:
        return leaf.astype(dtype) if inputs and path[-1].key != _WIDE else leaf

    return jax.tree_util.tree_map_with_path(cast, params, fan_in)
