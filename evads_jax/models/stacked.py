"""Trees of parameters of alike layers, stacked on a leading axis, taken apart."""

from collections.abc import Sequence
from typing import Any

import jax

Layers = Any


def split(layers: Layers, lengths: Sequence[int]) -> list[Layers]:
    """Stretches of consecutive layers. One split per parameter, whose gradient is one concatenation.

    Args:
      layers: parameters of Σ `lengths` layers.
      lengths: layers of each stretch.
    """
    leaves, tree = jax.tree.flatten(layers)
    pieces = [jax.lax.split(leaf, list(lengths)) for leaf in leaves]
    return [jax.tree.unflatten(tree, [piece[i] for piece in pieces]) for i in range(len(lengths))]


def unstack(layers: Layers, count: int) -> list[Layers]:
    """The parameters of each of `count` layers."""
    return [jax.tree.map(lambda x: x[0], layer) for layer in split(layers, [1] * count)]
