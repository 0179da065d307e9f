"""A run as a checkpoint folder and a checkpoint folder as a run: adopting, training, exporting, reading back."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_experiment
import tokenizers

from evads_jax.data.prompts import constants
from evads_jax.data.tokenizer import HuggingFaceTokenizer, SentencePieceTokenizer, find_tokenizer
from evads_jax.errors import UserError
from evads_jax.events import EventLog
from evads_jax.models.qwen_vl import QwenVLConfig, checkpoint
from evads_jax.train import export, starting
from evads_jax.train.context import Context
from evads_jax.train.results import find_policy
from evads_jax.train.sft import train_sft

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "models" / "qwen_vl" / "golden" / "checkpoints" / "qwen3_vl_4"
qwen_like = runpy.run_path(str(ROOT / "tests" / "data" / "test_tokenizer.py"))["qwen_like"]


def asked(**fields):
    """The config of the job, with some fields set."""
    config = runpy.run_path(str(ROOT / "configs" / "export.py"))["get_config"]()
    config.update({name: str(value) for name, value in fields.items()})
    return config


def trained(context, params):
    """SFT of an experiment, with what the job `experiment` would leave beside it."""
    (context.workdir / "config.json").write_text(context.config.to_json())
    context.log.write("run", config=context.config.to_dict(), environment={"commit": "0a1b", "jax": "0.10"})
    return train_sft(context, params)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """A run of the small model with a sentencepiece tokenizer, and its parameters after SFT."""
    workdir = tmp_path_factory.mktemp("small")

    def changes(config):
        config.sft.update(max_steps=2, validate_every=2)
        config.tokenizer.path = str(ROOT / ".cache" / "tests" / "tiny_tokenizer")

    context = tiny_experiment.context(workdir, changes)
    return workdir, trained(context, starting.parameters(context.config, context.model)).params


@pytest.fixture(scope="module")
def exported(small_run, tmp_path_factory):
    """The small run's SFT stage, exported."""
    out = tmp_path_factory.mktemp("exports") / "small"
    export.run(asked(run=small_run[0], stage="sft", out=out), None)
    return out


@pytest.fixture(scope="module")
def checkpoint_folder(tmp_path_factory):
    """A tiny checkpoint that transformers wrote, with a byte-level tokenizer of Qwen's form."""
    folder = tmp_path_factory.mktemp("downloaded") / "Qwen3-VL-tiny"
    shutil.copytree(GOLDEN, folder)
    (folder / "tokenizer.json").write_text(qwen_like())
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A base model\n")
    (folder / "LICENSE").write_text("the licence")
    return folder


@pytest.fixture(scope="module")
def checkpoint_run(checkpoint_folder, tmp_path_factory):
    """A run that started from that checkpoint, after two steps of SFT."""
    workdir, config = tmp_path_factory.mktemp("from_checkpoint"), tiny_experiment.config()
    config.model.path = str(checkpoint_folder)
    config.data.update(prompt_tokens=640, suffix_tokens=640)
    config.sft.update(max_steps=2, validate_every=2)
    starting.adopt(config)
    tokenizer = find_tokenizer(checkpoint_folder)
    model = QwenVLConfig.from_config(config.model, tokenizer.size)
    sources = {name: tiny_experiment.Records(map(tiny_experiment.record, range(4))) for name in ("sft", "validation")}
    context = Context(config, workdir, EventLog(workdir), tokenizer, model, sources)
    params = starting.parameters(config, model)
    before = jax.device_get(params)  # the stage gives them up
    return workdir, before, trained(context, params).params


def test_an_exported_small_model_is_read_back_with_its_tokenizer(small_run, exported):
    policy = find_policy(small_run[0])
    assert checkpoint.read_config(exported).width == 16
    jax.tree.map(
        np.testing.assert_array_equal,
        checkpoint.load_parameters(exported, checkpoint.read_config(exported)),
        small_run[1],
    )
    assert isinstance(find_tokenizer(exported), SentencePieceTokenizer)
    assert json.loads((exported / "config.json").read_text())["video_token_id"] == policy.tokenizer.ids.video_pad
    stated = json.loads((exported / "video_preprocessor_config.json").read_text())
    assert (stated["fps"], stated["max_frames"], stated["patch_size"]) == (1.0, 2, 8)


def test_the_tokenizer_json_of_an_export_gives_the_same_ids(exported):
    ours = find_tokenizer(exported)
    theirs = tokenizers.Tokenizer.from_file(str(exported / "tokenizer.json"))
    texts = [
        "it is red, look at this",
        "  two  spaces ",
        "多少钱？ ünseen 😀\n",
        "".join(constants()),
        "<think>a</think>",
    ]
    for text in texts:
        ids = ours.encode(text, specials=True)
        assert theirs.encode(text, add_special_tokens=False).ids == ids
        assert theirs.decode(ids, skip_special_tokens=False) == text
    for text, index in ours.specials.items():
        assert theirs.token_to_id(text) == index


def test_the_card_says_what_made_the_model_and_what_it_cannot_do(exported):
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: transformers\n")
    for heading in ("Base", "Data", "Recipe", "Judge", "Tables", "Licence", "Known limits"):
        assert f"\n## {heading}\n\n" in card
    assert "- sft: 2 steps, kept step 2, ended by max_steps" in card
    assert "drawn ads of 16 pixels only" in card
    assert '"learning_rate": 0.001' in card
    assert str(Path.home()) not in card
    assert ".cache" not in card


def test_a_checkpoints_sizes_and_tokenizer_become_the_configs(checkpoint_run, checkpoint_folder):
    config = find_policy(checkpoint_run[0]).config
    assert (config.model.width, config.model.vocabulary) == (24, 288)
    assert tuple(config.model.vision_deepstack) == (0,)
    assert (config.tokenizer.kind, config.tokenizer.path) == ("huggingface", str(checkpoint_folder))
    assert config.model.scan_layers is False  # how it is run stays the config's


def test_two_steps_of_sft_from_a_checkpoint_start_at_its_weights_and_move_them(checkpoint_run, checkpoint_folder):
    _, before, after = checkpoint_run
    config = checkpoint.read_config(checkpoint_folder)
    jax.tree.map(np.testing.assert_array_equal, before, checkpoint.load_parameters(checkpoint_folder, config))
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), before, after)
    assert all(0 < distance < 0.1 for distance in jax.tree.leaves(moved))


def test_an_export_of_a_run_from_a_checkpoint_is_a_folder_like_it(checkpoint_run, checkpoint_folder, tmp_path):
    workdir, _, after = checkpoint_run
    export.run(asked(run=workdir, out=tmp_path / "base", stage="base"), None)
    export.run(asked(run=workdir, out=tmp_path / "sft"), None)
    for path in checkpoint_folder.iterdir():
        if path.name != "README.md":
            assert (tmp_path / "base" / path.name).read_bytes() == path.read_bytes()
    names = {path.name for path in checkpoint_folder.iterdir()}
    assert {path.name for path in (tmp_path / "sft").iterdir()} == names
    jax.tree.map(
        np.testing.assert_array_equal,
        checkpoint.load_parameters(tmp_path / "sft", checkpoint.read_config(tmp_path / "sft")),
        after,
    )
    card = (tmp_path / "sft" / "README.md").read_text()
    assert "base_model: Qwen3-VL-tiny\n" in card
    assert "That of the base model (apache-2.0); its text is in LICENSE." in card
    assert str(checkpoint_folder.parent) not in card


def test_a_checkpoint_without_a_tokenizer_is_refused_before_anything_is_made(checkpoint_folder, tmp_path):
    folder, config = tmp_path / "c", tiny_experiment.config()
    shutil.copytree(checkpoint_folder, folder)
    (folder / "tokenizer.json").unlink()
    config.model.path = str(folder)
    with pytest.raises(UserError, match=r"no readable tokenizer \[.*tokenizer\.json\]"):
        starting.adopt(config)
    larger = json.loads(qwen_like())
    larger["added_tokens"] += [larger["added_tokens"][-1] | {"id": 269 + i, "content": f"<{i}>"} for i in range(30)]
    (folder / "tokenizer.json").write_text(json.dumps(larger))
    assert HuggingFaceTokenizer(json.dumps(larger)).size > 288
    config.tokenizer.path = None
    with pytest.raises(UserError, match="the model knows 288"):
        starting.adopt(config)


def test_what_cannot_be_exported_is_one_line(small_run, exported, tmp_path):
    with pytest.raises(UserError, match="no run to export"):
        export.run(asked(out=tmp_path), None)
    with pytest.raises(UserError, match="no folder to export to"):
        export.run(asked(run=small_run[0]), None)
    with pytest.raises(UserError, match=r"no finished stage mg_grpo .* it has sft"):
        export.run(asked(run=small_run[0], stage="mg_grpo", out=tmp_path), None)
    with pytest.raises(UserError, match="unknown type 'float16'"):
        export.run(asked(run=small_run[0], out=tmp_path, dtype="float16"), None)
    with pytest.raises(UserError, match="no run here"):
        export.run(asked(run=tmp_path, out=tmp_path / "o"), None)
    (tmp_path / "other.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds other weights: other\.safetensors"):
        export.run(asked(run=small_run[0], out=tmp_path), None)


OPENED = """
import sys, torch
for operator in ("nms", "qnms"):
    torch.library.define(f"torchvision::{operator}", "(Tensor a, Tensor b, float c) -> Tensor")
from transformers import AutoModelForImageTextToText, AutoProcessor
model, info = AutoModelForImageTextToText.from_pretrained(sys.argv[1], output_loading_info=True)
assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
processor = AutoProcessor.from_pretrained(sys.argv[1])
import numpy as np
from transformers.video_utils import VideoMetadata
turns = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "which colour?"}]}]
text = processor.apply_chat_template(turns, add_generation_prompt=True)
video = np.zeros((4, 32, 32, 3), np.uint8)
metadata = VideoMetadata(total_num_frames=4, fps=2.0, frames_indices=[0, 1, 2, 3])
inputs = processor(text=[text], videos=[video], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt")
logits = model(**inputs).logits
assert torch.isfinite(logits).all() and logits.shape[1] == inputs["input_ids"].shape[1]
print("opened", text.replace("\\n", "|"))
"""


@pytest.mark.peers
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transformers_opens_an_exported_small_model_and_its_processor(small_run, tmp_path, dtype):
    torchvision = Path(sys.prefix) / "torchvision"
    if not torchvision.is_dir():
        pytest.skip("torchvision is not installed beside the peers: make test-peers")
    export.run(asked(run=small_run[0], out=tmp_path / "out", dtype=dtype), None)
    run = subprocess.run(
        [sys.executable, "-c", OPENED, tmp_path / "out"],
        env={**os.environ, "PYTHONPATH": str(torchvision)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    shown = "<|vision_start|><|video_pad|><|vision_end|>which colour?"
    assert run.stdout.strip() == f"opened <|im_start|>user|{shown}<|im_end|>|<|im_start|>assistant|", run.stderr[-2000:]
