import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evads_jax.errors import UserError
from evads_jax.events import EventLog
from evads_jax.judge.cache import default_path
from evads_jax.storage import address, local_folder, run_folder, runs

URL = "gs://shelf/mine/run"
CONFIG = Path(__file__).parents[2] / "configs" / "tables.py"


def test_a_local_work_directory_is_itself(tmp_path):
    with run_folder(str(tmp_path / "run")) as workdir:
        assert workdir == tmp_path / "run"
        assert address(workdir) == workdir
        assert default_path(workdir) == default_path()
    with run_folder(None) as workdir:
        assert workdir is None


def test_a_work_directory_in_a_bucket_goes_on_on_another_machine(bucket, other_machine):
    with run_folder(URL) as workdir:
        assert workdir == local_folder(URL)
        assert str(address(workdir / "checkpoints")) == f"{URL}/checkpoints"
        assert default_path(workdir / "seed1") == workdir / "verdicts.sqlite"
        EventLog(workdir).write("run", seed=3)
    other_machine()
    with run_folder(URL) as there:
        assert there != workdir
        assert (there / "events.jsonl").read_text() == (workdir / "events.jsonl").read_text()


@pytest.mark.parametrize("end", [UserError("bad data"), SystemExit(42), ZeroDivisionError()])
def test_what_a_job_wrote_goes_up_however_it_ends(bucket, end):
    def job():
        with run_folder(URL) as workdir:
            (workdir / "done.txt").write_text("half of it")
            raise end

    with pytest.raises(type(end)):
        job()
    assert bucket.objects["mine/run/done.txt"].data == b"half of it"


def test_a_job_that_failed_by_itself_keeps_its_error_where_the_bucket_fails_too(bucket, capsys):
    def job():
        with run_folder(URL) as workdir:
            (workdir / "x").write_text("x")
            bucket.dies_at = "x"
            raise UserError("bad data")

    with pytest.raises(UserError, match="bad data"):
        job()
    assert capsys.readouterr().err.startswith("evads_jax: cannot use the bucket: Forbidden")
    assert runs.mirror_of(local_folder(URL)) is None


def test_events_are_in_the_bucket_when_the_log_is_synced(bucket):
    with run_folder(URL) as workdir:
        log = EventLog(workdir)
        for step in range(2):
            log.write("train", step=step)
            log.sync()
        parts = [object.data for name, object in sorted(bucket.objects.items()) if "events.jsonl.parts" in name]
        assert len(parts) == 2
        assert b"".join(parts) == Path(workdir, "events.jsonl").read_bytes()


def test_a_long_job_pushes_now_and_then(bucket, monkeypatch):
    monkeypatch.setattr(runs, "EVERY", 0.02)
    with run_folder(URL) as workdir:
        (workdir / "predictions.jsonl").write_text("{}\n")
        until = time.monotonic() + 30
        while "mine/run/predictions.jsonl.parts/00000001-0" not in bucket.objects:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_what_one_machine_compiled_is_found_in_the_bucket_by_the_next(bucket):
    program = "import jax; print(jax.jit(lambda x: x * 3 + 1)(jax.numpy.arange(7.0))[2])"
    settings = {"JAX_COMPILATION_CACHE_DIR": "gs://shelf/cache", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_RAISE_PERSISTENT_CACHE_ERRORS": "1"}  # fmt: skip
    for _ in range(2):
        puts = len(bucket.puts)
        bucket.reads.clear()
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "7.0", done.stderr
    assert puts == len(bucket.puts) > 0
    assert {name for name in bucket.reads if name.endswith("-cache")} == set(bucket.puts)


def test_the_command_line_takes_a_work_directory_in_a_bucket(bucket):
    command = [
        sys.executable,
        "-m",
        "evads_jax.main",
        f"--config={CONFIG}:main",
        "--config.runs=no/such",
        f"--workdir={URL}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("evads_jax: ")
    assert "no/such" in done.stderr
    assert list(bucket.objects) == ["mine/run/.owner"]
