"""A run's folder as MG-GRPO leaves it, without any training: random weights of a model of a few thousand parameters."""

import runpy
from pathlib import Path

import jax
import optax

from evads_jax.data import prompts, shards
from evads_jax.data.makers import DrawAds, Sampling
from evads_jax.data.tokenizer import train_sentencepiece
from evads_jax.judge import local
from evads_jax.judge.request import load_prompts
from evads_jax.models import qwen_vl
from evads_jax.models.qwen_vl import QwenVLConfig, VisionConfig, checkpoint
from evads_jax.train import state
from evads_jax.train.checkpoint import Checkpoints

CONFIGS = Path(__file__).parents[2] / "configs"


def make(folder):
    """A run's folder as MG-GRPO leaves it: config, test shards of two drawn ads, tokenizer, a finished stage."""
    config = runpy.run_path(str(CONFIGS / "mg_grpo.py"))["get_config"]("smoke")
    config.data.update(frame_size=32, max_frames=2, prompt_tokens=512)
    config.model.update(
        width=16, layers=2, heads=2, kv_heads=1, head_width=8, mlp_width=16, mrope_sections=(2, 1, 1),
        vision_width=8, vision_layers=1, vision_heads=1, vision_mlp_width=8, vision_position_grid=2,
        vision_deepstack=(0,),
    )  # fmt: skip
    config.eval.max_new_tokens = 8
    sampling = Sampling(1.0, 2, 32, 16)
    recipe = {"language": "en", "sampling": vars(sampling)}
    shards.build(DrawAds("test", 0, "en", sampling), 2, folder / "shards" / "test", split="test", recipe=recipe)
    source = shards.open(folder / "shards", "test")
    examples = [e for i in range(len(source)) for e in source[i].examples()]
    judging = load_prompts("v1", "en")
    texts = [*prompts.corpus(examples), *judging.texts.values(), "0 0.25 0.5 0.75 1"]
    constants = (*prompts.constants(), *local.constants(judging))
    tokenizer = train_sentencepiece(texts, 1000, folder / "tokenizer", constants)
    model = QwenVLConfig.from_config(config.model, tokenizer.size)
    params = qwen_vl.init(model, jax.random.key(0))
    checkpoints = Checkpoints(folder, "mg_grpo")
    checkpoints.save(3, state.create(params, optax.sgd(0.1)), None, {})
    checkpoints.finish({"step": 3, "best_step": 3, "reason": "max_steps", "seconds": 1.0, "events": 0})
    checkpoints.close()
    (folder / "config.json").write_text(config.to_json())
    checkpoint.save_parameters(folder / "exported", params, model, tokenizer=tokenizer)
    vision = VisionConfig(width=16, layers=1, heads=2, mlp_width=16, patch=4, position_grid=4)
    judge = QwenVLConfig(tokenizer.size, 16, 1, 2, 1, 8, 16, (2, 1, 1), vision)
    about = {"prompts": "v1", "language": "en", "prompt_tokens": 768, "candidate_tokens": 256}
    local.save(folder / "judge", qwen_vl.init(judge, jax.random.key(1)), judge, tokenizer, "sentencepiece", **about)
    return folder
