"""SFT of a tiny model by one process or several over gloo; a program, so that there can be several.

    python two_processes.py WORKDIR PORT COUNT INDEX [LAST]

With LAST it ends, as if killed, when that step's batch is drawn. Writes the final parameters to WORKDIR/params.npz.
"""

import os
import sys
from pathlib import Path

import jax
import numpy as np
import optax
from eight_devices import MODEL, batch

from evads_jax.events import EventLog
from evads_jax.models import partitioning, qwen_vl
from evads_jax.train.context import place
from evads_jax.train.inputs import SFTBatch
from evads_jax.train.loop import fit
from evads_jax.train.optimizer import Optimizer
from evads_jax.train.sft import SFTLearner
from evads_jax.train.stage import Stage


class Batches:
    """Batches that depend on their index only; each process gets the whole and places its part."""

    def __init__(self, last=None):
        self.index, self.last = 0, last

    def __next__(self):
        self.index += 1
        if self.index == self.last:
            os._exit(9)
        prompt, samples = batch(self.index)
        return SFTBatch(prompt, samples.suffix)

    def get_state(self):
        return {"index": self.index}

    def set_state(self, value):
        self.index = value["index"]


if __name__ == "__main__":
    workdir, port, count, index, *last = sys.argv[1:]
    if int(count) > 1:
        jax.distributed.initialize(f"localhost:{port}", int(count), int(index))
    mesh = partitioning.make_mesh(fsdp=jax.device_count())
    drawn = qwen_vl.init(MODEL, jax.random.key(0))
    params = jax.device_put(drawn, partitioning.shardings(qwen_vl.axes(MODEL), mesh, drawn))
    made = Optimizer(optax.adam(1e-2), optax.constant_schedule(1e-2))
    learner = SFTLearner(params, MODEL, made, place=lambda one: place(one, mesh))
    stage = Stage("sft", seed=0, max_steps=4, checkpoint_every=1)
    with jax.set_mesh(mesh):
        log = EventLog(workdir)
        result = fit(learner, Batches(int(last[0]) if last else None), stage, Path(workdir), log)
        whole = jax.jit(lambda x: x, out_shardings=jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
        leaves = [np.asarray(x) for x in jax.tree.leaves(whole(result.params))]
    if jax.process_index() == 0:
        np.savez(Path(workdir) / "params.npz", *leaves)
