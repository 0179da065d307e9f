"""What the tests of several models share."""

import shutil

import pytest
from safetensors.numpy import load_file, save_file


@pytest.fixture
def altered(tmp_path):
    """Copies a folder of weights, with tensors renamed, put in or exchanged, and those that are None left out."""

    def make(source, rename=lambda name: name, **tensors):
        folder = tmp_path / "altered"
        shutil.copytree(source, folder)
        values = {rename(name): value for name, value in load_file(source / "model.safetensors").items()} | tensors
        kept = {name: value for name, value in values.items() if value is not None}
        save_file(kept, folder / "model.safetensors")
        return folder

    return make
