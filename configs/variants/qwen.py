"""Variants of configs/sft.py and configs/mg_grpo.py that start from a downloaded Qwen-VL checkpoint.

They set what depends on the model's size: frames, prompts, batches, learning rates, LoRA, mesh. Sizes and tokenizer
come from the checkpoint. Data and judge come from other variants, joined with a plus, the Qwen one behind them:

    evads+qwen3_vl_2b_lora+openai       the released annotations, their videos, a language model as the judge
    qwen3_vl_2b_lora                    drawn ads and the lexical judge: nothing but the weights is needed, to try it
    qwen3_vl_2b_lora+shrunk             widths and depths of a toy without weights, two steps: runs on any CPU

All figures below are estimates. Parameters are counted from the checkpoints' config.json (2.13, 8.77 and 8.29
billion). Memory: 2 bytes for a frozen weight beside adapters; 16 for a trained one (value, two moments, gradient), 4
more for the copy that MG-GRPO's KL term needs; keys and values of prompts and completions; the inputs of all decoder
layers, which are computed again in the backward pass; and three times the attention logits of one layer. Hours: 2 FLOPs
per parameter and token forward, as many again for the backward pass and for what it computes again; 35 to 40 % of the
chip's peak in bfloat16, half of its memory bandwidth in decoding; 3 epochs of SFT on 338 videos (nine tenths of the
376 released ones), 2 of MG-GRPO on 882 questions (1 on the small card), 5 seconds of judge per step.

bfloat16 (`model.dtype`) is the type of activations and matrix products, and of matrices frozen beside adapters. Float32
are: everything that is trained, its moments and gradients, norms, attention's softmax, rotary angles, logits,
log-probabilities, advantages and losses.

Learning rates, batches, ranks and steps are not given in the paper.
"""

import ml_collections
from ml_collections import config_dict


def qwen3_vl_2b_lora(config: ml_collections.ConfigDict) -> None:
    """Qwen3-VL-2B with adapters, on one GPU with 24 GB.

        hf download Qwen/Qwen3-VL-2B-Instruct --local-dir weights/Qwen3-VL-2B-Instruct
        XLA_PYTHON_CLIENT_MEM_FRACTION=.95 python -m evads_jax.main \
            --config=configs/mg_grpo.py:evads+qwen3_vl_2b_lora+openai --workdir=runs/2b \
            --config.data.annotations=DIR --config.data.videos=DIR \
            --config.judge.base_url=https://host/v1 --config.judge.model=NAME

    SFT alone: configs/sft.py:evads+qwen3_vl_2b_lora, without a judge's fields. Disk: 4.3 GB of weights, 1.5 GB of
    checkpoints (adapters only), and the shards. Memory: 17 GB at most, of which 4.3 are weights and 6.4 the attention
    logits of two prompts in SFT. Hours, on an RTX 4090: 0.5 SFT, 1.3 MG-GRPO, 0.5 evaluations.
    """
    _checkpoint(config, "qwen3_vl", "Qwen3-VL-2B-Instruct")
    _lora(config)
    config.sft.batch_videos, config.sft.max_steps, config.sft.validate_every = 2, 510, 85
    config.rl.batch_prompts, config.rl.max_steps = 4, 220
    config.rl.micro_groups, config.rl.micro_samples = 1, 4
    config.eval.batch_prompts = 4


def qwen3_vl_8b_lora(config: ml_collections.ConfigDict) -> None:
    """Qwen3-VL-8B, the paper's base, with adapters, on one GPU with 80 GB.

        hf download Qwen/Qwen3-VL-8B-Instruct --local-dir weights/Qwen3-VL-8B-Instruct
        XLA_PYTHON_CLIENT_MEM_FRACTION=.95 python -m evads_jax.main \
            --config=configs/mg_grpo.py:evads+qwen3_vl_8b_lora+openai --workdir=runs/8b_lora \
            --config.data.annotations=DIR --config.data.videos=DIR \
            --config.judge.base_url=https://host/v1 --config.judge.model=NAME

    SFT alone: configs/sft.py:evads+qwen3_vl_8b_lora, without a judge's fields. Disk: 17.5 GB of weights, 4 GB of
    checkpoints (adapters only), and the shards. Memory: 55 GB at most: while the weights are read (35 GB in float32,
    then 17.5), and in a rollout (17.5 weights, 10 keys and values, 26 attention logits of eight prompts). Hours, on an
    H100: 0.3 SFT, 1.5 MG-GRPO, 0.5 evaluations; on an A100 0.7, 3.5 and 1.
    """
    _checkpoint(config, "qwen3_vl", "Qwen3-VL-8B-Instruct")
    _lora(config)
    config.sft.batch_videos, config.sft.max_steps, config.sft.validate_every = 2, 510, 85
    config.rl.batch_prompts, config.rl.max_steps = 8, 220
    config.rl.micro_groups, config.rl.micro_samples = 1, 4
    config.eval.batch_prompts = 8


def qwen3_vl_8b(config: ml_collections.ConfigDict) -> None:
    """Qwen3-VL-8B, the decoder trained whole, on a TPU slice with 512 GB (v6e-16).

        hf download Qwen/Qwen3-VL-8B-Instruct --local-dir weights/Qwen3-VL-8B-Instruct     # on every host
        python -m evads_jax.main --config=configs/mg_grpo.py:evads+qwen3_vl_8b+openai --workdir=/shared/runs/NAME \
            --config.data.annotations=DIR --config.data.videos=DIR \
            --config.judge.base_url=https://host/v1 --config.judge.model=NAME

    SFT alone: configs/sft.py:evads+qwen3_vl_8b, without a judge's fields. Another slice: --config.mesh.fsdp and
    --config.mesh.tp, whose product is its number of chips. Disk: 17.5 GB of weights, 500 GB of checkpoints (98 GB
    each), and the shards. Memory: 166 GB of state over all chips, 10.4 each of 16, and 6 of activations. Hours: 0.1
    SFT, 0.8 MG-GRPO (two thirds of a rollout gather the weights that fsdp divides), 0.3 evaluations.
    """
    _checkpoint(config, "qwen3_vl", "Qwen3-VL-8B-Instruct")
    _slice(config)


def qwen2_5_vl_7b(config: ml_collections.ConfigDict) -> None:
    """Qwen2.5-VL-7B, the paper's other base (7B is our guess), the decoder trained whole, on a TPU slice with 512 GB.

        hf download Qwen/Qwen2.5-VL-7B-Instruct --local-dir weights/Qwen2.5-VL-7B-Instruct     # on every host
        python -m evads_jax.main --config=configs/mg_grpo.py:evads+qwen2_5_vl_7b+openai --workdir=/shared/runs/NAME \
            --config.data.annotations=DIR --config.data.videos=DIR \
            --config.judge.base_url=https://host/v1 --config.judge.model=NAME

    SFT alone: configs/sft.py:evads+qwen2_5_vl_7b, without a judge's fields. Disk: 16.6 GB of weights, 460 GB of
    checkpoints (91 GB each), and the shards. Memory: 155 GB of state over all chips, 9.7 GB each of 16, and 5 GB of
    activations. Hours: 0.1 SFT, 0.7 MG-GRPO, 0.3 evaluations.
    """
    _checkpoint(config, "qwen2_5_vl", "Qwen2.5-VL-7B-Instruct")
    _slice(config)


def shrunk(config: ml_collections.ConfigDict) -> None:
    """The one override that makes a variant before it a toy: small widths and depths, few videos, two steps a stage.

    Nothing is downloaded: parameters are drawn, the tokenizer is trained on the drawn ads. What a variant is about
    stays: family, LoRA, frozen tower, types, micro-batches. With --config.model.path=DIR, the sizes are those of a
    small checkpoint instead.

        python -m evads_jax.main --config=configs/mg_grpo.py:qwen3_vl_2b_lora+shrunk --workdir=runs/toy
    """
    model = config.model
    model.path = config_dict.placeholder(str)
    model.update(width=32, layers=2, heads=4, kv_heads=2, head_width=8, mlp_width=48, mrope_sections=(2, 1, 1))
    model.update(vision_width=16, vision_layers=2, vision_heads=2, vision_mlp_width=24, vision_merge=2)
    if model.family == "qwen2_5_vl":
        model.update(vision_patch=14, vision_window=56, vision_full_attention=(1,), vision_deepstack=())
    else:
        model.update(vision_patch=16, vision_position_grid=4, vision_deepstack=(0,))
    config.lora.rank = min(config.lora.rank, 4)
    config.mesh.fsdp = config.mesh.tp = 1

    data = config.data
    data.update(videos_sft=4, videos_rl=4, videos_validation=2, videos_test=2, records_per_shard=4)
    data.update(max_frames=2, frame_size=4 * model.vision_patch, prompt_tokens=1024, suffix_tokens=512)
    config.sft.update(batch_videos=2, max_steps=2, validate_every=2, warmup_steps=1)
    config.control.steps = 2
    config.rl.update(batch_prompts=2, group=4, max_steps=2, max_new_tokens=8, warmup_steps=1)
    config.rl.update(micro_groups=1, micro_samples=2)
    config.eval.update(batch_prompts=2, max_new_tokens=8, bootstrap=50, blank_too=())
    config.checkpoint.every = 2


def _checkpoint(config: ml_collections.ConfigDict, family: str, name: str) -> None:
    """A released checkpoint in weights/NAME, and the frames, prompts and completions that it is asked with."""
    model, data = config.model, config.data
    model.family, model.path = family, f"weights/{name}"
    model.dtype, model.scan_layers = "bfloat16", True
    model.remat, model.logit_chunk = True, 1024
    data.frame_rate, data.max_frames, data.frame_size = 1.0, 24, 448
    # 24 square frames of 448 pixels are 2,352 video tokens (3,072 in Qwen2.5-VL); events take the rest.
    data.prompt_tokens, data.suffix_tokens = 4096, 512
    config.rl.max_new_tokens = config.eval.max_new_tokens = 512
    config.sft.optimizer = config.rl.optimizer = "adamw"
    config.sft.warmup_steps, config.rl.warmup_steps = 20, 5
    config.checkpoint.every = 50


def _lora(config: ml_collections.ConfigDict) -> None:
    """Adapters beside the decoder's linear layers; everything else is frozen."""
    config.lora.rank, config.lora.alpha, config.lora.groups = 16, 32.0, ("text",)
    config.sft.learning_rate, config.rl.learning_rate = 1e-4, 1e-5


def _slice(config: ml_collections.ConfigDict) -> None:
    """The decoder trained whole on sixteen chips, the vision tower frozen."""
    config.mesh.fsdp, config.mesh.tp = 4, 4
    config.train.freeze_vision = True  # as in V-Triune; it also saves the tower's activations
    config.sft.learning_rate, config.rl.learning_rate = 1e-5, 1e-6  # ReAd-R and V-Triune: 1e-6 in RL
    config.sft.batch_videos, config.sft.max_steps, config.sft.validate_every = 16, 63, 10
    config.rl.batch_prompts, config.rl.max_steps = 16, 110
    config.rl.micro_groups, config.rl.micro_samples = 4, 4
    config.eval.batch_prompts = 16


VARIANTS = {
    "qwen3_vl_2b_lora": qwen3_vl_2b_lora,
    "qwen3_vl_8b_lora": qwen3_vl_8b_lora,
    "qwen3_vl_8b": qwen3_vl_8b,
    "qwen2_5_vl_7b": qwen2_5_vl_7b,
    "shrunk": shrunk,
}
