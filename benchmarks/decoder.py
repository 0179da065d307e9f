"""The model and the prompts that all sides of a benchmark work on.

A Qwen3 text decoder with drawn weights. Transformers writes it twice, as the plain Qwen3 that it trains itself, and as
the text half of a Qwen3-VL with a tower of no size, which is what evads_jax reads.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from evads_jax.models.qwen_vl import PromptBatch, QwenVLConfig, SuffixBatch, VisionConfig, mrope
from evads_jax.models.qwen_vl.inputs import Prompt, collate_prompts, collate_suffixes

TEXT_IDS = 5  # the ids below are padding and the vision tokens
PLAIN, VL = "qwen3", "qwen3_vl"  # folders of the two checkpoints
CHECKED = 8  # tokens whose log-probabilities all sides must agree on
MERGE = 2


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The decoder; its heads are `width / heads` wide, each with keys of its own."""

    vocabulary: int = 8192
    width: int = 256
    layers: int = 4
    heads: int = 4
    mlp_width: int = 768

    @property
    def sections(self) -> tuple[int, int, int]:
        """How the rotary frequencies are shared among time, height and width; for text it does not matter."""
        half = self.width // self.heads // 2
        return half - 2 * (half // 3), half // 3, half // 3

    def config(self) -> QwenVLConfig:
        """The decoder with a vision tower of a size in proportion, for prompts with video."""
        head_width = self.width // self.heads
        vision = VisionConfig(
            width=self.width // 2, layers=2, heads=self.heads, mlp_width=self.width, patch=8, merge=MERGE,
            position_grid=16, deepstack=(0,),
        )  # fmt: skip
        return QwenVLConfig(
            self.vocabulary, self.width, self.layers, self.heads, self.heads, head_width, self.mlp_width,
            self.sections, vision, scan_layers=False,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Work:
    """What one step is about.

    Attributes:
      prompts: B.
      group: G, completions per prompt.
      tokens: T, of the longest prompt.
      new: S, tokens of every completion.
      ragged: whether the prompts' lengths fall evenly from T to T/2.
      video: temporal units of each prompt's video, and height and width of these in patches; None: text alone.
    """

    prompts: int
    group: int
    tokens: int
    new: int
    ragged: bool = False
    video: tuple[int, int, int] | None = None

    @property
    def name(self) -> str:
        """Prompt + completion, and what is special."""
        return f"{self.tokens:,} + {self.new:,}" + (", ragged" if self.ragged else "")

    @property
    def lengths(self) -> list[int]:
        """Tokens of each prompt."""
        shortest = self.tokens // 2 if self.ragged else self.tokens
        return np.linspace(self.tokens, shortest, self.prompts).astype(int).tolist()

    def ids(self, vocabulary: int) -> list[list[int]]:
        """The prompts' token ids."""
        draw = np.random.default_rng(0)
        return [draw.integers(TEXT_IDS, vocabulary, length).tolist() for length in self.lengths]

    def drawn(self, config: QwenVLConfig) -> list[Prompt]:
        """The prompts as the model takes them."""
        units, height, width = self.video or (0, 0, 0)
        count, draw = height * width // MERGE**2, np.random.default_rng(1)
        found = []
        for ids in self.ids(config.vocabulary):
            begin = (len(ids) - units * count) // 2
            spans = tuple((begin + i * count, count) for i in range(units))
            merged = [(height // MERGE, width // MERGE)] * units
            positions, after = mrope.token_positions(len(ids), spans, merged)
            shape = (height * width, config.vision.patch_values)
            pixels = tuple(draw.integers(0, 256, shape, np.uint8) for _ in range(units))
            found.append(Prompt(np.asarray(ids, np.int32), positions, after, spans, pixels, ((height, width),) * units))
        return found

    def batch(self, prompts: list[Prompt], config: QwenVLConfig) -> PromptBatch:
        """Prompts of this work in one batch."""
        units, height, width = self.video or (1, MERGE, MERGE)
        return collate_prompts(prompts, self.tokens, units, height * width, config)

    def checked(self, vocabulary: int) -> list[int]:
        """A completion of the first prompt, whose log-probabilities are compared."""
        return np.random.default_rng(2).integers(TEXT_IDS, vocabulary, CHECKED).tolist()

    def checked_suffix(self, vocabulary: int) -> SuffixBatch:
        """The same as a batch."""
        return collate_suffixes([[(self.checked(vocabulary), 0)]], 1, CHECKED)


def write_checkpoints(folder: Path, sizes: Sizes) -> None:
    """Draws the weights and writes both checkpoints; needs torch and transformers.

    They are drawn at a scale at which everything matters: with the usual one, sides that differ would still agree.
    """
    import torch
    import transformers

    text: dict[str, Any] = {
        "vocab_size": sizes.vocabulary, "hidden_size": sizes.width, "intermediate_size": sizes.mlp_width,
        "num_hidden_layers": sizes.layers, "num_attention_heads": sizes.heads, "num_key_value_heads": sizes.heads,
        "head_dim": sizes.width // sizes.heads, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 1e6}
    plain = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**text, rope_parameters=rope))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            centre, scale = (1.0, 0.3) if name.endswith("norm.weight") else (0.0, 1.2 * parameter.shape[-1] ** -0.5)
            parameter.copy_(centre + scale * torch.randn(parameter.shape, generator=generator))
    plain.save_pretrained(folder / PLAIN)
    vision = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 4,
        "temporal_patch_size": 2, "spatial_merge_size": MERGE, "out_hidden_size": sizes.width,
        "num_position_embeddings": 4, "deepstack_visual_indexes": [],
    }  # fmt: skip
    mrope_rope = rope | {"mrope_section": list(sizes.sections), "mrope_interleaved": True}
    both = transformers.Qwen3VLForConditionalGeneration(
        transformers.Qwen3VLConfig(
            text_config=text | {"rope_parameters": mrope_rope}, vision_config=vision, tie_word_embeddings=True,
            image_token_id=1, video_token_id=2, vision_start_token_id=3, vision_end_token_id=4,
        )
    )  # fmt: skip
    both.model.language_model.load_state_dict(plain.model.state_dict())
    both.save_pretrained(folder / VL)
