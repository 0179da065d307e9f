"""MG-GRPO killed with SIGKILL, and the same command again: it ends like a run that was not, bit for bit."""

import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import zlib
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath
from killable import STEPS, train

from evads_jax.events import read_events, without_wall_clock
from evads_jax.train import completions
from evads_jax.train.checkpoint import finished
from evads_jax.train.grpo import STAGE
from tests.judge.server import Script, Server, subject

PROGRAM = Path(__file__).with_name("killable.py")
MOMENTS = (
    "rollout:1", "rollout:4", "judging:1", "judging:9", "update:2", "update:5", "completions:3", "checkpoint:1",
    "checkpoint:3", "saved:2",
)  # fmt: skip
QUICK = ("judging:9", "update:5", "checkpoint:3")


def opinion(messages):
    """Always the same of the same candidate."""
    candidate, _ = subject({"messages": messages})
    return json.dumps({"reason": f"{len(candidate)} letters", "score": zlib.crc32(candidate.encode()) % 5 / 4})


@pytest.fixture(scope="module")
def server():
    with Server(Script(answer=opinion, latency=0.02)) as made:
        yield made


def start(workdir, server, *arguments, processes=1, devices=1):
    """The program, as one process or as several."""
    workdir.mkdir(exist_ok=True)
    flags = f"--xla_force_host_platform_device_count={devices}"
    flags = " ".join([os.environ.get("XLA_FLAGS", ""), *[flags] * (devices > 1)])  # compiled as in this process
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    started = []
    for i in range(processes):
        place = ["--of", port, str(processes), str(i)] if processes > 1 else []
        with (workdir / f"{i}.log").open("w") as log:
            command = [sys.executable, PROGRAM, workdir, server.url, *arguments, *place]
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    return started


def said(workdir):
    return "\n".join(log.read_text()[-3000:] for log in sorted(workdir.glob("*.log")))


def end(started):
    """Waits until one process has ended, then kills those that wait for it; the exit codes."""
    while all(process.poll() is None for process in started):
        time.sleep(0.01)
    if any(process.poll() for process in started):
        for process in started:
            process.kill()
    return [process.wait() for process in started]


def again(workdir, server, **shape):
    """The same command, to its end."""
    assert end(start(workdir, server, **shape)) == [0] * shape.get("processes", 1), said(workdir)


def final_state(workdir):
    """NumPy arrays, whatever devices they were on."""
    path = (workdir / "checkpoints" / STAGE / str(STEPS) / "state").absolute()
    held = ocp.PyTreeCheckpointHandler().metadata(epath.Path(path)).tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), held)
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def assert_equal(workdir, other):
    """Parameters, optimizer, metrics and completions; clocks may differ."""
    jax.tree.map(np.testing.assert_array_equal, final_state(workdir), final_state(other))
    events, events_ = ([without_wall_clock(e) for e in read_events(w)] for w in (workdir, other))
    assert events == events_
    for step in range(1, STEPS + 1):
        kept, kept_ = (completions.path_of(w, STAGE, step).read_bytes() for w in (workdir, other))
        assert kept == kept_
    assert completions.steps(workdir, STAGE) == list(range(1, STEPS + 1))
    assert not list((workdir / "completions" / STAGE).glob("*.tmp"))


def verdicts(workdir):
    """The keys of the verdicts that are kept."""
    path = workdir / "verdicts.sqlite"
    if not path.exists():
        return set()
    with contextlib.closing(sqlite3.connect(path)) as db:
        return {key for (key,) in db.execute("SELECT key FROM verdicts")}


def calls(server):
    """How many calls the server has had, once nothing is under way any more."""
    time.sleep(0.05)
    while server.under_way:
        time.sleep(0.01)
    return len(server.times)


def random_moment(started, workdir, whole, number):
    """Kills the processes some time after some event, as the number says."""
    rng = random.Random(number)
    count, pause = rng.randrange(1, len(read_events(whole))), rng.uniform(0.0, 0.5)
    while started[0].poll() is None and len(read_events(workdir)) < count:
        time.sleep(0.002)
    time.sleep(pause)
    for process in started:
        process.kill()
        process.wait()


def moments():
    return [moment if moment in QUICK else pytest.param(moment, marks=pytest.mark.slow) for moment in MOMENTS]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, server):
    workdir, before = tmp_path_factory.mktemp("whole"), calls(server)
    train(workdir, server.url)
    assert calls(server) - before == len(verdicts(workdir)) > STEPS
    return workdir


@pytest.mark.parametrize("moment", moments())
def test_a_run_killed_in_any_phase_ends_like_one_that_was_not(tmp_path, uninterrupted, server, moment):
    assert end(start(tmp_path, server, "--kill", moment)) == [-signal.SIGKILL], said(tmp_path)
    assert finished(tmp_path, STAGE) is None
    before, paid = calls(server), verdicts(tmp_path)
    half = [path.name for path in (tmp_path / "checkpoints" / STAGE).glob("*tmp*")]
    assert half or not moment.startswith("checkpoint")
    train(tmp_path, server.url)
    assert_equal(tmp_path, uninterrupted)
    # What was paid for and kept is not bought again.
    assert calls(server) - before == len(verdicts(uninterrupted) - paid)
    assert verdicts(tmp_path) == verdicts(uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_a_run_killed_at_any_moment_ends_like_one_that_was_not(tmp_path, uninterrupted, server, number):
    random_moment(start(tmp_path, server), tmp_path, uninterrupted, number)
    again(tmp_path, server)
    assert_equal(tmp_path, uninterrupted)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory, server):
    workdir = tmp_path_factory.mktemp("two")
    again(workdir, server, processes=2)
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize("moment", [moment.replace("judging:9", "judging:4") for moment in MOMENTS])
def test_two_processes_killed_in_any_phase_end_like_two_that_were_not(tmp_path, by_two, server, moment):
    assert -signal.SIGKILL in end(start(tmp_path, server, "--kill", moment, processes=2)), said(tmp_path)
    before, paid = calls(server), verdicts(tmp_path)
    again(tmp_path, server, processes=2)
    assert_equal(tmp_path, by_two)
    assert calls(server) - before == len(verdicts(by_two) - paid)  # each asks about its own


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_two_processes_killed_at_any_moment_end_like_two_that_were_not(tmp_path, by_two, server, number):
    random_moment(start(tmp_path, server, processes=2), tmp_path, by_two, number)
    again(tmp_path, server, processes=2)
    assert_equal(tmp_path, by_two)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"devices": 1}, {"devices": 2}),
        ({"devices": 2}, {"devices": 1}),
        ({"processes": 2}, {"processes": 1}),
    ],
)
def test_a_run_that_goes_on_with_other_devices_says_so_and_is_equal_up_to_rounding(
    tmp_path, uninterrupted, server, first, then
):
    assert -signal.SIGKILL in end(start(tmp_path, server, "--kill", "update:4", **first)), said(tmp_path)
    again(tmp_path, server, **then)
    (resumed,) = read_events(tmp_path, "resume")
    names = ("devices", "processes")
    assert [resumed[f"{name}_before"] for name in names] == [max(first.values()), first.get("processes", 1)]
    assert [resumed[name] for name in names] == [max(then.values()), then.get("processes", 1)]
    assert "equal up to rounding, not bit for bit" in said(tmp_path)
    # Absolute, too: a key's bias has no gradient but rounding, and Adam makes steps of that as large as any.
    for one, other in zip(*(jax.tree.leaves(final_state(w)["params"]) for w in (tmp_path, uninterrupted)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
