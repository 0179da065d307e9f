"""config.json of a Qwen-VL checkpoint ↔ `QwenVLConfig`.

Four layouts are about: version 4 of transformers writes `rope_theta` and `rope_scaling`, version 5 `rope_parameters`;
released Qwen2.5-VL has the decoder's fields at the top, everything since has them in `text_config`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evads_jax.data.qwen_processor import read_json, read_processor
from evads_jax.data.tokenizer import SpecialIds
from evads_jax.errors import UserError
from evads_jax.models.qwen_vl.config import QwenVLConfig, VisionConfig

NAME = "config.json"
ARCHITECTURES = {"qwen3_vl": "Qwen3VLForConditionalGeneration", "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration"}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5)
_PIXELS = {"qwen3_vl": (_HALF, _HALF), "qwen2_5_vl": (CLIP_MEAN, CLIP_STD)}
# Nothing here limits a prompt's length; readers that reserve room by this field need a number.
_POSITIONS = 32_768

_TEXT = {
    "vocab_size": "vocabulary",
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "intermediate_size": "mlp_width",
    "rms_norm_eps": "norm_epsilon",
}
_VISION = {
    "hidden_size": "width",
    "depth": "layers",
    "num_heads": "heads",
    "intermediate_size": "mlp_width",
    "patch_size": "patch",
    "temporal_patch_size": "temporal_patch",
    "spatial_merge_size": "merge",
}
_VISION_OF = {
    "qwen3_vl": {"deepstack_visual_indexes": "deepstack"},
    "qwen2_5_vl": {
        "window_size": "window",
        "fullatt_block_indexes": "full_attention",
        "tokens_per_second": "tokens_per_second",
    },
}
_ACTIVATION = {"qwen3_vl": "gelu_pytorch_tanh", "qwen2_5_vl": "silu"}


def read_config(folder: str | Path) -> QwenVLConfig:
    """The sizes of a checkpoint.

    Fields that a checkpoint does not decide (`dtype`, `attention`, `scan_layers`, `remat`, `logit_chunk`,
    `video_layout`) have their defaults; change them with `dataclasses.replace`.

    Args:
      folder: holds config.json, and a preprocessor_config.json where pixels are not normalised as in the release.

    Raises:
      UserError: no such file, an architecture or a setting that is not supported, or a field that is missing.
    """
    path = Path(folder) / NAME
    root = read_json(path)
    family = root.get("model_type")
    if family not in ARCHITECTURES:
        known = " and ".join(f"{a} ({f})" for f, a in ARCHITECTURES.items())
        named = ", ".join(root.get("architectures") or ()) or "no architecture"
        raise UserError(f"unsupported architecture {family!r} ({named})", str(path), f"supported are {known}")
    text, vision = root.get("text_config") or root, root.get("vision_config") or {}
    rope = text.get("rope_parameters") or {"rope_theta": text.get("rope_theta"), **(text.get("rope_scaling") or {})}
    _check_settings(family, root, text, vision, rope, path)
    names = [(text, _TEXT, ""), (vision, _VISION | _VISION_OF[family], "vision_config.")]
    missing = [where + name for section, table, where in names for name in table if section.get(name) is None]
    missing += [f"rope {name}" for name in ("rope_theta", "mrope_section") if rope.get(name) is None]
    missing += ["vision_config.num_position_embeddings"] * (
        family == "qwen3_vl" and vision.get("num_position_embeddings") is None
    )
    if missing:
        raise UserError(f"fields are missing: {', '.join(missing)}", str(path), "give the checkpoint's own config.json")
    sizes = {ours: _value(vision[name]) for name, ours in (_VISION | _VISION_OF[family]).items()}
    if family == "qwen3_vl":
        sizes["position_grid"] = math.isqrt(vision["num_position_embeddings"])
    mean, std = _pixels(path.parent, family)
    theta = (vision.get("rope_parameters") or {}).get("rope_theta", 10_000.0)
    return QwenVLConfig(
        family=family,
        head_width=text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"],
        mrope_sections=tuple(rope["mrope_section"]),
        rope_theta=float(rope["rope_theta"]),
        # Older files have it in one of the two places, newer ones at the top.
        tie_embeddings=bool(root.get("tie_word_embeddings") or text.get("tie_word_embeddings")),
        vision=VisionConfig(**sizes, rope_theta=float(theta), pixel_mean=mean, pixel_std=std),
        **{ours: text[name] for name, ours in _TEXT.items()},
    )


def config_json(config: QwenVLConfig, ids: SpecialIds, dtype: str) -> dict[str, Any]:
    """The content of config.json for a model that has no source folder.

    Rotary settings are written as version 4 and the released checkpoints have them, which both versions read.

    Args:
      config: the model's sizes.
      ids: the tokenizer's special ids.
      dtype: of the stored tensors, "float32" or "bfloat16".
    """
    interleaved = config.traits.mrope_interleaved
    scaling: dict[str, Any] = {"rope_type": "default", "mrope_section": list(config.mrope_sections)}
    scaling |= {"mrope_interleaved": True} if interleaved else {"type": "mrope", "rope_type": "mrope"}
    text = {name: getattr(config, ours) for name, ours in _TEXT.items()} | {
        "model_type": f"{config.family}_text",
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": _POSITIONS,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "tie_word_embeddings": config.tie_embeddings,
        "eos_token_id": ids.eos,
        "pad_token_id": ids.pad,
        "dtype": dtype,
    }
    sizes = config.vision
    table = _VISION | _VISION_OF[config.family]
    vision = {name: _json(getattr(sizes, ours)) for name, ours in table.items()} | {
        "model_type": config.family,
        "in_channels": 3,
        "hidden_act": _ACTIVATION[config.family],
        "out_hidden_size": config.width,
    }
    if config.family == "qwen3_vl":
        text["attention_bias"] = False
        vision["num_position_embeddings"] = sizes.position_grid**2
    return {
        "architectures": [ARCHITECTURES[config.family]],
        "model_type": config.family,
        "dtype": dtype,
        "image_token_id": ids.image_pad,
        "video_token_id": ids.video_pad,
        "vision_start_token_id": ids.vision_start,
        "vision_end_token_id": ids.vision_end,
        "tie_word_embeddings": config.tie_embeddings,
        "text_config": text,
        "vision_config": vision,
    }


def _check_settings(family: str, root: Mapping, text: Mapping, vision: Mapping, rope: Mapping, path: Path) -> None:
    """Refuses what would be computed differently from what is built here, all of it in one error."""
    grid = vision.get("num_position_embeddings") or 1
    plain = ("default", "mrope", None)
    wanted: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
        ("quantization_config", root.get("quantization_config"), (None,)),
        ("hidden_act", text.get("hidden_act", "silu"), ("silu",)),
        ("use_sliding_window", bool(text.get("use_sliding_window")), (False,)),
        ("rope_type", rope.get("rope_type", rope.get("type")), plain),
        ("partial_rotary_factor", text.get("partial_rotary_factor", rope.get("partial_rotary_factor")), (None, 1.0)),
        ("vision_config.hidden_act", vision.get("hidden_act", _ACTIVATION[family]), (_ACTIVATION[family],)),
        ("vision_config.in_channels", vision.get("in_channels", vision.get("in_chans", 3)), (3,)),
        ("vision_config.out_hidden_size", vision.get("out_hidden_size"), (text.get("hidden_size"),)),
        ("vision_config.num_position_embeddings", grid, (math.isqrt(grid) ** 2,)),
    )
    if family == "qwen3_vl":
        wanted += (
            ("attention_bias", bool(text.get("attention_bias")), (False,)),
            ("mrope_interleaved", rope.get("mrope_interleaved", True), (True,)),
        )
    else:
        wanted += (("mrope_interleaved", bool(rope.get("mrope_interleaved")), (False,)),)
    if wrong := [f"{name} is {found!r}" for name, found, allowed in wanted if found not in allowed]:
        raise UserError(f"settings that are not supported: {', '.join(wrong)}", str(path), "take another checkpoint")


def _pixels(folder: Path, family: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation of pixels: the processor's where the folder has one, else the family's."""
    mean, std = _PIXELS[family]
    settings = read_processor(folder, "image")
    return tuple(settings.get("image_mean", mean)), tuple(settings.get("image_std", std))


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
