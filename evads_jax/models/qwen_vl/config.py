"""The sizes of a Qwen-VL model: everything that shapes its parameters and its forward pass.

One frozen, hashable dataclass, so that it can be a static argument of a jitted function. The default experiment
uses about a million parameters; the same class holds the published sizes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from evads_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Family:
    """What, besides sizes, tells one family of checkpoints from another.

    Attributes:
      qkv_bias: biases on the decoder's query, key and value projections.
      qk_norm: an RMSNorm over each query and key head of the decoder.
      mrope_interleaved: the rotary frequencies are dealt to time, height and width in turn (t h w t h w …), not in
        three sections.
      timestamps: each temporal unit of a video stands by itself behind its second, written as text. Otherwise the
        units of a video follow each other, and time is in their positions.
      vision_gated: the blocks of the vision tower have RMSNorms and a SwiGLU with biases, not layer norms and a
        GELU; its patch embedding has no bias, and there is no table of positions.
    """

    qkv_bias: bool
    qk_norm: bool
    mrope_interleaved: bool
    timestamps: bool
    vision_gated: bool


FAMILIES: Mapping[str, Family] = {
    "qwen3_vl": Family(qkv_bias=False, qk_norm=True, mrope_interleaved=True, timestamps=True, vision_gated=False),
    "qwen2_5_vl": Family(qkv_bias=True, qk_norm=False, mrope_interleaved=False, timestamps=False, vision_gated=True),
}

# Batched matrix products, or the fused kernel of TPUs (models.attention.splash).
ATTENTION = ("xla", "splash")

# Releases of transformers read a video prompt differently (docs/parity.md). `release` is what Qwen's own code does.
VIDEO_LAYOUTS = ("release", "transformers_4", "transformers_5")


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The vision tower.

    Attributes:
      width: hidden width of a patch.
      layers: transformer blocks.
      heads: attention heads; their width is `width / heads`, a multiple of 4.
      mlp_width: hidden width of the blocks' MLP.
      patch: side of a patch in pixels.
      temporal_patch: frames that one temporal unit holds.
      merge: side, in patches, of the square that becomes one video token.
      position_grid: side of the learned position table, which is interpolated to each unit's grid; unused where the
        family has no such table.
      deepstack: the blocks (0-based, in order) whose merged features are added after the first text layers.
      window: side in pixels of the windows that patches attend within; 0 for the whole unit.
      full_attention: with windows, the blocks (0-based, in order) that attend to the whole unit all the same.
      tokens_per_second: time positions per second of video, in families without timestamps.
      rope_theta: base of the 2-D rotary embedding.
      pixel_mean: per-channel mean, of pixels scaled to [0, 1], that is subtracted.
      pixel_std: per-channel deviation that they are divided by.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    patch: int = 16
    temporal_patch: int = 2
    merge: int = 2
    position_grid: int = 48
    deepstack: tuple[int, ...] = ()
    window: int = 0
    full_attention: tuple[int, ...] = ()
    tokens_per_second: int = 2
    rope_theta: float = 10_000.0
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def patch_values(self) -> int:
        """C: values of one patch, `3 · temporal_patch · patch²`."""
        return 3 * self.temporal_patch * self.patch**2

    @property
    def merged_width(self) -> int:
        """Width of the patches of one video token laid side by side."""
        return self.width * self.merge**2

    @property
    def cell(self) -> int:
        """Side in pixels of the square behind one video token; frame sides are multiples of it."""
        return self.patch * self.merge


@dataclasses.dataclass(frozen=True)
class QwenVLConfig:
    """A Qwen-VL model: text decoder and vision tower.

    Attributes:
      family: key of `FAMILIES`.
      vocabulary: V, number of token ids.
      width: D, model width.
      layers: L, decoder layers.
      heads: N, query heads.
      kv_heads: K, key/value heads; N is a multiple of K.
      head_width: H, width of one head; free of D/N.
      mlp_width: hidden width of the SwiGLU.
      mrope_sections: how the H/2 rotary frequencies are shared among time, height and width.
      rope_theta: base of the rotary embedding.
      norm_epsilon: added to the variance in every RMSNorm.
      tie_embeddings: whether the embedding table is also the output head.
      vision: the vision tower.
      video_layout: whose reading of a video prompt is followed, one of `VIDEO_LAYOUTS`; see `inputs.chat_layout` for
        tokens and `mrope.unit_offsets`, `mrope.token_positions` for positions.
      dtype: of activations and matmuls; parameters, norms, softmax and log-probs are always float32.
      attention: what the decoder's attention over whole prompts and suffixes runs on, one of `ATTENTION`.
      scan_layers: run alike layers in `jax.lax.scan`, so that compile time does not grow with depth. A
        shallow model is faster unrolled.
      remat: keep only each layer's input for the backward pass and compute the rest again.
      logit_chunk: tokens whose logits exist at one time in `score`.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    mlp_width: int
    mrope_sections: tuple[int, int, int]
    vision: VisionConfig
    family: str = "qwen3_vl"
    video_layout: str = "release"
    rope_theta: float = 5_000_000.0
    norm_epsilon: float = 1e-6
    tie_embeddings: bool = True
    dtype: str = "float32"
    attention: str = "xla"
    scan_layers: bool = True
    remat: bool = False
    logit_chunk: int = 2048

    def __post_init__(self):
        """Refuses sizes that do not fit each other.

        Raises:
          UserError: for an unknown family, or naming the first field that does not fit.
        """
        if self.family not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise UserError(f"unknown model family {self.family!r}", "config.model.family", f"use one of {known}")
        vision = self.vision
        sections, stacked, full = self.mrope_sections, vision.deepstack, vision.full_attention
        checks = (
            ("heads", self.heads % self.kv_heads == 0, "must be a multiple of kv_heads"),
            ("head_width", self.head_width % 2 == 0, "must be even"),
            (
                "mrope_sections",
                len(sections) == 3 and sum(sections) == self.head_width // 2,
                "must be three numbers that sum to head_width / 2",
            ),
            ("layers", self.layers > len(stacked), "must be more than the number of vision_deepstack layers"),
            (
                "vision_heads",
                vision.width % vision.heads == 0 and vision.head_width % 4 == 0,
                "must divide vision_width into heads of a multiple of 4",
            ),
            (
                "vision_deepstack",
                list(stacked) == sorted({i for i in stacked if 0 <= i < vision.layers}),
                "must be increasing indices of vision layers",
            ),
            (
                "vision_window",
                vision.window >= 0 and vision.window % vision.cell == 0,
                "must be a multiple of vision_patch · vision_merge",
            ),
            (
                "vision_full_attention",
                list(full) == sorted({i for i in full if 0 <= i < vision.layers}),
                "must be increasing indices of vision layers",
            ),
            ("video_layout", self.video_layout in VIDEO_LAYOUTS, f"must be one of {', '.join(VIDEO_LAYOUTS)}"),
            ("dtype", self.dtype in ("float32", "bfloat16", "float64"), "must be float32, bfloat16 or float64"),
            ("attention", self.attention in ATTENTION, f"must be one of {', '.join(ATTENTION)}"),
            ("logit_chunk", self.logit_chunk >= 1, "must be at least 1"),
        )
        for field, holds, rule in checks:
            if not holds:
                raise UserError(f"model sizes do not fit: {field} {rule}", f"config.model.{field}")

    @property
    def traits(self) -> Family:
        """What tells its family from the other."""
        return FAMILIES[self.family]

    @property
    def wide_dtype(self) -> str:
        """What angles and pixels are computed in: float32, or float64 where `dtype` is."""
        return "float64" if self.dtype == "float64" else "float32"

    @classmethod
    def from_config(cls, model: Mapping[str, Any], vocabulary: int) -> "QwenVLConfig":
        """Reads the `config.model` section of a job.

        Args:
          model: the section; fields that begin with `vision_` describe the vision tower. The attention `auto` is
            `splash` on a TPU, else `xla`.
          vocabulary: V, the tokenizer's size; a `vocabulary` in the section, which may be larger, comes first.

        Raises:
          UserError: for an unknown family, or sizes that do not fit.
        """
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list | tuple) else value for key, value in model.items()
        }
        if fields.get("attention") == "auto":
            fields["attention"] = "splash" if jax.default_backend() == "tpu" else "xla"
        fields.pop("path", None)  # the checkpoint that the sizes were taken from
        vocabulary = fields.pop("vocabulary", None) or vocabulary
        vision = {key.removeprefix("vision_"): fields.pop(key) for key in list(fields) if key.startswith("vision_")}
        return cls(vocabulary=vocabulary, vision=VisionConfig(**vision), **fields)
