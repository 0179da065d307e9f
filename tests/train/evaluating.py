"""An experiment that trains nothing: data, tokenizer, evaluation of the first parameters; a program, to be killed.

    python evaluating.py WORKDIR PORT COUNT INDEX URL [PHASE]

The judge is behind URL. Every process has a cache of its own, as on a machine of its own: WORKDIR/machine_INDEX. With
PHASE, one of PHASES, the process kills itself with SIGKILL there.
"""

import os
import runpy
import signal
import sys
from pathlib import Path

from gloo import begin
from test_experiment import CONFIGS, small

from evads_jax.benchmark import evaluate, predict
from evads_jax.data import prepare, shards
from evads_jax.train import experiment

# Phase → (where, what, the time at which the process dies instead).
PHASES = {
    "shards": (shards, "make_shard", 2),
    "predictions": (predict._Kept, "note", 3),  # the first is chance's, which knows everything at once
    "shuffled": (evaluate, "shuffle_answers", 2),  # its answers are judged by then
}


def kill_in(phase):
    owner, name, time = PHASES[phase]
    original, calls = getattr(owner, name), []

    def wrapped(*arguments, **named):
        calls.append(1)
        if len(calls) == time:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **named)

    setattr(owner, name, wrapped)


def made(url):
    """Two devices, whoever has them."""
    config = small(**{"run.stages": ("base",), "eval.blank_too": (), "mesh.fsdp": 2, "data.records_per_shard": 1})
    runpy.run_path(str(CONFIGS / "mg_grpo.py"))["VARIANTS"]["openai"](config)
    config.judge.update(base_url=url, model="judge-1", key_env="", concurrency=4)
    return config


if __name__ == "__main__":
    workdir, (port, count, index), (url, *phase) = Path(sys.argv[1]), map(int, sys.argv[2:5]), sys.argv[5:]
    os.environ["XDG_CACHE_HOME"] = str(workdir / f"machine_{index}")
    prepare.WORKERS = 0
    begin(workdir, port, count, index)
    if phase:
        kill_in(phase[0])
    experiment.run(made(url), workdir / "W")
