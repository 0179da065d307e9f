"""The sizes of a COPE model (arXiv 2308.05550), its form, and which embeddings its contrastive loss brings together."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from evads_jax.errors import UserError

DOMAINS = ("page", "video", "live")
KINDS = ("visual", "text", "fused")
FORMS = ("paper", "released")
MODALITIES = ("both", "visual", "text")
ACTIVATIONS = ("gelu", "quick_gelu")

Side = tuple[str, str]  # domain, kind
Pair = tuple[Side, Side]

# The seven pairs of the released code. Each of a page's kinds is brought to the video's and the live clip's embedding,
# and these two to each other.
PAIRS: tuple[Pair, ...] = (
    (("page", "visual"), ("video", "visual")),
    (("page", "visual"), ("live", "visual")),
    (("video", "visual"), ("live", "visual")),
    (("page", "fused"), ("video", "visual")),
    (("page", "fused"), ("live", "visual")),
    (("page", "text"), ("video", "visual")),
    (("page", "text"), ("live", "visual")),
)


@dataclasses.dataclass(frozen=True)
class CopeConfig:
    """A COPE model. Sizes that the paper does not give are in configs/cope.py, which says so.

    Attributes:
      vocabulary: V, number of token ids.
      classes: C, products that the classification head tells apart; 0 for no head.
      form: "paper": text and frames are fused in every domain, and the fused embedding stands for a clip. "released":
        that of the authors' code, where only pages are fused and a video's or live clip's visual embedding stands for
        it; each domain has projections of its own.
      shared: whether the domains share the encoders; False is the baseline where each has its own.
      modality: "both"; for the baselines "visual" or "text": that embedding stands for the clips of every domain.
      frame_size: side of a frame in pixels, a multiple of `visual_patch`.
      frames: most frames of a clip.
      text_tokens: most tokens of a text.
      embedding: E, width of an embedding.
      visual_width, visual_layers, visual_heads, visual_mlp_width: the frames' transformer.
      visual_patch: side of a patch in pixels.
      visual_activation: "quick_gelu" (x·σ(1.702x), OpenAI's CLIP and X-CLIP) or "gelu" (erf).
      mit_width, mit_layers, mit_heads: the multi-frame integration transformer; its MLP is 4 · mit_width.
      text_width, text_layers, text_heads, text_mlp_width: the text's transformer.
      fusion_layers: blocks of a transformer over a class token, frames and text tokens; 0 for the released code's
        linear map of the two projections side by side.
      fusion_width, fusion_heads: that transformer; its MLP is 4 · fusion_width. Unused when there are no layers.
      dtype: of activations and matmuls; parameters, norms, softmax, embeddings and losses are always float32.
      scan_layers: run the layers of a stack in `jax.lax.scan`, so that compile time does not grow with depth. A
        shallow model is faster unrolled.
      remat: keep only each layer's input for the backward pass and compute the rest again.
    """

    vocabulary: int
    classes: int = 0
    form: str = "paper"
    shared: bool = True
    modality: str = "both"
    frame_size: int = 224
    frames: int = 8
    text_tokens: int = 32
    embedding: int = 128
    visual_width: int = 768
    visual_layers: int = 12
    visual_heads: int = 12
    visual_mlp_width: int = 3072
    visual_patch: int = 16
    visual_activation: str = "quick_gelu"
    mit_width: int = 512
    mit_layers: int = 4
    mit_heads: int = 8
    text_width: int = 768
    text_layers: int = 3
    text_heads: int = 12
    text_mlp_width: int = 3072
    fusion_layers: int = 0
    fusion_width: int = 512
    fusion_heads: int = 8
    dtype: str = "float32"
    scan_layers: bool = True
    remat: bool = False

    def __post_init__(self):
        """Refuses fields that do not fit each other.

        Raises:
          UserError: naming the first field that does not fit.
        """
        checks = (
            ("form", self.form in FORMS, f"must be one of {', '.join(FORMS)}"),
            ("modality", self.modality in MODALITIES, f"must be one of {', '.join(MODALITIES)}"),
            ("frames", self.frames >= 1, "must be at least 1"),
            ("text_tokens", self.text_tokens >= 1, "must be at least 1"),
            ("frame_size", self.frame_size % self.visual_patch == 0, "must be a multiple of visual_patch"),
            ("visual_heads", self.visual_width % self.visual_heads == 0, "must divide visual_width"),
            ("visual_activation", self.visual_activation in ACTIVATIONS, f"must be one of {', '.join(ACTIVATIONS)}"),
            ("mit_heads", self.mit_width % self.mit_heads == 0, "must divide mit_width"),
            ("text_heads", self.text_width % self.text_heads == 0, "must divide text_width"),
            ("fusion_heads", self.fusion_width % self.fusion_heads == 0, "must divide fusion_width"),
            ("dtype", self.dtype in ("float32", "bfloat16"), "must be float32 or bfloat16"),
        )
        for field, holds, rule in checks:
            if not holds:
                raise UserError(f"model sizes do not fit: {field} {rule}", f"config.model.{field}")

    @property
    def positions(self) -> int:
        """Rows of the frames' position table: the class token and the patches of one frame."""
        return 1 + (self.frame_size // self.visual_patch) ** 2

    def encoder(self, domain: str) -> str:
        """Whose encoders read a clip of this domain: a key of `params["encoders"]`."""
        return "shared" if self.shared else domain

    def head(self, domain: str) -> str:
        """Whose projections and fusion are used for a clip of this domain: a key of `params["heads"]`."""
        return "shared" if self.shared and self.form == "paper" else domain

    @classmethod
    def from_config(cls, section: Mapping[str, Any], vocabulary: int, classes: int = 0) -> "CopeConfig":
        """Reads the `config.model` section of a job.

        Args:
          section: fields of this class.
          vocabulary: V, the tokenizer's size; a `vocabulary` in the section, which may be larger, comes first.
          classes: C, the training products.

        Raises:
          UserError: a field that there is not, or sizes that do not fit.
        """
        fields: dict[str, Any] = {"vocabulary": vocabulary, "classes": classes, **section}
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := [name for name in fields if name not in known]:
            raise UserError(f"unknown field {unknown[0]!r}", "config.model", "one of " + ", ".join(known))
        return cls(**fields)


def standing(config: CopeConfig, domain: str) -> str:
    """The kind of embedding that stands for a clip of this domain in retrieval."""
    if config.modality != "both":
        return config.modality
    return "fused" if config.form == "paper" or domain == "page" else "visual"


def pairs(config: CopeConfig) -> dict[str, Pair]:
    """The pairs of a model's contrastive loss by their names, which are the same in every form.

    `page_visual_video`, `page_visual_live`, `video_live`, `page_fused_video`, `page_fused_live`, `page_text_video`,
    `page_text_live`. In the released form they are `PAIRS`; in the paper's, a video and a live clip come with what
    stands for them, the fused embedding. A baseline of one modality has the three pairs of that kind.
    """
    found = {}
    for (left, kind), (right, _) in PAIRS:
        if left == "page" and config.modality not in ("both", kind):
            continue
        name = f"page_{kind}_{right}" if left == "page" else f"{left}_{right}"
        found[name] = (
            (left, kind if left == "page" else standing(config, left)),
            (right, standing(config, right)),
        )
    return found
