"""The official processors as they are installed, against the golden files and so against ours.

They run in a process of their own: torchvision's wheels ask torch for operators that a build for CPU does not have, so
it stands apart from the other peers and is made importable by `make_golden_processor`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.peers
GOLDEN, ROOT = Path(__file__).parent / "golden", Path(__file__).parents[2]


def test_the_installed_processors_still_give_the_golden_answers(tmp_path):
    torchvision = Path(sys.prefix) / "torchvision"
    if not torchvision.is_dir():
        pytest.skip("torchvision is not installed beside the peers: make test-peers")
    for video in GOLDEN.glob("*.mp4"):
        shutil.copy(video, tmp_path)
    run = subprocess.run(
        [sys.executable, "-m", "tests.data.make_golden_processor", tmp_path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(torchvision)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    with np.load(tmp_path / "processor_5.npz") as live, np.load(GOLDEN / "processor_5.npz") as golden:
        assert set(live) == set(golden)
        for name in golden:
            if name.endswith("/levels"):  # builds of torch round by another level here and there
                assert np.abs(live[name].astype(int) - golden[name].astype(int)).max() <= 1
            else:
                np.testing.assert_allclose(live[name], golden[name], atol=0.02 if "normalised" in name else 0)
