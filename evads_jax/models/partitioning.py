"""Where parameters and batches live: one table from logical axes to mesh axes.

The mesh has three axes: `data` replicates parameters and splits batches, `fsdp` splits both, `tp` splits the heads,
the MLPs and the vocabulary. Axes are Auto: the compiler places what this table does not say.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from evads_jax.errors import UserError

MESH_AXES = ("data", "fsdp", "tp")
BATCH_AXES = ("data", "fsdp")

RULES: Mapping[str, str | None] = {
    "layers": None,
    "vocabulary": "tp",
    "embed": "fsdp",
    "heads": "tp",
    "kv_heads": "tp",
    "head_width": None,
    "mlp": "tp",
    "vision_embed": "fsdp",
    "vision_heads": "tp",
    "vision_mlp": "tp",
    "merged": "tp",
    "classes": "tp",
}


def make_mesh(data: int = 1, fsdp: int = 1, tp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of the first data · fsdp · tp devices.

    Args:
      data: size of the axis that replicates parameters.
      fsdp: size of the axis that splits parameters and batches.
      tp: size of the axis that splits heads, MLPs and the vocabulary.
      devices: the devices to choose from; default: those of this run.

    Raises:
      UserError: there are fewer devices than that, or an axis has no size.
    """
    sizes = dict(zip(MESH_AXES, (data, fsdp, tp), strict=True))
    if bad := [axis for axis, size in sizes.items() if size < 1]:
        raise UserError(f"a mesh axis of size {sizes[bad[0]]}", f"config.mesh.{bad[0]}", "1 leaves the axis out")
    wanted, devices = data * fsdp * tp, jax.devices() if devices is None else devices
    if wanted > len(devices):
        raise UserError(
            f"a mesh of data {data} × fsdp {fsdp} × tp {tp} needs {wanted} devices, there are {len(devices)}",
            "config.mesh",
        )
    return jax.make_mesh((data, fsdp, tp), MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices[:wanted])


def mesh_of(section: Any) -> Mesh | None:
    """The mesh that a config's section (`data`, `fsdp`, `tp`) asks for; None for one device.

    Raises:
      UserError: as `make_mesh`.
    """
    sizes = section.data, section.fsdp, section.tp
    return None if sizes == (1, 1, 1) else make_mesh(*sizes)


def check_heads(tp: int, heads: int) -> None:
    """Refuses a tensor axis that does not divide the query heads.

    Key/value heads, of which a model may have fewer than `tp`, stay whole then: every device of the axis holds all of
    them (`shardings`), which costs memory and changes no result.

    Raises:
      UserError: `tp` does not divide `heads`.
    """
    if tp < 1 or heads % tp:
        raise UserError(f"tp {tp} does not divide the model's {heads} heads", "config.mesh.tp", "take a divisor")


def shardings(axes: Any, mesh: Mesh, abstract: Any, rules: Mapping[str, str | None] = RULES) -> Any:
    """The sharding of every parameter.

    A dimension that its mesh axis does not divide stays whole: a small model runs on any mesh.

    Args:
      axes: tree of tuples of logical names (`qwen_vl.axes`).
      mesh: from `make_mesh`.
      abstract: the same tree with shapes (`qwen_vl.abstract`, or the parameters themselves).
      rules: logical name → mesh axis.

    Returns:
      The same tree with a `NamedSharding` per parameter.
    """

    def sharding(leaf: Any, names: tuple[str | None, ...]) -> NamedSharding:
        spec = []
        for size, name in zip(leaf.shape, names, strict=True):
            axis = None if name is None else rules[name]
            spec.append(axis if axis is not None and size % mesh.shape[axis] == 0 else None)
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(sharding, abstract, axes)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of every array of a batch: its first axis over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def take_rows(table: jax.Array, index: jax.Array) -> jax.Array:
    """`table[index]`, an index out of range clipped; on a mesh that divides B, each device from its own rows.

    These are those at its place in `by_rows`; there, an index outside of them is clipped to their edge. Nothing is
    sent, in either pass. Of a plain gather the compiler knows no indices, and it brings the table to every device.

    Args:
      table: [n, …], of which each of B neighbours in turn has n/B rows.
      index: [B, T], rows of `table`; of b, among its own or on its device.
    """
    B = len(index)
    if len(table) % B or not splits(jax.sharding.get_abstract_mesh(), B):
        return jnp.take(table, jnp.maximum(index, 0), axis=0, mode="clip")
    split = PartitionSpec(BATCH_AXES)

    def own(table: jax.Array, index: jax.Array) -> jax.Array:
        first = jax.lax.axis_index(BATCH_AXES) * len(table)
        return jnp.take(table, jnp.maximum(index - first, 0), axis=0, mode="clip")

    return jax.shard_map(own, in_specs=split, out_specs=split, axis_names=set(BATCH_AXES))(table, index)


def by_rows(x: jax.Array) -> jax.Array:
    """`x` with its first axis over `data` and `fsdp` on the current mesh (`jax.set_mesh`), where these divide it.

    The compiler must be told where activations live: it sees a matrix that is split over `fsdp` where it is contracted,
    and may find it cheaper to split the product there, hold the whole batch on every device and add up what they have.
    """
    return _split_first(x, BATCH_AXES) if splits(jax.sharding.get_abstract_mesh(), x.shape[0]) else x


def by_tokens(x: jax.Array) -> jax.Array:
    """`by_rows`, and the rows of each of its parts over `tp`, where this divides them too.

    For what is only added up and normalised, token by token: between layers a device of `tp` holds a part of its
    prompts' activations, where it would hold what the others hold as well.
    """
    mesh = jax.sharding.get_abstract_mesh()
    whole = splits(mesh, x.shape[0]) and x.shape[0] % mesh.size == 0
    return _split_first(x, MESH_AXES) if whole else by_rows(x)


@jax.custom_vjp
def gather_tokens(x: jax.Array) -> jax.Array:
    """`by_tokens` before, `by_rows` behind: what goes into a layer's products. Gradients are split again.

    With `split_tokens` these are the pair of Korthikanti et al. 2022, «Reducing activation recomputation in large
    transformer models», section 4.2.2: a sum over `tp` that is split at once and brought together later moves what one
    that is whole at once does.
    """
    return by_rows(x)


@jax.custom_vjp
def split_tokens(x: jax.Array) -> jax.Array:
    """`by_rows` before, `by_tokens` behind: what comes out of a layer's products. Gradients are brought together."""
    return _split_rows(x)


def _split_rows(x: jax.Array) -> jax.Array:
    # In two steps: asked for a sum over `tp` whose rows are split over `tp`, the partitioner gives up both, and every
    # device multiplies the rows of all. Sum and slice together become one reduce-scatter later.
    return by_tokens(by_rows(x))


gather_tokens.defvjp(lambda x: (by_rows(x), None), lambda _, gradient: (_split_rows(gradient),))
split_tokens.defvjp(lambda x: (_split_rows(x), None), lambda _, gradient: (by_rows(gradient),))


def _split_first(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    rest = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes, *rest))


def several(mesh: AbstractMesh) -> bool:
    """Whether a mesh has the axes of `make_mesh` and more than one device; the current one may be empty."""
    return not mesh.empty and mesh.size > 1 and set(mesh.axis_names) == set(MESH_AXES)


def splits(mesh: AbstractMesh, rows: int) -> bool:
    """Whether a mesh of several devices splits so many rows over `data` and `fsdp` without remainder."""
    return several(mesh) and rows % (mesh.shape["data"] * mesh.shape["fsdp"]) == 0


def batch_shardings(batch: Any, mesh: Mesh) -> Any:
    """The sharding of every array of a batch: `batch_sharding` where its first axis divides, else whole everywhere.

    Args:
      batch: arrays, or their shapes.
      mesh: from `make_mesh`.
    """
    shares = mesh.shape["data"] * mesh.shape["fsdp"]
    split, whole = batch_sharding(mesh), NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: split if x.ndim and x.shape[0] % shares == 0 else whole, batch)


def rows_by_process(
    batch: int, mesh: Mesh, process_of: Callable[[jax.Device], int] = lambda device: device.process_index
) -> dict[int, np.ndarray]:
    """Which rows of a batch the devices of each process hold.

    Processes share rows where `tp` crosses them, and the rows of one need not be neighbours: only the mesh knows.

    Args:
      batch: rows; `data` · `fsdp` must divide them.
      mesh: from `make_mesh`.
      process_of: device → number of its process.

    Returns:
      Number of a process → its rows, ascending. A process without a device of the mesh is not there.
    """
    held: dict[int, set[int]] = {}
    for device, (rows,) in batch_sharding(mesh).devices_indices_map((batch,)).items():
        held.setdefault(process_of(device), set()).update(range(*rows.indices(batch)))
    return {process: np.array(sorted(rows)) for process, rows in held.items()}
