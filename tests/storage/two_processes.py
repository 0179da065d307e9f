"""One of two processes that write a checkpoint to a bucket and read it: `python two_processes.py URL PORT INDEX`."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from evads_jax.events import EventLog
from evads_jax.storage import run_folder
from evads_jax.train.checkpoint import Checkpoints, finished, load_params
from evads_jax.train.state import create


def assert_equal(one, other):
    """What of two arrays is on this process."""
    for mine, yours in zip(one.addressable_shards, other.addressable_shards, strict=True):
        np.testing.assert_array_equal(mine.data, yours.data)


if __name__ == "__main__":
    url, port, index = sys.argv[1:]
    jax.distributed.initialize(f"localhost:{port}", 2, int(index))
    mesh = Mesh(np.array(jax.devices()), ("x",))
    split, whole = NamedSharding(mesh, PartitionSpec("x")), NamedSharding(mesh, PartitionSpec())
    state = create({"weight": jnp.arange(4.0)}, optax.sgd(0.1, momentum=0.9))
    state = jax.tree.map(lambda x: jax.device_put(np.asarray(x), split if np.ndim(x) else whole), state)
    with run_folder(url) as workdir:
        log = EventLog(workdir)
        log.write("train", step=1)
        log.sync()
        checkpoints = Checkpoints(workdir, "toy")
        checkpoints.save(1, state, {"index": int(index)}, {"events": 1})
        checkpoints.wait()
        restored, data, meta = checkpoints.restore(1, state)
        jax.tree.map(assert_equal, restored, state)
        assert (data, meta) == ({"index": int(index)}, {"events": 1})
        checkpoints.finish({"step": 1, "best_step": 1})
        multihost_utils.sync_global_devices("finished")
        assert finished(workdir, "toy") == {"step": 1, "best_step": 1}
        jax.tree.map(assert_equal, load_params(workdir, "toy", state.params), state.params)
        checkpoints.close()
