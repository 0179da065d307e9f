"""Checkpoints through transformers as it is installed: what it writes comes back to it unchanged."""

import pytest

from evads_jax.models.qwen_vl import checkpoint

pytestmark = pytest.mark.peers


def test_transformers_opens_an_export_of_what_it_wrote_itself(tmp_path):
    torch = pytest.importorskip("torch", reason="the peers are not installed: make test-peers")
    from transformers import AutoModelForImageTextToText

    from . import make_checkpoints

    make_checkpoints.main(tmp_path / "written")
    folders = sorted((tmp_path / "written").iterdir())
    assert len(folders) == 2
    for folder in folders:
        config, out = checkpoint.read_config(folder), tmp_path / folder.name
        checkpoint.save_parameters(out, checkpoint.load_parameters(folder, config), config, folder)
        for path in folder.iterdir():
            assert (out / path.name).read_bytes() == path.read_bytes()
        opened = [
            AutoModelForImageTextToText.from_pretrained(path, dtype="auto", output_loading_info=True)
            for path in (folder, out)
        ]
        for _, info in opened:
            assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        first, second = (model.state_dict() for model, _ in opened)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
