"""SFT and MG-GRPO of the tiny experiment by one process or several over gloo; a program, so that there can be several.

    python two_processes.py WORKDIR PORT COUNT INDEX [LAST]

With LAST it ends, as if killed, when that step of MG-GRPO begins. Process INDEX appends what its judge is asked to
WORKDIR/asked_INDEX.jsonl, a line per call; the first writes the final parameters to WORKDIR/params.npz.
"""

import dataclasses
import json
import os
import sys
import zlib
from pathlib import Path

import jax
import numpy as np
import optax
from gloo import begin
from tiny_experiment import Records, context, record

from evads_jax.judge.verdict import Verdict
from evads_jax.models import partitioning, qwen_vl
from evads_jax.train import grpo, optimizer, sft


class Letters:
    """A judge to whom every candidate is worth something else; it notes what it is asked."""

    name = "letters"

    def __init__(self, path):
        self._path = path

    def judge(self, requests):
        with self._path.open("a") as file:
            file.write(json.dumps([[r.video, r.aspect, r.candidate] for r in requests]) + "\n")
        return [Verdict(zlib.crc32(r.candidate.encode()) % 5 / 4) for r in requests]


def end_at(step):
    original = grpo.GRPOLearner.step

    def wrapped(learner, before, *arguments):
        if int(before.step) + 1 == step:
            os._exit(9)
        return original(learner, before, *arguments)

    grpo.GRPOLearner.step = wrapped


def made_like(workdir):
    """The experiment and its parameters on the mesh of all devices."""

    def changes(config):
        config.sft.update(max_steps=2, validate_every=2)
        config.rl.update(max_steps=3, kl="none")
        config.checkpoint.every = 1

    made = context(workdir, changes)
    # A question each, so that a request's video tells its prompt.
    made = dataclasses.replace(made, sources={**made.sources, "rl": Records(record(i, 1) for i in range(8))})
    params = qwen_vl.init(made.model, jax.random.key(0))
    if jax.device_count() > 1:
        mesh = partitioning.make_mesh(fsdp=jax.device_count())
        params = jax.device_put(params, partitioning.shardings(qwen_vl.axes(made.model), mesh, params))
        made = dataclasses.replace(made, mesh=mesh)
    return made, params


def whole(params, mesh):
    """The parameters as NumPy arrays."""
    if mesh is None:
        return jax.device_get(params)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.tree.map(np.asarray, jax.jit(lambda x: x, out_shardings=everywhere)(params))


if __name__ == "__main__":
    workdir, (port, count, index, *last) = Path(sys.argv[1]), map(int, sys.argv[2:])
    begin(workdir, port, count, index)
    # Adam would make steps as large as any of gradients that are nothing but rounding.
    rate = 0.1
    made_optimizer = optimizer.Optimizer(optax.sgd(rate, momentum=0.5), optax.constant_schedule(rate))
    optimizer.make = lambda *_, **__: made_optimizer
    grpo.make_judge = lambda *_: Letters(workdir / f"asked_{index}.jsonl")
    if last:
        end_at(last[0])
    made, params = made_like(workdir)
    result = grpo.train_grpo(made, sft.train_sft(made, params).params)
    leaves = jax.tree.leaves(whole(result.params, made.mesh))
    if jax.process_index() == 0:
        np.savez(workdir / "params.npz", *leaves)
