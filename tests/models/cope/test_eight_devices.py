"""Losses and gradients are the same on one device and on eight; the logits of the classes are never gathered."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("eight_devices.py")
MESHES = pytest.mark.parametrize("mesh", ["fsdp8", "data2_fsdp2_tp2"])


@functools.cache
def compared(what):
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    run = subprocess.run(
        [sys.executable, PROGRAM, what], env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout.splitlines()[-1])


@MESHES
@pytest.mark.parametrize("loss", ["pair", "cosface"])
def test_eight_devices_have_the_loss_and_the_gradients_of_one(mesh, loss):
    assert compared("losses")[mesh][loss] <= 1e-5


@MESHES
def test_the_logits_of_the_classes_are_never_gathered(mesh):
    assert compared("losses")[mesh]["gathers"] == compared("losses")[mesh]["whole_logits"] == 0


@pytest.mark.slow
@MESHES
def test_eight_devices_have_the_gradients_of_the_whole_model(mesh):
    assert compared("model")[mesh]["model"] <= 1e-5
