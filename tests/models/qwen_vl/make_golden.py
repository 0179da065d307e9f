"""Writes tests/models/qwen_vl/golden with torch and transformers: `python tests/models/qwen_vl/make_golden.py`.

A tiny Qwen3-VL whose every part matters: weights are drawn anew at a scale at which dropping a bias, a norm, DeepStack
or the rotary positions moves the logits far beyond the tolerance. Weights are stored under our names.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

GOLDEN = Path(__file__).parent / "golden"
PAD, VIDEO, IMAGE, START, END = 0, 1, 2, 3, 4
GRID, UNITS = (6, 10), 2
TEXT = {
    "vocab_size": 64,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1000.0,
        "mrope_section": [2, 2, 2],
        "mrope_interleaved": True,
    },
}
VISION = {
    "depth": 3,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_heads": 2,
    "patch_size": 4,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "out_hidden_size": 24,
    "num_position_embeddings": 25,
    "deepstack_visual_indexes": [0, 2],
}


def redrawn(seed: int) -> Qwen3VLForConditionalGeneration:
    """The tiny model in float32, every parameter drawn anew."""
    config = Qwen3VLConfig(
        text_config=TEXT,
        vision_config=VISION,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
        tie_word_embeddings=False,
    )
    model = Qwen3VLForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 1.5 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(centre + scale * torch.randn(parameter.shape, generator=generator))
    return model


def our_weights(model: Qwen3VLForConditionalGeneration) -> dict[str, np.ndarray]:
    """The model's tensors under our names, layers stacked, matrices as [in, out]."""
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    K, H, D = TEXT["num_key_value_heads"], TEXT["head_dim"], TEXT["hidden_size"]
    heads = (VISION["num_heads"], VISION["hidden_size"] // VISION["num_heads"])

    def stacked(pattern: str, count: int, *shape: int) -> np.ndarray:
        layers = [state[pattern.format(i)] for i in range(count)]
        return np.stack([(x.T if x.ndim == 2 else x).reshape(shape or x.T.shape) for x in layers])

    text, vision = "model.language_model.layers.{}.", "model.visual."
    L, blocks, deep = TEXT["num_hidden_layers"], VISION["depth"], len(VISION["deepstack_visual_indexes"])
    weights = {
        "text/embed": state["model.language_model.embed_tokens.weight"],
        "text/head": state["lm_head.weight"],
        "text/norm/scale": state["model.language_model.norm.weight"],
        "text/layers/q": stacked(text + "self_attn.q_proj.weight", L, D, -1, H),
        "text/layers/k": stacked(text + "self_attn.k_proj.weight", L, D, K, H),
        "text/layers/v": stacked(text + "self_attn.v_proj.weight", L, D, K, H),
        "text/layers/out": stacked(text + "self_attn.o_proj.weight", L, -1, H, D),
        "vision/patch/weight": state[vision + "patch_embed.proj.weight"].reshape(VISION["hidden_size"], -1).T,
        "vision/patch/bias": state[vision + "patch_embed.proj.bias"],
        "vision/position": state[vision + "pos_embed.weight"],
    }
    for ours, theirs in {
        "norm1/scale": "input_layernorm",
        "norm2/scale": "post_attention_layernorm",
        "q_norm/scale": "self_attn.q_norm",
        "k_norm/scale": "self_attn.k_norm",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    }.items():
        weights[f"text/layers/{ours}"] = stacked(f"{text}{theirs}.weight", L)
    parts = {"norm1": "norm1", "norm2": "norm2", "up": "mlp.linear_fc1", "down": "mlp.linear_fc2"}
    parts |= {"qkv": "attn.qkv", "out": "attn.proj"}
    for ours, theirs in parts.items():
        matrix = "scale" if "norm" in ours else "weight"
        shape = {"qkv": (-1, 3, *heads), "out": (*heads, VISION["hidden_size"])}.get(ours, ())
        weights[f"vision/layers/{ours}/{matrix}"] = stacked(f"{vision}blocks.{{}}.{theirs}.weight", blocks, *shape)
        bias = (3, *heads) if ours == "qkv" else ()
        weights[f"vision/layers/{ours}/bias"] = stacked(f"{vision}blocks.{{}}.{theirs}.bias", blocks, *bias)
    for ours, theirs in {"norm": "norm", "up": "linear_fc1", "down": "linear_fc2"}.items():
        matrix = "scale" if ours == "norm" else "weight"
        for name, kind in ((matrix, "weight"), ("bias", "bias")):
            weights[f"vision/merger/{ours}/{name}"] = state[f"{vision}merger.{theirs}.{kind}"].T
            weights[f"vision/deepstack/{ours}/{name}"] = stacked(
                f"{vision}deepstack_merger_list.{{}}.{theirs}.{kind}", deep
            )
    return weights


def answers(seed: int) -> dict[str, np.ndarray]:
    """The weights drawn from `seed`, inputs, and what transformers makes of them."""
    model = redrawn(seed)
    rng = np.random.default_rng(seed)
    tokens = GRID[0] * GRID[1] // VISION["spatial_merge_size"] ** 2
    text_ids = rng.integers(5, TEXT["vocab_size"], 13)
    opening = [[10 + unit, 20, START, *[VIDEO] * tokens, END] for unit in range(UNITS)]
    video_ids = np.concatenate([[7, 8, 9], *opening, rng.integers(5, TEXT["vocab_size"], 9)])
    values = 3 * VISION["temporal_patch_size"] * VISION["patch_size"] ** 2
    patches = rng.integers(0, 256, (UNITS, GRID[0] * GRID[1], values)).astype(np.uint8)
    pixels = torch.from_numpy((patches.reshape(-1, values) / 255.0 - 0.5) / 0.5).float()
    inputs = {
        "input_ids": torch.from_numpy(video_ids)[None],
        "mm_token_type_ids": torch.from_numpy(2 * (video_ids == VIDEO)).int()[None],
        "video_grid_thw": torch.tensor([[UNITS, *GRID]]),
    }
    with torch.no_grad():
        text_logits = model(input_ids=torch.from_numpy(text_ids)[None]).logits[0]
        video_logits = model(pixel_values_videos=pixels, **inputs).logits[0]
        positions, _ = model.model.get_rope_index(**inputs)
    return {
        "text_ids": text_ids,
        "text_logits": text_logits.numpy(),
        "video_ids": video_ids,
        "video_logits": video_logits.numpy(),
        "video_positions": positions[:, 0].T.numpy(),
        "patches": patches,
        **{f"params/{name}": value for name, value in our_weights(model).items()},
    }


def main() -> None:
    """Writes the golden file."""
    GOLDEN.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN / "qwen3_vl.npz", **answers(0))


if __name__ == "__main__":
    main()
