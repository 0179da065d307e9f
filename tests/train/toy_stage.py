"""A stage that takes milliseconds: a linear model on noisy batches. Also a program, so that it can be killed.

    python toy_stage.py WORKDIR [PHASE:COUNT]

With PHASE:COUNT the process kills itself with SIGKILL at the COUNT-th time that phase begins: draw, step, validate,
save, or end.
"""

import dataclasses
import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from evads_jax.events import EventLog
from evads_jax.train import checkpoint, state
from evads_jax.train.loop import fit
from evads_jax.train.stage import Learner, Stage

STAGE = Stage("toy", seed=3, max_steps=20, validate_every=5, patience=3, checkpoint_every=4, keep=2, log_every=5)


class Batches:
    """Batches that depend on their index only; endless unless `stop` says where they end."""

    def __init__(self, stop=None):
        self.index, self.stop = 0, stop

    def __next__(self):
        if self.index == self.stop:
            raise StopIteration
        rng = np.random.default_rng(self.index)
        self.index += 1
        x = rng.normal(size=(8, 3)).astype(np.float32)
        return x, x @ np.array([1.0, -2.0, 0.5], np.float32)

    def get_state(self):
        return {"index": self.index}

    def set_state(self, value):
        self.index = value["index"]


class ToyLearner(Learner):
    """Linear regression with noise from the step's key, so that a wrong key or batch changes the parameters."""

    def __init__(self, poison=None, floor=None):
        self.poison, self.floor, self.rewound, self.validations = poison, floor, [], 0
        self.optimizer = optax.adam(0.1)
        self.update = jax.jit(self._update, donate_argnums=0)

    def initial(self):
        return state.create({"layer": {"weight": jnp.zeros(3)}, "scale": jnp.ones(())}, self.optimizer)

    def _update(self, before, batch, key):
        x, y = batch
        noise = 0.1 * jax.random.normal(key, y.shape)

        def loss(p):
            return jnp.mean((x @ p["layer"]["weight"] * p["scale"] - y - noise) ** 2)

        value, gradients = jax.value_and_grad(loss)(before.params)
        if self.poison is not None:
            weight = jnp.where(before.step == self.poison - 1, jnp.nan, gradients["layer"]["weight"])
            gradients = gradients | {"layer": {"weight": weight}}
        after, metrics = state.apply_gradients(before, self.optimizer, value, gradients)
        return after, {"loss": value, **metrics}

    def step(self, before, batch, key):
        return self.update(before, batch, key)

    def validate(self, now):
        self.validations += 1
        if self.floor is not None:  # falls until the step `floor`, then rises
            return {"loss": abs(int(now.step) - self.floor) + 1.0}
        return {"loss": jnp.sum(jnp.abs(now.params["layer"]["weight"]))}

    def rewind(self, step):
        self.rewound.append(step)


def run(workdir, learner=None, batches=None, **changes):
    return fit(learner or ToyLearner(), batches or Batches(), dataclasses.replace(STAGE, **changes), workdir,
               EventLog(workdir))  # fmt: skip


def kill_at(phase, count):
    """Makes the `count`-th begin of a phase the end of this process."""
    owner, name = {
        "draw": (Batches, "__next__"),
        "step": (ToyLearner, "step"),
        "validate": (ToyLearner, "validate"),
        "save": (Batches, "get_state"),
        "end": (checkpoint.Checkpoints, "finish"),
    }[phase]
    original, calls = getattr(owner, name), []

    def wrapped(*args):
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)

    setattr(owner, name, wrapped)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        kill_at(*(int(part) if part.isdigit() else part for part in sys.argv[2].split(":")))
    run(Path(sys.argv[1]), patience=0)
