"""Losses and gradients are the same on one device and on eight; the logits of the classes are never gathered."""

import functools
import json
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("eight_devices.py")
MESHES = pytest.mark.parametrize("mesh", [pytest.param("fsdp8", marks=pytest.mark.slow), "data2_fsdp2_tp2"])


@pytest.fixture(scope="module")
def compared(on_eight_devices):
    return functools.cache(lambda *asked: json.loads(on_eight_devices(PROGRAM, *asked, timeout=500).splitlines()[-1]))


@MESHES
@pytest.mark.parametrize("loss", ["pair", "cosface"])
def test_eight_devices_have_the_loss_and_the_gradients_of_one(compared, mesh, loss):
    assert compared("losses", mesh)[loss] <= 1e-5


@MESHES
def test_the_logits_of_the_classes_are_never_gathered(compared, mesh):
    found = compared("losses", mesh)
    assert found["gathers"] == found["whole_logits"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["fsdp8", "data2_fsdp2_tp2"])
def test_eight_devices_have_the_gradients_of_the_whole_model(compared, mesh):
    assert compared("model", mesh)["model"] <= 1e-5
