"""The scripts of a worker, with stand-ins for the programs that they call."""

import importlib.metadata
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.storage.fake_gcs import FakeGCS
from tpu import check_versions, plan

BUCKET = "gs://shelf/folder"
SYSTEM = "/usr/local/bin:/usr/bin:/bin"


class Machine:
    """A worker: a home, the unpacked code, and programs that record how they are called."""

    def __init__(self, folder, bucket):
        self.bucket, self.home, self.programs, self.calls = bucket, folder / "home", folder / "bin", folder / "calls"
        self.said = folder / "said"
        self.home.mkdir()
        self.programs.mkdir()
        self.calls.touch()
        shutil.copytree(plan.ROOT / "tpu", self.home / "evads" / "tpu")
        (self.home / "evads" / "requirements").mkdir()
        (self.home / "evads" / "requirements" / "tpu.txt").write_text("jax==0.10.2\n")
        self.environment = {
            "HOME": str(self.home), "PATH": f"{self.programs}:{SYSTEM}", "EVADS_HEARTBEAT": "0.1",
            "EVADS_STAMP": str(folder / "stamp"), "EVADS_PAUSE": "0.01", **bucket.environment(),
        }  # fmt: skip

    def program(self, name, body, folder=None):
        path = (folder or self.programs) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>{self.calls}\n{body}\n')
        path.chmod(0o755)

    def job(self, body):
        """What the job does; the worker is ready."""
        self.program("python", body, self.home / "evads" / ".venv" / "bin")
        (self.home / ".evads").mkdir()
        (self.home / ".evads" / "status").write_text("1 ready -\n")

    def start(self, script, *arguments):
        command = ["bash", self.home / "evads" / "tpu" / script, *arguments]
        with self.said.open("w") as said:  # no pipe: what beats in the background would hold it
            return subprocess.Popen(command, env=self.environment, stdout=said, stderr=subprocess.STDOUT)

    def work(self, *arguments):
        return self.run("run_worker.sh", BUCKET, *arguments)

    def run(self, script, *arguments):
        code = self.start(script, *arguments).wait(timeout=60)
        return code, self.said.read_text()

    def status(self):
        return (self.home / ".evads" / "status").read_text().strip()

    def kept(self, name):
        return self.bucket.objects[f"folder/{name}"].data

    def called(self, name):
        return [line for line in self.calls.read_text().splitlines() if line.startswith(f"{name} ")]


@pytest.fixture
def machine(tmp_path):
    with FakeGCS() as bucket:
        yield Machine(tmp_path, bucket)


@pytest.mark.parametrize("code", [0, 3, 42])
def test_the_jobs_exit_code_and_log_are_left_for_the_launcher(machine, code):
    machine.job(f"echo it ran; exit {code}")
    assert machine.work("2", "1", "--config=c.py")[0] == code
    assert machine.status() == f"1 exited {code}"
    assert machine.kept("logs/attempt-2/worker-1.log") == b"it ran\n"
    assert machine.called("python") == [f"python -m evads_jax.main --config=c.py --workdir={BUCKET}/run"]


def test_compilations_are_kept_in_the_bucket_for_the_next_slice(machine):
    machine.job("echo $JAX_COMPILATION_CACHE_DIR")
    machine.work("1", "1", "--config=c.py")
    assert machine.kept("logs/attempt-1/worker-1.log").decode() == f"{BUCKET}/cache/jax\n"


def test_a_log_can_be_read_while_the_job_runs_and_its_end_is_not_overwritten(machine):
    machine.job("echo begun; until [[ -e $HOME/enough ]]; do sleep 0.1; done; echo ended")
    process = machine.start("run_worker.sh", BUCKET, "1", "1", "--config=c.py")
    limit = time.monotonic() + 30
    while not machine.bucket.objects and time.monotonic() < limit:
        time.sleep(0.05)
    assert machine.kept("logs/attempt-1/worker-1.log") in (b"", b"begun\n")
    (machine.home / "enough").touch()
    assert process.wait(timeout=60) == 0
    assert machine.kept("logs/attempt-1/worker-1.log") == b"begun\nended\n"


def test_a_bucket_that_takes_no_log_changes_nothing_of_how_the_job_ends(machine):
    machine.job("exit 3")
    machine.bucket.dead = True
    code, said = machine.work("1", "1", "--config=c.py")
    assert (code, machine.status()) == (3, "1 exited 3")
    assert "worker-1.log: HTTPError: HTTP Error 403" in said


def test_with_several_hosts_the_processes_are_joined(machine):
    machine.job("exit 0")
    machine.work("1", "4", "--config=c.py")
    assert machine.called("python")[0].endswith(" --distributed")


def test_sigterm_reaches_the_job_which_saves_and_ends_with_42(machine):
    machine.job("trap 'exit 42' TERM; touch $HOME/began; while :; do sleep 0.1; done")
    process = machine.start("run_worker.sh", BUCKET, "1", "1", "--config=c.py")
    while not (machine.home / "began").exists():
        time.sleep(0.05)
    assert machine.status() == "1 running -"
    os.kill(int((machine.home / ".evads" / "pid").read_text()), signal.SIGTERM)
    assert process.wait(timeout=60) == 42
    assert machine.status() == "1 exited 42"


def test_a_job_is_started_once_and_only_on_a_worker_that_is_ready(machine):
    machine.job("exit 0")
    machine.work("1", "1", "--config=c.py")
    machine.work("1", "1", "--config=c.py")
    assert len(machine.called("python")) == 1


def test_where_no_launcher_watches_the_hours_end_the_job(machine):
    machine.job("exit 0")
    machine.bucket.put("folder/.launch/began", str(int(time.time()) - 7200).encode())
    machine.environment["EVADS_HOURS"] = "1.5"
    assert machine.work("1", "1", "--config=c.py") == (3, "the hours are spent\n")
    assert machine.called("python") == []


def test_the_hours_of_all_attempts_count_from_the_first(machine):
    machine.job("exit 0")
    machine.environment["EVADS_HOURS"] = "1.5"
    assert machine.work("1", "1", "--config=c.py")[0] == 0
    assert abs(int(machine.kept(".launch/began")) - time.time()) < 60
    machine.bucket.dead = True
    (machine.home / ".evads" / "status").write_text("1 ready -\n")
    code, said = machine.work("2", "1", "--config=c.py")
    assert (code, machine.status(), len(machine.called("python"))) == (1, "1 exited 1", 1)
    assert said.startswith("objects: put-new")


@pytest.fixture
def fresh(machine):
    """A machine that was just booted."""
    machine.program("curl", "echo 2")
    machine.program("sudo", '"$@"')
    machine.program("rm", "exit 0")
    installed = 'mkdir -p "$3/bin" && cp "$(dirname "$0")/venv_python" "$3/bin/python"'
    machine.program("python3.11", installed)
    machine.program("venv_python", "exit 0")
    return machine


def test_a_fresh_worker_becomes_ready(fresh):
    code, said = fresh.run("setup_worker.sh", BUCKET)
    assert (code, fresh.status()) == (0, "2 ready -"), said
    assert [line.split()[-2:] for line in fresh.called("venv_python")] == [
        ["-r", "requirements/tpu.txt"], ["-e", "."], ["tpu/check_versions.py", "requirements/tpu.txt"]
    ]  # fmt: skip
    assert fresh.called("rm") == ["rm -f /tmp/libtpu_lockfile"]


def test_a_pod_has_its_number_from_its_job(fresh):
    fresh.environment["JOB_COMPLETION_INDEX"] = "3"
    code, said = fresh.run("setup_worker.sh", BUCKET)
    assert (code, fresh.status()) == (0, "3 ready -"), said
    assert fresh.called("curl") == []


def test_a_version_that_is_not_the_locks_ends_the_setup_loudly(fresh):
    fresh.program("venv_python", '[[ $1 == tpu/check_versions.py ]] && echo "version mismatch" && exit 1; exit 0')
    (fresh.home / "evads" / "setup.log").write_text("what setup says")  # where a launcher lets it say it
    code, said = fresh.run("setup_worker.sh", BUCKET)
    assert (code, fresh.status()) == (1, "2 exited 1")
    assert "version mismatch" in said
    assert fresh.kept("logs/setup-worker-2.log") == b"what setup says"
    fresh.bucket.dead = True
    fresh.run("setup_worker.sh", BUCKET)
    assert fresh.status() == "2 exited 1"


def test_where_python_3_11_is_not_it_is_fetched_in_the_way_that_ubuntu_24_04_allows(fresh, tmp_path):
    without_python = tmp_path / "system"
    without_python.mkdir()
    for program in Path("/usr/bin").iterdir():
        if not program.name.startswith("python"):
            (without_python / program.name).symlink_to(program)
    fresh.environment["PATH"] = f"{fresh.programs}:{without_python}"
    found = (fresh.programs / "python3.11").rename(fresh.programs / "found")
    fresh.program("apt-get", "exit 0")
    steps = f"*--version) exit 1;; *find*) echo {found};; *uv*install*|*install*uv*) exit 0;;"
    fresh.program("python3", f'echo "pip may: $PIP_BREAK_SYSTEM_PACKAGES" >>{fresh.calls}; case $* in {steps} esac')
    code, said = fresh.run("setup_worker.sh", BUCKET)
    assert (code, fresh.status()) == (0, "2 ready -"), said
    assert fresh.called("apt-get")[-1].endswith(" python3-pip")
    calls = fresh.calls.read_text().splitlines()
    asked = [call for call in calls if call.startswith("python3 ")]
    assert asked[1] == "python3 -m pip install --quiet --user uv<1"
    assert calls[calls.index(asked[1]) + 1] == "pip may: 1"
    assert asked[2] == "python3 -m uv python install --quiet 3.11"


def test_versions_are_compared_with_the_lock(monkeypatch):
    versions = {"jax": "0.10.2", "jaxlib": "0.6.2"}

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert check_versions.differences("jax==0.10.2\njaxlib==0.10.2\nlibtpu==0.0.42.1\n") == [
        "jaxlib is 0.6.2, the lock says 0.10.2",
        "libtpu is absent, the lock says 0.0.42.1",
    ]
    lock = (Path(plan.ROOT) / "requirements" / "tpu.txt").read_text()
    assert all(f"\n{name}==" in lock for name in check_versions.PACKAGES)


def test_a_slice_has_the_client_for_its_bucket_that_the_tests_have():
    requirements = Path(plan.ROOT) / "requirements"
    tpu, test = (
        dict(line.split("==") for line in (requirements / f"{name}.txt").read_text().split())
        for name in ("tpu", "test")
    )
    assert "gcsfs" in tpu
    assert {name: tpu[name] for name in tpu.keys() & test.keys()} == {n: test[n] for n in tpu.keys() & test.keys()}


QUEUED = "tpus queued-resources delete evads-run --project=p --zone=z --force --quiet --async"
GROUP = "instance-groups managed delete evads-run --project=p --zone=z --quiet"


@pytest.mark.parametrize(
    ("backend", "number", "wanted"),
    [("queued", 0, QUEUED), ("queued", 1, None), ("mig", 1, GROUP)],
    ids=["worker 0", "another worker", "a group"],
)
def test_a_slice_gives_itself_back_when_nobody_else_does(machine, backend, number, wanted):
    answers = {"agent-worker-number": number, "evads-backend": backend, "evads-name": "evads-run", "evads-seconds": 0,
               "zone": "projects/1/zones/z", "project-id": "p"}  # fmt: skip
    cases = " ".join(f"*/{name}) echo {value};;" for name, value in answers.items())
    machine.program("curl", f"case $* in {cases} esac")
    machine.program("gcloud", "exit 0")
    assert machine.run("give_back.sh")[0] == 0
    limit = time.monotonic() + (20 if wanted else 0.5)
    while not machine.called("gcloud") and time.monotonic() < limit:
        time.sleep(0.05)
    assert machine.called("gcloud") == ([f"gcloud compute {wanted}"] if wanted else [])
