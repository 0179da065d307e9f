"""A work directory belongs to the config that it was made with."""

import json

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


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the work directory"):
        workdir.claim(tmp_path / "file" / "w", config())
