"""What two processes of two devices each hold, place, fetch and tell each other, on meshes of all kinds; a program.

    XLA_FLAGS=--xla_force_host_platform_device_count=2 python divided.py WORKDIR PORT COUNT INDEX

Prints the rows that this process speaks for, a line for each mesh, and the line that a failure ends it with.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from gloo import begin
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from evads_jax.errors import UserError
from evads_jax.models.division import Division
from evads_jax.models.partitioning import MESH_AXES
from evads_jax.processes import fail_together, gather, total

B, UNITS = 8, 3
ROWS = np.arange(B * 5, dtype=np.int32).reshape(B, 5)
PIXELS = np.arange(B * UNITS * 2, dtype=np.float32).reshape(B, UNITS, 2)


def check(division):
    mine = division.mine
    placed = division.place((ROWS[mine], PIXELS[mine].reshape(-1, 2)))
    rows, pixels = gather(placed)
    np.testing.assert_array_equal(rows, ROWS)
    np.testing.assert_array_equal(pixels, PIXELS.reshape(-1, 2))
    replicated = jax.device_put(placed[0], NamedSharding(division.mesh, PartitionSpec()))
    for array in (placed[0], replicated):  # the layout of a result is the compiler's choice
        np.testing.assert_array_equal(division.fetch(array), ROWS[mine])
    np.testing.assert_array_equal(gather(division.place_whole(ROWS)), ROWS)
    floats = np.where(ROWS % 7, ROWS / 2, np.nan).astype(np.float32)
    np.testing.assert_array_equal(division.whole(floats[mine]), floats)
    assert division.collect([[row, "é"] for row in mine]) == [[row, "é"] for row in range(B)]
    return [row for row in division.spoken_for(mine) if row is not None]


if __name__ == "__main__":
    workdir, (port, count, index) = Path(sys.argv[1]), map(int, sys.argv[2:])
    begin(workdir, port, count, index)
    a, b, c, d = jax.devices()  # of two processes, in their order
    for devices, sizes in (
        ([a, b, c, d], (1, 4, 1)),
        ([a, c, b, d], (2, 2, 1)),
        ([a, b, c, d], (1, 2, 2)),
        ([a, c, b, d], (1, 2, 2)),
    ):
        mesh = Mesh(np.array(devices).reshape(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * 3)
        with jax.set_mesh(mesh):
            print("rows", *check(Division.of(mesh, B, "config.rl.batch_prompts")))
    assert total({"questions": 1 + index, "cut": 2}) == {"questions": 3, "cut": 4}
    try:
        fail_together(UserError("it is down", "judge") if index else None, "have it judged", "config.judge")
    except UserError as error:
        print(error)
