"""What the processes of one run do together; with a single process nothing is sent.

Every process must call these at the same points, and from its main thread: they are computations on all devices. What
may fail on one of them goes through `together` or `by_first`, so that none waits for a process that has ended.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from evads_jax.errors import UserError

Tree = Any
T = TypeVar("T")


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
    if not max(sizes):
        return [b""] * len(sizes)
    every = multihost_utils.process_allgather(_padded(told, max(sizes)))
    return [row[:size].tobytes() for row, size in zip(every, sizes, strict=True)]


def values(value: Any) -> list[Any]:
    """The JSON value that each process gave, in their order."""
    if jax.process_count() == 1:
        return [value]
    return [json.loads(told) for told in everyones(json.dumps(value).encode())]


def fail_together(failure: BaseException | None, what: str, where: str) -> None:
    """Ends all processes where something stopped one of them, so that none waits for it.

    Args:
      failure: what stopped this process; None where nothing did.
      what: what the process could not do, for the others.
      where: the field or file that this is about.

    Raises:
      BaseException: `failure`, where there is one.
      SystemExit: another process ends with this code, after a dry run or SIGTERM.
      UserError: another process failed; its line is told.
    """
    said = None
    if failure is not None:
        said = {
            "line": str(failure) or type(failure).__name__,
            "code": failure.code if isinstance(failure, SystemExit) else None,
        }
    told = everyones(b"" if said is None else json.dumps(said).encode())
    if failure is not None:
        raise failure
    for process, line in enumerate(told):
        if line:
            failed = json.loads(line)
            if failed["code"] is not None:
                raise SystemExit(failed["code"])
            raise UserError(f"process {process} could not {what}: {failed['line']}", where)


def together(work: Callable[[], T], what: str, where: str) -> T:
    """What `work` gives on this process, when it is done on all of them.

    Args:
      work: does nothing that all processes must do together.
      what: what it does, for the others' line where it fails.
      where: the field or file that this is about.

    Raises:
      BaseException: what `work` raises here; on another process, see `fail_together`.
    """
    if jax.process_count() == 1:
        return work()
    made: Any = None
    failure: BaseException | None = None
    try:
        made = work()
    except BaseException as error:
        failure = error
    fail_together(failure, what, where)
    return made


def by_first(work: Callable[[], T], what: str, where: str) -> T:
    """What `work` gives on process 0, which alone does it, on every process; on the others as JSON brings it.

    Args:
      work: reads or writes what only process 0 does, and gives a JSON value.
      what: what it does, for the others' line where it fails.
      where: the field or file that this is about.

    Raises:
      BaseException: as `together`.
    """
    if jax.process_count() == 1:
        return work()

    def told() -> tuple[Any, bytes]:
        made = work() if jax.process_index() == 0 else None
        return made, json.dumps(made).encode()

    made, text = together(told, what, where)
    text = from_one(0, text)
    return made if jax.process_index() == 0 else json.loads(text)


def from_one(process: int, told: bytes) -> bytes:
    """What one process gave. Less is held for it than for `everyones`, which has a text of each."""
    if jax.process_count() == 1:
        return told
    source = jax.process_index() == process
    size = int(multihost_utils.broadcast_one_to_all(np.asarray(len(told), np.int32), source))
    padded = _padded(told if source else b"", max(size, 1))
    return multihost_utils.broadcast_one_to_all(padded, source)[:size].tobytes()


def beside(folder: str | Path) -> list[int]:
    """The processes whose folder of this name is the same folder, this one among them, ascending.

    On one file system these are all; machines with disks of their own have one each. The folder is made: every process
    leaves a mark in it and looks whose marks it finds.

    Args:
      folder: the folder.

    Raises:
      UserError, OSError: a process cannot write there.
    """
    if jax.process_count() == 1:
        return [0]
    name = by_first(lambda: secrets.token_hex(8), "name its marks", str(folder))
    marks = [Path(folder) / f".{name}-{process}.tmp" for process in range(jax.process_count())]
    mine = marks[jax.process_index()]

    def leave() -> None:
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.touch()

    together(leave, "write to its folder", str(folder))
    try:
        return together(lambda: [i for i, mark in enumerate(marks) if mark.exists()], "look around", str(folder))
    finally:
        mine.unlink(missing_ok=True)


def _padded(told: bytes, size: int) -> np.ndarray:
    """Bytes as an array; all must give one shape, and there are few of them, since each is a program of its own."""
    padded = np.zeros(1 << (size - 1).bit_length(), np.uint8)
    padded[: len(told)] = np.frombuffer(told, np.uint8)
    return padded
