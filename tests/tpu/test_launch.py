"""The launcher against a scripted cloud: every way in which a slice comes and goes ends with nothing left running."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tpu import launch, plan
from tpu.supervise import GAVE_UP, INTERRUPTED, STILL_THERE, Limits

FAKE = Path(__file__).with_name("fake_gcloud.py")
TURN = 10.0  # seconds that pass with every look at the slice
LIMITS = {"hosts": 2, "held": 6000.0, "wait": 3000.0, "attempts": 3, "setup": 100.0, "lost": 60.0, "settle": 30.0,
          "stop": 50.0, "retry": 20.0, "tries": 4}  # fmt: skip
ARGUMENTS = ["--config=configs/mg_grpo.py", "--slice=v5p:2x2x2", "--bucket=gs://bucket/run", "--project=p", "--zone=z"]
ACTIVE = {"describe": ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]}


class Cloud:
    """A fake `gcloud`, and what it was told."""

    def __init__(self, folder, backend):
        self.folder, self.backend = folder, backend

    def script(self, **script):
        (self.folder / "script.json").write_text(json.dumps({"hosts": 2, "slices": [ACTIVE]} | script))

    def told(self):
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def deeds(self):
        """What it was told to do, in short."""
        return [deed for call in self.told() if (deed := _deed(call))]

    def holds_a_slice(self):
        return self.world()["slice"] is not None

    def world(self):
        return json.loads((self.folder / "world.json").read_text())


def _deed(call):
    command = next((a for a in call if a.startswith("--command=")), "")
    if call[0] == "storage":
        return "pack" if call[1] == "cp" else "collect"
    if "ssh" in call[1:4]:
        names = {"setup_worker": "setup", "run_worker": "start", "kill -TERM": "stop"}
        told_to_first = call[1] == "tpus" or call[2] == "evads-run-0"
        return next((name for part, name in names.items() if part in command and told_to_first), None)
    if call[1] in ("resource-policies", "instance-templates"):
        return None  # parts of a group
    return call[3] if call[3] not in ("describe", "list-instances") else None


# What the state machine does by itself is played with one back end.
one_backend = pytest.mark.parametrize("cloud", ["queued"], indirect=True)


@pytest.fixture(params=["queued", "mig"])
def cloud(request, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    gcloud = tmp_path / "bin" / "gcloud"
    gcloud.write_text(f"#!{sys.executable} -SE\n{FAKE.read_text()}")
    gcloud.chmod(0o755)
    (tmp_path / "bin" / "tar").symlink_to(shutil.which("true"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin")
    monkeypatch.setenv("FAKE_CLOUD", str(tmp_path))
    assert shutil.which("gcloud") == str(gcloud)  # never the real one
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield Cloud(tmp_path, request.param)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run(cloud, **limits):
    more = [f"--backend={cloud.backend}", f"--collect={cloud.folder / 'here'}"]
    options, rest = launch._parser().parse_known_args([*ARGUMENTS, *more])
    turns = itertools.count(step=TURN)
    made = launch._request(options, rest)
    return launch.supervise(made, Limits(**LIMITS | limits), str(cloud.folder), 0.0, lambda: next(turns))


def test_a_run_that_nothing_disturbs(cloud):
    cloud.script()
    assert run(cloud) == 0
    assert cloud.deeds() == ["pack", "create", "setup", "start", "collect", "delete"]
    assert not cloud.holds_a_slice()
    assert cloud.world()["parts"] == []


def test_a_slice_that_is_taken_away_in_training_comes_back(cloud):
    taken = {"describe": ["ACTIVE"] * 6 + ["SUSPENDING", "SUSPENDED"], "runs": 99}
    cloud.script(slices=[taken, taken, ACTIVE])
    assert run(cloud) == 0
    once = ["create", "setup", "start", "collect", "delete"]
    assert cloud.deeds() == ["pack", *once, *once, *once]
    assert not cloud.holds_a_slice()


def test_a_slice_that_is_taken_away_while_it_is_waited_for_is_asked_for_again(cloud):
    cloud.script(slices=[{"describe": ["PROVISIONING", "SUSPENDED"]}, {"describe": ["FAILED"]}, ACTIVE])
    assert run(cloud) == 0
    assert cloud.deeds().count("create") == 3
    assert cloud.deeds()[1:5] == ["create", "delete", "create", "delete"]


@one_backend
def test_a_job_that_was_told_to_end_and_saved_goes_on_with_a_new_slice(cloud):
    cloud.script(slices=[ACTIVE | {"codes": [42, 42]}, ACTIVE])
    assert run(cloud) == 0
    assert cloud.deeds().count("create") == 2


def test_a_bug_ends_the_run_with_its_own_exit_code(cloud, capsys):
    cloud.script(slices=[ACTIVE | {"codes": [0, 17]}])
    assert run(cloud) == 17
    assert cloud.deeds()[-2:] == ["collect", "delete"]
    assert "failed on worker 1 with exit code 17" in capsys.readouterr().out
    assert not cloud.holds_a_slice()


@one_backend
def test_a_crash_that_turns_out_to_be_a_preemption_is_one(cloud):
    crashed = {"describe": ["ACTIVE"] * 9 + ["SUSPENDED"], "codes": [134, 134]}
    cloud.script(slices=[crashed, ACTIVE])
    assert run(cloud, settle=300.0) == 0
    assert cloud.deeds().count("create") == 2


def test_a_worker_that_cannot_be_set_up_ends_the_run(cloud, capsys):
    cloud.script(slices=[ACTIVE | {"setup": [0, 3]}])
    assert run(cloud) == 3
    assert "start" not in cloud.deeds()
    assert "worker 1 could not be set up" in capsys.readouterr().out
    assert not cloud.holds_a_slice()


def test_a_worker_that_never_answers_costs_a_slice(cloud, capsys):
    cloud.script(slices=[ACTIVE | {"answer": [0]}, ACTIVE])
    assert run(cloud) == 0
    assert "workers [1] were not ready in time" in capsys.readouterr().out
    assert cloud.deeds().count("create") == 2


def test_quota_is_told_at_once_and_not_tried_again(cloud, capsys):
    cloud.script(creates=["quota"])
    assert run(cloud) == GAVE_UP
    assert cloud.deeds() == ["pack", "create", "delete"]
    assert "Quota limit 'TPUV5s' has been exceeded" in capsys.readouterr().out


def test_no_capacity_is_tried_again(cloud):
    cloud.script(creates=["capacity", "capacity", "ok"])
    assert run(cloud) == 0
    assert cloud.deeds().count("create") == 3


def test_a_slice_whose_creation_was_not_answered_is_not_forgotten(cloud):
    cloud.script(creates=["lost"])
    assert run(cloud) == 0
    assert cloud.deeds().count("create") == 1
    assert not cloud.holds_a_slice()


def test_a_deletion_that_fails_is_repeated(cloud):
    cloud.script(deletes=["fail", "fail", "ok"])
    assert run(cloud) == 0
    assert cloud.deeds().count("delete") == 3
    assert not cloud.holds_a_slice()


def test_a_slice_that_cannot_be_deleted_is_told_loudly(cloud, capsys):
    cloud.script(deletes=["fail"])
    assert run(cloud) == STILL_THERE
    assert "MAY STILL BE RUNNING" in (out := capsys.readouterr().out)
    deleting = {"queued": "tpus queued-resources", "mig": "instance-groups managed"}[cloud.backend]
    assert f"gcloud compute {deleting} delete evads-run --project=p --zone=z" in out


def test_when_the_hours_are_spent_the_job_saves_and_the_slice_goes(cloud):
    cloud.script(slices=[ACTIVE | {"runs": 10**6}])
    assert run(cloud, held=120.0) == 3
    assert cloud.deeds()[-3:] == ["stop", "collect", "delete"]
    assert not cloud.holds_a_slice()


@one_backend
def test_a_run_has_so_many_attempts(cloud, capsys):
    cloud.script(slices=[{"describe": ["FAILED"]}])
    assert run(cloud) == GAVE_UP
    assert cloud.deeds().count("create") == 3
    assert "attempt 3 of 3" in capsys.readouterr().out


@one_backend
def test_ctrl_c_saves_collects_and_gives_back(cloud):
    cloud.script(slices=[ACTIVE | {"runs": 10**6}])

    def interrupt():
        while "start" not in cloud.deeds():
            pass
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    assert run(cloud) == INTERRUPTED
    assert cloud.deeds()[-3:] == ["stop", "collect", "delete"]
    assert not cloud.holds_a_slice()


def test_a_second_launcher_takes_over_the_slice_of_one_that_died(cloud):
    cloud.script()
    running = {"described": 5, "workers": {"0": "running -", "1": "running -"}, "probes": 0}
    world = {"creates": 1, "deletes": 0, "slices": 1, "slice": running}
    (cloud.folder / "world.json").write_text(json.dumps(world))
    assert run(cloud) == 0
    assert cloud.deeds() == ["collect", "delete"]


@one_backend
@pytest.mark.parametrize("parts", [("00000001-0", "00000002-2"), ("00000002-2",)], ids=["whole", "one is missing"])
def test_the_logs_that_are_collected_are_put_together_and_a_slice_is_given_back_all_the_same(cloud, capsys, parts):
    log = cloud.folder / "here" / "run" / "events.jsonl"
    for part in parts:  # as rsync leaves them
        (path := log.with_name(f"{log.name}.parts") / part).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{part[7]}\n")
    cloud.script()
    assert run(cloud) == 0
    assert cloud.deeds()[-1] == "delete"
    assert log.exists() == (len(parts) == 2)
    assert ("collect failed: a part of a log is missing" in capsys.readouterr().out) == (len(parts) == 1)


@one_backend
def test_a_bug_of_the_launcher_leaves_no_slice(cloud, monkeypatch, capsys):
    cloud.script()
    monkeypatch.setattr(launch.Gcloud, "workers", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(cloud)
    assert cloud.deeds()[-1] == "delete"
    assert "MAY STILL BE RUNNING" in capsys.readouterr().out


def test_slices_of_every_kind_are_listed(cloud):
    cloud.script()
    assert launch.main(["--list", "--project=p", "--zone=z"]) == 0
    assert [call[1:4] for call in cloud.told()] == [
        ["tpus", "queued-resources", "list"], ["instance-groups", "managed", "list"]
    ]  # fmt: skip


def test_the_shell_entry_takes_options_of_the_job_and_refuses_others(cloud):
    entry = plan.ROOT / "tpu" / "launch.sh"
    environment = {**os.environ, "PYTHON": sys.executable}
    options = [*ARGUMENTS, f"--backend={cloud.backend}", "--dry-run"]

    def call(*more):
        return subprocess.run([entry, *options, *more], capture_output=True, text=True, env=environment, check=False)

    assert "--config.rl.group=4" in call("--config.rl.group=4").stdout
    refused = call("--rl.group=4")
    assert refused.returncode == 2
    assert refused.stderr.startswith("tpu/launch: unknown option [--rl.group=4]")
    assert cloud.told() == []  # a dry run touches nothing
