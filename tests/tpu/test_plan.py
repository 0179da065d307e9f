"""What is refused before anything is asked for, and the exact commands of every chip and back end."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from evads_jax.errors import UserError
from tests.storage.fake_gcs import FakeGCS
from tpu import backends, jobset, launch, plan

GOLDEN = Path(__file__).with_name("golden")
SLICES = [("v5e:4x4", "queued"), ("v5p:2x2x2", "queued"), ("v6e:2x4", "queued"), ("v5e:2x4", "gke"),
          ("v5p:2x2x4", "gke"), ("v6e:4x4", "gke"), ("tpu7x:2x2x1", "gke"), ("v5p:2x2x2", "mig"), ("v6e:2x4", "mig"),
          ("v6e:4x4", "mig"), ("tpu7x:2x2x4", "mig")]  # fmt: skip


def request(*options):
    arguments = ["--config=configs/mg_grpo.py:smoke", "--bucket=gs://bucket/folder/run", "--project=p",
                 "--zone=us-east5-a"]  # fmt: skip
    return launch._request(*launch._parser().parse_known_args([*arguments, *options]))


@pytest.mark.parametrize(("slice", "backend"), SLICES)
def test_a_dry_run_shows_exactly_these_commands(slice, backend):
    shown = launch.dry_run(request(f"--slice={slice}", f"--backend={backend}", "--config.rl.group=4"))
    shown = shown.replace(str(plan.ROOT), "ROOT").replace(json.dumps(jobset.OBJECTS.read_text()), '"objects.py"')
    shown = re.sub(r"evads-run-[0-9a-f]{8}\b", "evads-run-DIGEST", shown)
    assert shown == (GOLDEN / f"{backend}_{slice.replace(':', '_')}.txt").read_text()


@pytest.mark.parametrize(
    ("slice", "accelerator", "hosts", "devices"),
    [("v5e:2x4", "v5litepod-8", 1, 8), ("v5e:4x4", "v5litepod-16", 4, 16), ("v5p:2x2x1", "v5p-8", 1, 4),
     ("v5p:2x2x4", "v5p-32", 4, 16), ("v6e:2x4", "v6e-8", 1, 8), ("tpu7x:2x2x2", "tpu7x-16", 2, 16)],
)  # fmt: skip
def test_chips_cores_hosts_and_devices_are_told_apart(slice, accelerator, hosts, devices):
    made = plan.Slice.parse(slice)
    assert (made.accelerator, made.hosts, made.devices) == (accelerator, hosts, devices)


def test_every_host_of_a_slice_has_the_same_whole_number_of_chips():
    for chip, row in plan.CHIPS.items():
        for topology, hosts in row["hosts"].items():
            chips, left = divmod(plan.Slice(chip, topology).chips, hosts)
            assert (chips in (1, 4, 8), left) == (True, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--slice=v4:2x2x2"], "unknown chip 'v4' [--slice]: one of v5e, v5p, v6e, tpu7x"),
        (["--slice=v5e:3x3"], "v5e has no topology '3x3' [--slice]"),
        (["--slice=v5p:4x4"], "v5p has no topology '4x4' [--slice]"),
        (["--slice=tpu7x:2x2x1"], "queued cannot create tpu7x [--backend]: use mig or gke"),
        (["--slice=v5e:2x4", "--backend=mig"], "mig cannot create v5e [--backend]: use queued or gke"),
        (
            ["--slice=v5e:2x4", "--mesh=fsdp:4-tp:4"],
            "a mesh of data 1 × fsdp 4 × tp 4 needs 16 devices, v5e:2x4 has 8 [--mesh]",
        ),
        (["--slice=v5e:2x4", "--mesh=fsdp=8"], "cannot read the mesh 'fsdp=8' [--mesh]"),
        (["--slice=v5e:2x4", "--bucket=run"], "no bucket folder: 'run' [--bucket]"),
        (["--slice=v5e:2x4", "--name=mine"], "a slice cannot be called 'mine' [--name]"),
        (["--slice=v5e:2x4", "--hours=0"], "must be above 0, got 0 [--hours]"),
        (["--slice=v5e:2x4", "--hours=long"], "argument --hours: invalid float value"),
        (["--slice=v5e:2x4", "--config=configs/none.py"], "no such config [configs/none.py]"),
        (["--slice=v5e:2x4", "--backend=magic"], "unknown back end 'magic' [--backend]"),
        ([], "missing [--slice]"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(options, message):
    with pytest.raises(UserError) as refused:
        request(*options)
    assert str(refused.value).startswith(message)


def test_a_pod_is_restarted_after_preemption_and_not_after_a_bug():
    job = jobset.manifest(request("--slice=v6e:4x4", "--backend=gke"))["spec"]["replicatedJobs"][0]["template"]["spec"]
    final = set(job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"])
    assert {1, 2, 3, 126} <= final
    assert not final & {0, 42, 127, 134, 137, 143, 255}
    assert (job["parallelism"], job["completions"]) == (4, 4)
    assert job["template"]["spec"]["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}


def test_what_the_workers_are_told_is_valid_shell():
    made = request("--slice=v5e:4x4", "--config.run.language=it's")
    for script in (plan.probe(made), plan.setup(made), plan.start(made, 2), plan.stop(made)):
        assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0
        for backend in backends.BACKENDS.values():
            assert all(f"--command={script}" in command for command in backend.ssh(made, ["machine"], script))
    script = jobset.manifest(request("--slice=v5e:2x4", "--backend=gke"))["spec"]["replicatedJobs"][0]["template"]
    script = script["spec"]["template"]["spec"]["containers"][0]["command"][2]
    assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0
    json.dumps(script)


def test_a_pod_gets_its_code_with_nothing_but_the_python_of_its_image(tmp_path):
    made = request("--slice=v5e:2x4", "--backend=gke", "--bucket=gs://shelf/run")
    job = jobset.manifest(made)["spec"]["replicatedJobs"][0]["template"]["spec"]
    (pod,) = job["template"]["spec"]["containers"]
    environment = {row["name"]: row["value"] for row in pod["env"] if "value" in row}
    assert not any("$(" in value for value in environment.values())  # which Kubernetes would replace
    code = tmp_path / "code"
    (code / "tpu").mkdir(parents=True)
    for script in ("setup", "run"):
        (code / "tpu" / f"{script}_worker.sh").write_text(f"echo {script} $*\n")
    subprocess.run(["tar", "-czf", tmp_path / "code.tgz", "-C", code, "tpu"], check=True)
    with FakeGCS() as bucket:
        bucket.put(plan.code_url(made).removeprefix("gs://shelf/"), (tmp_path / "code.tgz").read_bytes())
        environment |= {"PATH": "/usr/bin:/bin", "EVADS_ATTEMPT": "2", **bucket.environment()}
        done = subprocess.run(
            pod["command"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
    job = "--config=configs/mg_grpo.py:smoke --config.mesh.data=1 --config.mesh.fsdp=8 --config.mesh.tp=1"
    assert done.stdout.splitlines() == ["setup gs://shelf/run", f"run gs://shelf/run 2 1 {job}"], done.stderr
    assert set(pod) == {"name", "image", "command", "env", "ports", "resources"}


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not here")
def test_shellcheck_finds_nothing():
    scripts = sorted((plan.ROOT / "tpu").glob("*.sh"))
    found = subprocess.run(["shellcheck", "-x", *scripts], capture_output=True, text=True, check=False, cwd=plan.ROOT)
    assert len(scripts) == 5
    assert found.stdout == ""
