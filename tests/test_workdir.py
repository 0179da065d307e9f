"""A work directory belongs to the config that it was made with."""

import json
import subprocess

import ml_collections
import pytest

from evads_jax import workdir
from evads_jax.errors import UserError


def config(**changes):
    sections = {"rl": {"group": 8, "max_steps": 10}, "log": {"every": 5}, "mesh": {"fsdp": 1}}
    made = ml_collections.ConfigDict(sections)
    made.update_from_flattened_dict(changes)
    return made


def test_the_same_config_may_go_on(tmp_path):
    workdir.claim(tmp_path / "w", config())
    workdir.claim(tmp_path / "w", config())
    assert json.loads((tmp_path / "w" / "config.json").read_text())["rl"]["group"] == 8


def test_another_config_is_refused_and_the_differing_field_named(tmp_path):
    workdir.claim(tmp_path, config())
    with pytest.raises(UserError, match=r"rl\.group was 8, is 4"):
        workdir.claim(tmp_path, config(**{"rl.group": 4}))
    assert json.loads((tmp_path / "config.json").read_text())["rl"]["group"] == 8


def test_steps_and_logging_may_change(tmp_path):
    workdir.claim(tmp_path, config())
    workdir.claim(tmp_path, config(**{"rl.max_steps": 20, "log.every": 1}))
    assert json.loads((tmp_path / "config.json").read_text())["rl"]["max_steps"] == 20


def test_a_run_may_go_on_with_other_devices(tmp_path):
    workdir.claim(tmp_path, config())
    workdir.claim(tmp_path, config(**{"mesh.fsdp": 8}))
    assert json.loads((tmp_path / "config.json").read_text())["mesh"]["fsdp"] == 8


def test_a_run_may_go_on_with_another_number_of_readers(tmp_path):
    workdir.claim(tmp_path, ml_collections.ConfigDict({"data": {"workers": 0}}))
    workdir.claim(tmp_path, ml_collections.ConfigDict({"data": {"workers": 2}}))
    assert json.loads((tmp_path / "config.json").read_text())["data"]["workers"] == 2


def test_a_control_may_last_longer_but_not_learn_from_another_split(tmp_path):
    control = {"control": {"steps": 10, "split": "sft"}}
    workdir.claim(tmp_path, ml_collections.ConfigDict(control))
    workdir.claim(tmp_path, ml_collections.ConfigDict({"control": control["control"] | {"steps": 20}}))
    with pytest.raises(UserError, match=r"control\.split was 'sft', is 'rl'"):
        workdir.claim(tmp_path, ml_collections.ConfigDict({"control": {"steps": 20, "split": "rl"}}))


def test_a_page_that_a_command_has_written_does_not_make_another_commit(tmp_path, monkeypatch):
    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(["git", *who, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    package, pages = tmp_path / "package", ("README.md", "docs/speed.md", "docs/plot.png")
    monkeypatch.setattr(workdir, "__file__", str(package / "workdir.py"))
    assert workdir.environment()["commit"] is None
    for name in ("package/code.py", *pages):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    git("init", "-q")
    assert workdir.environment()["commit"] is None
    git("add", ".")
    git("commit", "-qm", "all")
    commit = git("rev-parse", "--short=12", "HEAD")
    assert workdir.environment()["commit"] == commit
    for name in pages:
        (tmp_path / name).write_text("measured")
    assert workdir.environment()["commit"] == commit
    (package / "code.py").write_text("faster")
    assert workdir.environment()["commit"] == f"{commit}-dirty"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the work directory"):
        workdir.claim(tmp_path / "file" / "w", config())
