"""The few-shot benchmark: PyTorch's side does what ours does, sides that disagree are not timed, the page is filled."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from evads_jax.benchmark.fewshot import accuracy, sample

pytest.importorskip("torch", reason="the peers' environment has it: make test-peers")
pytestmark = pytest.mark.peers
PAGE = Path(__file__).parents[2] / "docs" / "flor.md"


@pytest.fixture(scope="module")
def fewshot():
    from benchmarks import fewshot

    return fewshot


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("chunk", [1, 7])
def test_pytorch_finds_the_same_class_for_every_query(fewshot, shots, chunk):
    import torch

    rng = np.random.default_rng(shots)
    labels = np.repeat(np.arange(8), 20)
    features = (rng.normal(size=(8, 24))[labels] + 1.5 * rng.normal(size=(160, 24))).astype(np.float32)
    episodes = sample(labels, list("abcdefgh"), shots=shots, count=30, seed=0)
    ours = accuracy(features, episodes, chunk=7)
    assert 0.3 < ours.mean() < 0.95
    theirs = fewshot.torch_accuracy(torch.from_numpy(features), episodes, chunk)
    np.testing.assert_allclose(theirs, ours, atol=1e-6)


def test_a_side_of_other_accuracy_is_not_timed(fewshot):
    sides = {"evads_jax": lambda: np.full(4, 0.5), "PyTorch, a loop": lambda: np.full(4, 0.6)}
    with pytest.raises(AssertionError, match="PyTorch, a loop"):
        fewshot.best_in_turn(sides, 1)


def test_the_command_fills_its_block(fewshot, tmp_path, monkeypatch):
    page = tmp_path / "flor.md"
    shutil.copy(PAGE, page)
    command = ["fewshot", "--episodes=64", "--rounds=1", f"--page={page}", f"--out={tmp_path / 'fewshot.json'}"]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(fewshot, "CLASSES", 6)
    monkeypatch.setattr(fewshot, "PER_CLASS", 22)
    fewshot.main()
    (found,) = re.findall("<!-- begin speed -->(.*)<!-- end speed -->", page.read_text(encoding="utf-8"), re.DOTALL)
    rows = [line for line in found.splitlines() if re.match(r"\| [15] \|", line)]
    assert len(rows) == 4
    assert "64 episodes of 5 ways" in found
