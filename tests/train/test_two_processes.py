"""Two processes train, are killed, go on from their checkpoint, and end where one process does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evads_jax.events import read_events

pytestmark = pytest.mark.slow  # five programs, of which each compiles the step
PROGRAM = Path(__file__).with_name("two_processes.py")


def run(workdir, count, *last):
    """Runs so many processes to their end; their exit codes."""
    workdir.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    logs = [(workdir / f"{i}.log").open("w") for i in range(count)]
    processes = [
        subprocess.Popen(
            [sys.executable, PROGRAM, workdir, port, str(count), str(i), *last], env=environment, stdout=log, stderr=log
        )
        for i, log in enumerate(logs)
    ]
    codes = [process.wait(timeout=1200) for process in processes]
    return codes, [(workdir / f"{i}.log").read_text()[-1500:] for i in range(count)]


def test_two_processes_end_with_the_parameters_of_one(tmp_path):
    codes, said = run(tmp_path / "one", 1)
    assert codes == [0], said
    codes, said = run(tmp_path / "two", 2, "4")  # killed when the fourth batch is drawn
    assert 9 in codes, said
    assert (tmp_path / "two" / "checkpoints" / "sft" / "2").is_dir()
    codes, said = run(tmp_path / "two", 2)
    assert codes == [0, 0], said
    one, two = (np.load(tmp_path / name / "params.npz") for name in ("one", "two"))
    for name in one.files:
        np.testing.assert_allclose(two[name], one[name], atol=1e-5, rtol=1e-5)
    steps = [event["step"] for event in read_events(tmp_path / "two", "train")]
    assert steps == [1, 2, 3, 4]  # written once, by process 0
