"""Writes tests/models/qwen_vl/golden/checkpoints with torch and transformers; run from the root of the repository.

    python -m tests.models.qwen_vl.make_checkpoints

Tiny checkpoints as transformers writes them, one folder per family and major version of transformers: run it once with
each. Between them they are float32 and bfloat16, single and sharded, with tied and untied heads.
"""

import shutil
from pathlib import Path

import torch
import transformers

FOLDER = Path(__file__).parent / "golden" / "checkpoints"
MAJOR = transformers.__version__.split(".")[0]
IDS = {"image_token_id": 2, "video_token_id": 1, "vision_start_token_id": 3, "vision_end_token_id": 4}
TEXT = {
    "vocab_size": 288,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
}
VISION = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_heads": 2,
    "patch_size": 4,
    "out_hidden_size": 24,
}
THETA = 1000.0


def rope(**fields) -> dict:
    """The rotary settings in the words of the installed version."""
    if MAJOR == "4":
        return {"rope_theta": THETA, "rope_scaling": fields}
    return {"rope_parameters": {"rope_theta": THETA, **fields}}


def models() -> dict[str, transformers.PreTrainedModel]:
    """A model per family, every parameter drawn anew."""
    qwen3 = transformers.Qwen3VLConfig(
        text_config={
            **TEXT,
            "tie_word_embeddings": MAJOR == "4",  # version 4 looks here, version 5 at the top
            "head_dim": 12,
            **rope(rope_type="default", mrope_section=[2, 2, 2], mrope_interleaved=True),
        },
        vision_config={**VISION, "num_position_embeddings": 9, "deepstack_visual_indexes": [0]},
        tie_word_embeddings=MAJOR == "4",
        **IDS,
    )
    qwen2_5 = transformers.Qwen2_5_VLConfig(
        text_config={**TEXT, **rope(rope_type="default", mrope_section=[1, 1, 1])},
        vision_config={**VISION, "window_size": 16, "fullatt_block_indexes": [1], "tokens_per_second": 2},
        tie_word_embeddings=MAJOR == "5",
        **IDS,
    )
    made = {
        "qwen3_vl": transformers.Qwen3VLForConditionalGeneration(qwen3),
        "qwen2_5_vl": transformers.Qwen2_5_VLForConditionalGeneration(qwen2_5),
    }
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for model in made.values():
            for name, parameter in model.named_parameters():
                scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
                centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                parameter.copy_(centre + scale * torch.randn(parameter.shape, generator=generator))
    return made


def main(folder: Path = FOLDER) -> None:
    """Writes the installed version's folders."""
    for family, model in models().items():
        path = folder / f"{family}_{MAJOR}"
        shutil.rmtree(path, ignore_errors=True)
        if model.config.tie_word_embeddings:
            model.save_pretrained(path)
        else:
            model.to(torch.bfloat16).save_pretrained(path, max_shard_size="20KB")
        (path / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
