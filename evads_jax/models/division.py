"""How a batch is divided among the processes of a run: which rows each reads, holds and has judged.

A batch has the same rows in the same order whatever the number of processes. A process reads the rows that its devices
hold under the mesh, and no others. Where `tp` crosses processes, several hold the same rows and read the same units;
the one with the lowest number speaks for them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from evads_jax.errors import UserError
from evads_jax.models import partitioning
from evads_jax.processes import values

Tree = Any
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Division:
    """The rows of one kind of batch, by process.

    Attributes:
      mesh: the devices; None for one device.
      rows: for each process, the numbers of its rows, ascending. Empty for a single process: it has every row of
        batches of any size.
    """

    mesh: jax.sharding.Mesh | None = None
    rows: tuple[np.ndarray, ...] = ()

    @classmethod
    def of(cls, mesh: jax.sharding.Mesh | None, batch: int, field: str) -> "Division":
        """How batches of so many rows are divided among the processes of this run.

        Args:
          mesh: the devices; without one, every process has every row.
          batch: rows of a batch.
          field: the config field that says so.

        Raises:
          UserError: with several processes, the batch does not divide among the mesh's devices, or the processes have
            unequal parts of the mesh.
        """
        count = jax.process_count()
        if mesh is None or count == 1:
            return cls(mesh, (np.arange(batch),) * count)
        shares = mesh.shape["data"] * mesh.shape["fsdp"]
        if batch % shares:
            what = f"a batch of {batch} does not divide among {count} processes with data · fsdp = {shares}"
            raise UserError(what, field, f"take a multiple of {shares}")
        held = partitioning.rows_by_process(batch, mesh)
        sizes = [len(held.get(process, ())) for process in range(count)]
        if len(set(sizes)) > 1:
            what = f"the mesh gives the processes {', '.join(map(str, sizes))} rows of a batch of {batch}"
            raise UserError(what, "config.mesh", "every process needs an equal part: use all devices")
        return cls(mesh, tuple(held[process] for process in range(count)))

    @property
    def numbers(self) -> list[int]:
        """The rows that this process reads."""
        return self.rows[jax.process_index()].tolist()

    @property
    def mine(self) -> list[int] | slice:
        """What takes this process's rows from an array of all rows."""
        return self.numbers if self.rows else slice(None)

    def spoken_for(self, values: Sequence[T]) -> list[T | None]:
        """A value for each of this process's rows, None for those that another process speaks for."""
        if jax.process_count() == 1:
            return list(values)
        others = {row for rows in self.rows[: jax.process_index()] for row in rows.tolist()}
        return [None if row in others else value for row, value in zip(self.numbers, values, strict=True)]

    def place(self, own: Tree) -> Tree:
        """Arrays of this process's rows as arrays of the whole batch on the devices.

        An array may have several entries for each row, as a prompt has temporal units.
        """
        if self.mesh is None or jax.process_count() == 1:
            return place(own, self.mesh)
        count = len(self.numbers)
        batch = 1 + max(int(rows.max()) for rows in self.rows)

        def whole(x: np.ndarray) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((len(x) // count * batch, *x.shape[1:]), x.dtype)

        shapes = jax.tree.map(whole, own)
        where = partitioning.batch_shardings(shapes, self.mesh)
        return jax.tree.map(
            lambda x, sharding, like: jax.make_array_from_process_local_data(sharding, x, like.shape),
            own, where, shapes,
        )  # fmt: skip

    def place_whole(self, batch: Tree) -> Tree:
        """Arrays of all rows, which every process has, on the devices."""
        return place(batch, self.mesh)

    def fetch(self, batch: Tree) -> Tree:
        """This process's rows of arrays on the devices, on the host."""
        if self.mesh is None or jax.process_count() == 1:
            return jax.device_get(batch)

        def own(x: jax.Array) -> np.ndarray:
            parts = {shard.index[0].indices(len(x))[0]: shard.data for shard in x.addressable_shards}
            return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])

        return jax.tree.map(own, jax.device_put(batch, partitioning.batch_shardings(batch, self.mesh)))

    def whole(self, own: np.ndarray) -> np.ndarray:
        """What the processes know of their rows, for all rows, on every process; of no more than 32 bits."""
        if jax.process_count() == 1:
            return own
        return self._joined(list(multihost_utils.process_allgather(own)))

    def collect(self, own: Sequence[Any]) -> list[Any]:
        """JSON values of this process's rows, for all rows, on every process."""
        if jax.process_count() == 1:
            return list(own)
        parts = [np.fromiter(part, dtype=object, count=len(part)) for part in values(list(own))]
        return self._joined(parts).tolist()

    def _joined(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """The parts of all processes by row; of several that have a row, the lowest's."""
        batch = 1 + max(int(rows.max()) for rows in self.rows)
        joined = np.empty((batch, *parts[0].shape[1:]), parts[0].dtype)
        for rows, part in reversed(list(zip(self.rows, parts, strict=True))):
            joined[rows] = part
        return joined


def place(batch: Tree, mesh: jax.sharding.Mesh | None) -> Tree:
    """Arrays on the default device; with a mesh, split over `data` and `fsdp` along their first axis if it divides.

    With several processes, every one has the whole batch.
    """
    if mesh is None:
        return jax.device_put(batch)
    shardings = partitioning.batch_shardings(batch, mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, shardings)
    # device_put would first send the batch around to see that all have the same.
    return jax.tree.map(lambda x, where: jax.make_array_from_callback(x.shape, where, x.__getitem__), batch, shardings)
