"""The configs that start from a downloaded checkpoint, on small ones that transformers wrote."""

import json
import math
import runpy
import shutil
from pathlib import Path

import jax
import pytest
from test_ask import CHECKPOINTS, byte_tokenizer

import evads_jax
from evads_jax.data.render import draw_script
from evads_jax.data.render.video import draw_video
from evads_jax.errors import UserError
from evads_jax.events import read_events
from evads_jax.models import lora
from evads_jax.train import experiment, results

CONFIGS = Path(__file__).parents[2] / "configs"
FAMILY = {
    "qwen3_vl_2b_lora": "qwen3_vl_4",  # tied, float32
    "qwen3_vl_8b_lora": "qwen3_vl_5",  # untied, bfloat16, sharded
    "qwen3_vl_8b": "qwen3_vl_5",
    "qwen2_5_vl_7b": "qwen2_5_vl_4",
}
each = pytest.mark.parametrize("variant", FAMILY)


def get_config(file, variant):
    return runpy.run_path(str(CONFIGS / f"{file}.py"))["get_config"](variant)


@each
def test_sft_alone_is_the_first_half_of_the_whole_experiment(variant):
    alone, whole = (json.loads(get_config(file, f"evads+{variant}+openai").to_json()) for file in ("sft", "mg_grpo"))
    assert alone["run"].pop("stages") == ["base", "sft"]
    assert whole["run"].pop("stages") == ["base", "sft", "mg_grpo"]
    alone["eval"].pop("blank_too"), whole["eval"].pop("blank_too")
    assert alone == whole
    assert alone["data"]["source"] == "annotations"
    assert alone["model"]["path"].startswith("weights/Qwen")
    assert alone["judge"]["kind"] == "openai"


@each
def test_a_variant_without_its_weights_says_so_at_once(variant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no readable config.json \[weights/Qwen"):
        experiment.run(get_config("mg_grpo", variant), tmp_path / "w")


@each
def test_a_batch_of_a_variant_can_be_divided_as_it_says(variant):
    config = get_config("mg_grpo", variant)
    shares = config.mesh.data * config.mesh.fsdp
    assert config.rl.batch_prompts % config.rl.micro_groups == config.rl.group % config.rl.micro_samples == 0
    assert all(
        size % shares == 0 for size in (config.rl.micro_groups, config.sft.batch_videos, config.eval.batch_prompts)
    )
    units, side = math.ceil(config.data.max_frames / 2), config.data.frame_size // (28 if "2_5" in variant else 32)
    assert units * (side**2 + 12) + 256 < config.data.prompt_tokens  # a square video leaves room for events


@pytest.mark.slow
@pytest.mark.timeout(1800)
@each
def test_a_variant_runs_from_weights_that_transformers_wrote(variant, tmp_path):
    weights = tmp_path / "weights"
    shutil.copytree(CHECKPOINTS / FAMILY[variant], weights)
    (weights / "tokenizer.json").write_text(byte_tokenizer(), encoding="utf-8")
    config = get_config("mg_grpo", f"{variant}+shrunk")
    config.model.path = str(weights)
    experiment.run(config, tmp_path / "w")
    ends = {event["stage"]: event["step"] for event in read_events(tmp_path / "w", "stage_end")}
    assert ends == {"sft": 2, "mg_grpo": 2}
    steps = read_events(tmp_path / "w", "train")
    assert all(math.isfinite(event["loss"]) and event["grad_norm"] > 0 for event in steps if event["stage"] == "sft")
    first = next(event for event in steps if event["stage"] == "mg_grpo")
    assert first["kl"] == pytest.approx(0.0, abs=1e-6)
    policy = results.find_policy(tmp_path / "w")
    assert policy.model.dtype == "bfloat16"
    params = policy.parameters()
    leaves = jax.tree.leaves(params, is_leaf=lambda leaf: isinstance(leaf, lora.Adapted))
    assert not any(isinstance(leaf, lora.Adapted) for leaf in leaves)
    draw_video(draw_script(5, "en", "test"), tmp_path / "ad.mp4")
    said = evads_jax.load(tmp_path / "w").ask(tmp_path / "ad.mp4", "What is sold?")
    assert said.tokens > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_shrunk_variant_needs_no_weights(tmp_path):
    experiment.run(get_config("mg_grpo", "qwen2_5_vl_7b+shrunk"), tmp_path)
    assert {event["stage"] for event in read_events(tmp_path, "stage_end")} == {"sft", "mg_grpo"}
