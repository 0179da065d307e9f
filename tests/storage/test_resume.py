"""A stage in a bucket, killed between two puts, goes on on another machine and ends like one that was not."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from evads_jax.errors import UserError
from evads_jax.events import read_events, without_wall_clock
from evads_jax.storage import run_folder
from evads_jax.train.checkpoint import finished
from tests.train.toy_stage import STAGE, run

PROGRAM = Path(__file__).with_name("two_processes.py")
SHORT = {"max_steps": 4, "patience": 0, "validate_every": 2, "checkpoint_every": 2, "keep": 1}
MOMENTS = (
    "toy/2/commit_success.txt",  # a checkpoint whose arrays are there
    "events.jsonl.parts/00000003-",  # what the last checkpoint was to know of
    pytest.param("toy/finished.json", marks=pytest.mark.slow),
)


def train(url):
    """The stage from where it is to its end; its result and what it left."""
    with run_folder(url) as workdir:
        result = run(workdir, **SHORT)
        return result, [without_wall_clock(event) for event in read_events(workdir)], finished(workdir, STAGE.name)


@pytest.fixture(scope="module")
def uninterrupted(server, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVADS_LOCAL", str(tmp_path_factory.mktemp("local")))
        return train("gs://shelf/whole")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stage_killed_between_two_puts_goes_on_elsewhere(uninterrupted, bucket, other_machine, moment):
    bucket.dies_at = moment
    with pytest.raises(UserError, match=r"Forbidden|cannot write a checkpoint"):
        train("gs://shelf/killed")
    bucket.dies_at, bucket.dead = None, False
    other_machine()
    (result, events, record), (whole, whole_events, whole_record) = train("gs://shelf/killed"), uninterrupted
    jax.tree.map(np.testing.assert_array_equal, result.params, whole.params)
    assert events == whole_events
    assert record.keys() == whole_record.keys()
    assert [record[name] for name in ("step", "events")] == [whole_record[name] for name in ("step", "events")]
    held = {name.split("checkpoints/toy/")[1].split("/")[0] for name in bucket.objects if "checkpoints/toy/" in name}
    assert held == {"4", "finished.json"}
    # Finished, it is not run again.
    puts = len(bucket.puts)
    with run_folder("gs://shelf/killed") as workdir:
        again = run(workdir, **SHORT)
    jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)
    assert len(bucket.puts) == puts


@pytest.mark.slow
def test_two_processes_write_one_checkpoint_and_one_of_them_the_rest(bucket, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    started = []
    for index in range(2):
        environment = os.environ | {"EVADS_LOCAL": str(tmp_path / str(index)), "JAX_PLATFORMS": "cpu"}
        with (tmp_path / f"{index}.log").open("w") as log:
            command = [sys.executable, PROGRAM, "gs://shelf/run", port, str(index)]
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    codes = [process.wait(timeout=500) for process in started]
    assert codes == [0, 0], [(tmp_path / f"{index}.log").read_text()[-2000:] for index in range(2)]
    assert bucket.puts.count("run/.owner") == 1
    assert [name for name in bucket.puts if "events.jsonl" in name] == ["run/events.jsonl.parts/00000001-0"]
    assert bucket.puts[-1] == "run/checkpoints/toy/finished.json"
    for index in range(2):
        assert any(f"toy/1/state/ocdbt.process_{index}/" in name for name in bucket.puts)
