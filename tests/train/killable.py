"""MG-GRPO of the tiny experiment with a judge behind an endpoint; a program, so that it can be killed.

    python killable.py WORKDIR URL [--kill PHASE:COUNT] [--of PORT PROCESSES INDEX]

With PHASE:COUNT the process kills itself with SIGKILL at the COUNT-th time that it is in a phase, see PHASES. With
--of it is one of several processes over gloo. On several devices the parameters are split over them.
"""

import argparse
import dataclasses
import os
import runpy
import signal
from pathlib import Path

import jax
from tiny_experiment import context

from evads_jax.judge.cache import VerdictCache
from evads_jax.models import partitioning, qwen_vl
from evads_jax.train import checkpoint, completions, sampler
from evads_jax.train.grpo import train_grpo

CONFIG = Path(__file__).parents[2] / "configs" / "mg_grpo.py"
STEPS = 5

# Phase → (where, what, whether it has begun or, here, been done when the process dies).
PHASES = {
    "rollout": (sampler, "decode", True),  # the device is at it
    "judging": (VerdictCache, "put", True),  # some verdicts are kept, other calls are under way
    "update": (completions, "write", False),  # the device is at it
    "completions": (completions.pq, "write_table", True),  # written, but not yet under its name
    "checkpoint": (checkpoint._IteratorHandler, "save", True),  # some of it is written
    "saved": (checkpoint.Checkpoints, "save", True),  # it is being written in the background
}


def kill_at(phase, count):
    """Makes the `count`-th time of a phase the end of this process."""
    owner, name, done = PHASES[phase]
    original, calls = getattr(owner, name), []

    def wrapped(*arguments, **named):
        calls.append(1)
        last = len(calls) == count
        result = None if last and not done else original(*arguments, **named)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


def train(workdir, url):
    def changes(config):
        runpy.run_path(str(CONFIG))["VARIANTS"]["openai"](config)
        config.judge.update(base_url=url, model="judge-1", key_env="", joint=False, concurrency=3)
        config.judge.cache = str(Path(workdir) / "verdicts.sqlite")
        config.rl.update(max_steps=STEPS, learning_rate=1e-3)

    made = context(workdir, changes)
    params = qwen_vl.init(made.model, jax.random.key(0))
    if jax.device_count() > 1:
        mesh = partitioning.make_mesh(fsdp=jax.device_count())
        params = jax.device_put(params, partitioning.shardings(qwen_vl.axes(made.model), mesh, params))
        made = dataclasses.replace(made, mesh=mesh)
    return train_grpo(made, params)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir", type=Path)
    parser.add_argument("url")
    parser.add_argument("--kill")
    parser.add_argument("--of", nargs=3, type=int)
    options = parser.parse_args()
    if options.of:
        port, processes, index = options.of
        jax.distributed.initialize(f"localhost:{port}", processes, index)
    if options.kill:
        phase, count = options.kill.split(":")
        kill_at(phase, int(count))
    train(options.workdir, options.url)
