"""The processes that are timed in turn: what is kept of one that fails, and that none is left behind."""

import subprocess
from pathlib import Path

import pytest

from benchmarks import grpo_step, record, sides
from benchmarks.decoder import Sizes, Work

DYING = "tests.benchmarks.dying"


def kept(path, module, monkeypatch):
    """What is kept of a trial of TRL's side where that is another module."""
    monkeypatch.setitem(grpo_step.MODULES, grpo_step.TRL, module)
    monkeypatch.setattr(grpo_step, "candidates", lambda work, quick: {grpo_step.TRL: {"batch 4": {"batch": 4}}})
    return grpo_step.probe(Work(2, 2, 12, 4), "", Sizes(), record.Record(path), quick=True)


def test_settings_that_a_step_dies_of_are_listed_and_a_side_that_cannot_begin_is_no_measurement(tmp_path, monkeypatch):
    found = kept(tmp_path / "a.json", DYING, monkeypatch)
    assert found == {"TRL": {"batch 4": {"failed": "MemoryError: no more"}}}
    with pytest.raises(RuntimeError, match=r"No module named tests\.benchmarks\.absent"):
        kept(tmp_path / "b.json", "tests.benchmarks.absent", monkeypatch)
    assert not (tmp_path / "b.json").exists()


def test_a_side_that_is_given_up_before_it_is_ready_leaves_no_process(monkeypatch):
    began, popen = [], subprocess.Popen
    monkeypatch.setattr(sides.subprocess, "Popen", lambda *a, **k: began.append(popen(*a, **k)) or began[-1])

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(sides.Side, "_answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sides.Side(DYING, {})
    assert began[0].poll() is not None


def test_a_side_that_waits_goes_by_itself_and_takes_its_files_with_it():
    with sides.started({"one": (DYING, {})}) as running:
        folder = Path(running["one"].ready["folder"])
        assert folder.is_dir()
    assert not folder.exists()


def test_a_side_that_was_killed_while_it_waited_is_told_with_what_it_had_said():
    with sides.started({"one": (DYING, {})}) as running:
        running["one"]._process.kill()
        running["one"]._process.wait()
        with pytest.raises(RuntimeError, match="all is well"):
            running["one"].ask("step")
