"""What the processes of one run do together; with a single process nothing is sent.

Every process must call these at the same points, and from its main thread: they are computations on all devices.
"""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

Tree = Any


def agree(flag: bool) -> bool:
    """Whether the flag is set on any process, so that all decide alike."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def gather(tree: Tree) -> Tree:
    """The arrays of a tree on the host, whole, on every process."""

    def whole(x: Any) -> Any:
        if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
            return x
        return multihost_utils.process_allgather(x, tiled=True)

    return jax.device_get(jax.tree.map(whole, tree))


def from_first(values: np.ndarray) -> np.ndarray:
    """What process 0 gave; the others give an array of the same shape and type."""
    if jax.process_count() == 1:
        return values
    return np.asarray(multihost_utils.broadcast_one_to_all(values))
