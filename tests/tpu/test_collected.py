"""A work directory that was copied out of a bucket is one again."""

import subprocess
import sys

import pytest

from evads_jax.errors import UserError
from evads_jax.storage.mirror import Mirror
from tests.storage.memory import Memory
from tpu import collected, plan


@pytest.fixture
def job(tmp_path):
    """A job's mirror, and the folder that its bucket is copied to."""
    store = Memory()
    mirror = Mirror(store, "gs://shelf/run", tmp_path / "job")
    mirror.fetch()

    def copied():
        mirror.push()
        for name, content in store.objects.items():
            (path := tmp_path / "here" / "run" / name).parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / "here"

    return mirror, copied


def test_logs_are_files_again_whatever_became_of_them(job):
    mirror, copied = job
    log = mirror.folder / "evaluation" / "sft" / "predictions.jsonl"
    log.parent.mkdir(parents=True)
    for text in ("1\n", "1\n2\n", "1\n3\n4\n"):
        log.write_text(text)
        mirror.push()
    (mirror.folder / "events.jsonl").write_text("e\n")
    here = copied() / "run"
    collected.join(here.parent)
    assert (here / "evaluation" / "sft" / "predictions.jsonl").read_text() == "1\n3\n4\n"
    assert (here / "events.jsonl").read_text() == "e\n"
    assert not list(here.rglob("*.parts"))
    # Begun anew: its first part has the number of one that was here before.
    log.unlink()
    mirror.push()
    log.write_text("new\n")
    collected.join(copied())
    assert (here / "evaluation" / "sft" / "predictions.jsonl").read_text() == "new\n"


def test_a_part_that_is_missing_is_told_and_nothing_is_lost(job):
    mirror, copied = job
    log = mirror.folder / "events.jsonl"
    for text in ("1\n", "1\n2\n"):
        log.write_text(text)
        mirror.push()
    here = copied()
    (here / "run" / "events.jsonl.parts" / "00000001-0").unlink()
    with pytest.raises(UserError, match="a part of a log is missing"):
        collected.join(here)
    assert (here / "run" / "events.jsonl.parts" / "00000002-2").exists()


def test_the_launcher_needs_nothing_but_pythons_own_library(job):
    mirror, copied = job
    (mirror.folder / "events.jsonl").write_text("e\n")
    here = copied()
    program = f"import sys; sys.path.insert(0, {str(plan.ROOT)!r}); import tpu.launch; from tpu import collected; "
    program += f"from pathlib import Path; collected.join(Path({str(here)!r}))"
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True)
    assert (here / "run" / "events.jsonl").read_text() == "e\n"
