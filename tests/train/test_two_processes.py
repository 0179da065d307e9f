"""Two processes divide data, judging and evaluation, are killed, go on, as two or as one, and end where one does."""

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from evads_jax.events import read_events, without_wall_clock
from evads_jax.train import completions
from evads_jax.train.grpo import STAGE
from tests.judge.server import Script, Server, subject

pytestmark = pytest.mark.slow  # up to six programs, of which each compiles both stages
HERE = Path(__file__).parent


def run(workdir, count, *last, program="two_processes.py", devices=1):
    """Runs so many processes to their end; their exit codes, and what they said in the end."""
    workdir.mkdir(exist_ok=True)
    for path in workdir.glob("here_*"):
        path.unlink()
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    flags = f"--xla_backend_optimization_level=0 --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    logs = [(workdir / f"{i}.log").open("w") for i in range(count)]
    processes = [
        subprocess.Popen(
            [sys.executable, HERE / program, workdir, port, str(count), str(i), *last],
            env=environment,
            stdout=log,
            stderr=log,
        )
        for i, log in enumerate(logs)
    ]
    codes = finish(processes)
    return codes, [(workdir / f"{i}.log").read_text()[-1500:] for i in range(count)]


def finish(processes):
    """The exit codes; those that are left half a minute after one has failed wait for it, and are killed."""
    until = time.monotonic() + 2400
    while any(process.poll() is None for process in processes):
        if any(process.poll() for process in processes):
            until = min(until, time.monotonic() + 30)
        if time.monotonic() > until:
            for process in processes:
                process.kill()
        time.sleep(0.05)
    return [process.wait() for process in processes]


def asked(workdir, index):
    """The requests that the judge of a process has had."""
    lines = (workdir / f"asked_{index}.jsonl").read_text().splitlines()
    return {tuple(request) for line in lines for request in json.loads(line)}


def close(value, other):
    if isinstance(value, float):
        return other == pytest.approx(value, rel=1e-4, abs=1e-4, nan_ok=True)
    return value == other


def assert_equal(workdir, one):
    """Parameters, metrics and completions; equal up to rounding."""
    ours, theirs = (np.load(w / "params.npz") for w in (workdir, one))
    for name in theirs.files:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5, rtol=1e-5)
    events, events_ = ([without_wall_clock(e) for e in read_events(w, "train")] for w in (workdir, one))
    assert [(e["stage"], e["step"]) for e in events] == [("sft", 1), ("sft", 2), *((STAGE, i) for i in (1, 2, 3))]
    for event, event_ in zip(events, events_, strict=True):
        assert event.keys() == event_.keys()
        assert {k: (v, event_[k]) for k, v in event.items() if not close(v, event_[k])} == {}
    for step in (1, 2, 3):
        for row, row_ in zip(*(completions.read(w, STAGE, step) for w in (workdir, one)), strict=True):
            assert {k: (v, row_[k]) for k, v in row.items() if not close(v, row_[k])} == {}


def test_rows_go_to_the_devices_and_back_on_every_kind_of_mesh(tmp_path):
    codes, said = run(tmp_path, 2, program="divided.py", devices=2)
    assert codes == [0, 0], said
    rows = [[line for line in text.splitlines() if line.startswith("rows")] for text in said]
    # All devices in a row; interleaved; tp within a process; tp across them, where both hold all and the first speaks.
    assert rows[0] == ["rows 0 1 2 3", "rows 0 1 4 5", "rows 0 1 2 3", "rows 0 1 2 3 4 5 6 7"]
    assert rows[1] == ["rows 4 5 6 7", "rows 2 3 6 7", "rows 4 5 6 7", "rows"]
    assert "process 1 could not have it judged: it is down [judge] [config.judge]" in said[0]
    assert "it is down [judge]" in said[1]


def test_two_processes_end_like_one_also_when_killed_and_resumed_by_either_number(tmp_path):
    one, two, alone = (tmp_path / name for name in ("one", "two", "alone"))
    codes, said = run(one, 1)
    assert codes == [0], said
    codes, said = run(two, 2, "3")
    assert 9 in codes, said
    assert (two / "checkpoints" / STAGE / "1").is_dir()
    shutil.copytree(two, alone)
    codes, said = run(two, 2)
    assert codes == [0, 0], said
    assert_equal(two, one)
    # Each has asked about its own prompts, one of the two of each of three steps, and nothing that the other asked.
    first, second = (asked(two, index) for index in range(2))
    assert [len({request[0] for request in requests}) for requests in (first, second)] == [3, 3]
    assert not first & second
    assert first | second == asked(one, 0)
    codes, said = run(alone, 1)
    assert codes == [0], said
    assert_equal(alone, one)
    (resumed,) = read_events(alone, "resume")
    assert (resumed["processes_before"], resumed["processes"]) == (2, 1)


def verdicts(workdir, index):
    """The verdicts that a machine has."""
    path = workdir / f"machine_{index}" / "evads_jax" / "verdicts.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:
        return dict(db.execute("SELECT key, score FROM verdicts"))


def results(workdir):
    """Shards, tokenizer and everything of the evaluations, byte by byte."""
    parts = ("shards", "tokenizer", "evaluation", "tables")
    paths = sorted(path for part in parts for path in (workdir / "W" / part).rglob("*") if path.is_file())
    return {str(path.relative_to(workdir)): path.read_bytes() for path in paths}


def opinion(messages):
    candidate, _ = subject({"messages": messages})
    return json.dumps({"reason": f"{len(candidate)} letters", "score": zlib.crc32(candidate.encode()) % 5 / 4})


def test_two_processes_prepare_and_evaluate_like_one_also_when_killed_and_robbed_of_a_machine(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    with Server(Script(answer=opinion)) as server:

        def start(workdir, count, *phase):
            return run(workdir, count, server.url, *phase, program="evaluating.py", devices=2 // count)

        codes, said = start(one, 1)
        assert codes == [0], said
        asked = len(server.times)
        assert asked == len(verdicts(one, 0)) > 20
        for phase in ("shards", "predictions", "shuffled"):
            codes, said = start(two, 2, phase)
            assert -signal.SIGKILL in codes, said
            assert 0 not in codes
            if phase == "predictions":  # the first of its three batches is kept
                kept = (two / "W" / "evaluation" / "base" / "predictions.jsonl").read_text().splitlines()
                assert len(kept) == 4
        shutil.rmtree(two / "machine_1")  # what it paid for, process 0 was told
        codes, said = start(two, 2)
        assert codes == [0, 0], said
        assert len(server.times) == 2 * asked
    assert results(two) == results(one)
    assert verdicts(two, 0) == verdicts(two, 1) == verdicts(one, 0)
