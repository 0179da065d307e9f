"""Every ready config can be loaded, names a job that exists, and says how it is run."""

import ast
import importlib
import runpy
from pathlib import Path

import pytest

from evads_jax.errors import UserError
from evads_jax.main import JOBS

FOLDER = Path(__file__).parents[1] / "configs"
FILES = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_config_says_with_which_command_it_is_run(path):
    assert f"--config=configs/{path.name}" in (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_variant_names_a_job_that_exists(path):
    module = runpy.run_path(str(path))
    for arguments in [(), *((variant,) for variant in module.get("VARIANTS", ()))]:
        job = module["get_config"](*arguments).job
        name, function = JOBS[job].split(":")
        assert callable(getattr(importlib.import_module(name), function))


def test_an_unknown_variant_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="evads, "):
        runpy.run_path(str(FOLDER / "mg_grpo.py"))["get_config"]("nonsense")
