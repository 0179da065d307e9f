"""Qwen2.5-VL and Qwen3-VL at any size, as parameters and pure functions on them."""

from evads_jax.models.qwen_vl.batch import PromptBatch, SuffixBatch, VideoInputs
from evads_jax.models.qwen_vl.config import QwenVLConfig, VisionConfig
from evads_jax.models.qwen_vl.parameters import abstract, axes, decay_mask, fan_in, init, parameter_count
from evads_jax.models.qwen_vl.scoring import TokenScores, score
from evads_jax.models.qwen_vl.text import Prefix, extend, extend_through, prefill
from evads_jax.models.qwen_vl.vision import VisionFeatures, encode_video

__all__ = [
    "Prefix",
    "PromptBatch",
    "QwenVLConfig",
    "SuffixBatch",
    "TokenScores",
    "VideoInputs",
    "VisionConfig",
    "VisionFeatures",
    "abstract",
    "axes",
    "decay_mask",
    "encode_video",
    "extend",
    "extend_through",
    "fan_in",
    "init",
    "parameter_count",
    "prefill",
    "score",
]
