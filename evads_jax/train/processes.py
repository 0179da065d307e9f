"""What the processes of one run do together; with a single process nothing is sent.

Every process must call these at the same points, and from its main thread: they are computations on all devices.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from evads_jax.errors import UserError

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


def total(counts: Mapping[str, int]) -> dict[str, int]:
    """The sums over all processes; all have the same names."""
    if jax.process_count() == 1:
        return dict(counts)
    every = multihost_utils.process_allgather(np.array(list(counts.values()), np.int32))
    return dict(zip(counts, every.sum(axis=0).tolist(), strict=True))


def everyones(told: bytes) -> list[bytes]:
    """What each process gave, in their order."""
    if jax.process_count() == 1:
        return [told]
    sizes = np.ravel(multihost_utils.process_allgather(np.asarray(len(told), np.int32))).tolist()
    padded = np.zeros(max(sizes), np.uint8)  # all must give arrays of one shape
    padded[: len(told)] = np.frombuffer(told, np.uint8)
    if not padded.size:
        return [b""] * len(sizes)
    every = multihost_utils.process_allgather(padded)
    return [row[:size].tobytes() for row, size in zip(every, sizes, strict=True)]


def fail_together(failure: BaseException | None, what: str, where: str) -> None:
    """Ends all processes where something stopped one of them, so that none waits for it.

    Args:
      failure: what stopped this process; None where nothing did.
      what: what the process could not do, for the others.
      where: the field or file that this is about.

    Raises:
      BaseException: `failure`, where there is one.
      UserError: another process failed; its line is told.
    """
    lines = everyones(b"" if failure is None else (str(failure) or type(failure).__name__).encode())
    if failure is not None:
        raise failure
    for process, line in enumerate(lines):
        if line:
            raise UserError(f"process {process} could not {what}: {line.decode()}", where)
