"""A file is what it was before or what it was to become, never a part of it."""

import os
import subprocess
import sys

import pytest

from evads_jax import whole

KILLED = """
import os, signal, sys
from pathlib import Path
from evads_jax import whole
with whole.replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half of")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_is_written_replaces_what_was_there_and_makes_its_folder(tmp_path):
    path = tmp_path / "new" / "a.json"
    whole.write(path, "ä")
    whole.write(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(path.parent) == ["a.json"]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    whole.write(path, "old")
    with pytest.raises(TypeError), whole.replacing(path) as temporary:
        temporary.write_bytes("text")  # the file is open by then
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_kill_while_writing_leaves_the_old_file_and_the_next_write_succeeds(tmp_path):
    path = tmp_path / "a.json"
    whole.write(path, "old")
    assert subprocess.run([sys.executable, "-c", KILLED, path], check=False).returncode == -9
    assert path.read_text() == "old"
    whole.write(path, "new")
    assert path.read_text() == "new"
