"""What transformers makes of the inputs in `cases`; needs torch.

Tiny models whose every part matters: weights are drawn at a scale at which dropping a bias, a norm, a window,
DeepStack or the rotary positions moves the logits far beyond the tolerance. Weights are numbers of bfloat16, so that
they can be stored as such, and everything is computed in float32.
"""

import copy
from collections.abc import Sequence

import torch
import transformers

from evads_jax.models.qwen_vl.checkpoint_config import CLIP_MEAN, CLIP_STD

from . import cases
from .cases import END, IMAGE, START, VIDEO

TEXT = {
    "vocab_size": cases.VOCABULARY,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": None,
}
VISION = {
    "depth": 3,
    "hidden_size": 16,
    "num_heads": 2,
    "patch_size": cases.PATCH,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
}
SIZES = {
    "qwen3_vl": (
        transformers.Qwen3VLConfig,
        transformers.Qwen3VLForConditionalGeneration,
        {
            "hidden_size": 24,
            "intermediate_size": 36,
            "head_dim": 12,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000.0,
                "mrope_section": [2, 2, 2],
                "mrope_interleaved": True,
            },
        },
        {
            "intermediate_size": 20,
            "out_hidden_size": 24,
            "num_position_embeddings": 25,
            "deepstack_visual_indexes": [0, 2],
        },
    ),
    # Here transformers has no head width but hidden_size / heads.
    "qwen2_5_vl": (
        transformers.Qwen2_5_VLConfig,
        transformers.Qwen2_5_VLForConditionalGeneration,
        {
            "hidden_size": 32,
            "intermediate_size": 28,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [2, 1, 1]},
        },
        {
            "intermediate_size": 20,
            "out_hidden_size": 32,
            "window_size": 16,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
        },
    ),
}
PIXELS = {"qwen3_vl": ((0.5,) * 3, (0.5,) * 3), "qwen2_5_vl": (CLIP_MEAN, CLIP_STD)}

torch.set_num_threads(1)  # for matrices of this size, more threads only wait for each other


class Oracle:
    """A drawn model of one family.

    Args:
      family: of `cases.FAMILIES`.
      seed: of the weights and inputs.
      tied: whether the output head is the table of tokens.
    """

    def __init__(self, family: str, seed: int = 0, tied: bool = False):
        config_class, model_class, text, vision = SIZES[family]
        config = config_class(
            text_config=TEXT | text | {"tie_word_embeddings": tied},
            vision_config=VISION | vision,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            vision_start_token_id=START,
            vision_end_token_id=END,
            tie_word_embeddings=tied,
        )
        self.family, self.model = family, model_class(config).eval()
        self.cases = [cases.draw(name, family == "qwen3_vl", seed) for name in cases.CASES]
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                scale = 1.2 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
                centre = 1.0 if ("norm" in name or "ln_q" in name) and name.endswith("weight") else 0.0
                drawn = centre + scale * torch.randn(parameter.shape, generator=generator)
                parameter.copy_(drawn.bfloat16().float())

    def save(self, folder) -> None:
        """Writes the checkpoint in bfloat16; of a copy, because the rotary frequencies would be rounded with it."""
        copy.deepcopy(self.model).to(torch.bfloat16).save_pretrained(folder)

    def logits(self, case: cases.Case, layout: str = "release") -> torch.Tensor:
        """Logits from token `split` − 1 on."""
        return self.model(**self.inputs(case, layout)).logits[0, case.split - 1 :]

    def gradient(self, inputs: Sequence[cases.Case]) -> dict[str, torch.Tensor]:
        """Gradient of the mean negative log-probability of all scored tokens of some inputs, by tensor name."""
        self.model.zero_grad()
        losses = []
        for case in inputs:
            targets = torch.from_numpy(case.ids[case.split :])
            losses.append(torch.nn.functional.cross_entropy(self.logits(case)[:-1], targets, reduction="none"))
        torch.cat(losses).mean().backward()
        parameters = self.model.named_parameters()
        return {name: torch.zeros_like(x) if x.grad is None else x.grad.clone() for name, x in parameters}

    @torch.no_grad()
    def greedy(self, case: cases.Case) -> torch.Tensor:
        """The likeliest tokens after the whole input: `generate`'s, with its cache, where it has this layout."""
        inputs = self.inputs(case)
        if "position_ids" not in inputs:
            options = {"max_new_tokens": cases.NEW_TOKENS, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
            return self.model.generate(**inputs, **options)[0, len(case.ids) :]
        tokens, place = [], inputs["position_ids"][..., -1:]
        out = self.model(**inputs, use_cache=True)
        for _ in range(cases.NEW_TOKENS):
            token, place = out.logits[:, -1:].argmax(-1), place + 1
            tokens.append(token[0, 0])
            out = self.model(input_ids=token, position_ids=place, past_key_values=out.past_key_values, use_cache=True)
        return torch.stack(tokens)

    def positions(self, case: cases.Case, layout: str) -> torch.Tensor:
        """Positions [n, 3] of the tokens."""
        inputs = self.inputs(case, layout)
        if "position_ids" in inputs:
            return inputs["position_ids"][:, 0].T
        if not case.shown:
            return torch.arange(len(case.ids))[:, None].expand(-1, 3)
        return self.model.model.get_rope_index(**inputs)[0][:, 0].T

    def inputs(self, case: cases.Case, layout: str = "release") -> dict[str, torch.Tensor]:
        """What the model is called with; where its own positions are not of this layout, positions too."""
        ids = torch.from_numpy(case.ids)[None]
        inputs = {"input_ids": ids}
        units = iter(case.units)
        shown = [(shape, [next(units) for _ in range(shape[0])]) for shape in case.shown]
        for pixels, grid, image in (
            ("pixel_values", "image_grid_thw", True),
            ("pixel_values_videos", "video_grid_thw", False),
        ):
            chosen = [pair for pair in shown if (pair[0][2] is None) == image]
            if chosen:
                patches = torch.cat([torch.from_numpy(unit) for _, group in chosen for unit in group])
                inputs[pixels] = self.normalised(patches)
                inputs[grid] = torch.tensor([[count, *size] for (count, size, _), _ in chosen])
        if shown:
            inputs["mm_token_type_ids"] = (1 * (ids == IMAGE) + 2 * (ids == VIDEO)).int()
        if self.family == "qwen2_5_vl" and "video_grid_thw" in inputs:
            seconds = [seconds for _, _, seconds in case.shown if seconds is not None]
            if layout == "transformers_5":
                inputs["second_per_grid_ts"] = torch.tensor(seconds)
            else:
                inputs["position_ids"] = torch.tensor(positions(case)).T[:, None]
        return inputs

    def normalised(self, patches: torch.Tensor) -> torch.Tensor:
        """Raw values, channel by channel within a patch, as the processors give them."""
        mean, std = (torch.tensor(x).repeat_interleave(patches.shape[1] // 3) for x in PIXELS[self.family])
        return (patches.float() / 255 - mean) / std


def positions(case: cases.Case) -> list[list[int]]:
    """Positions of Qwen2.5-VL in the layout «release», written token by token from its definition.

    Text counts up from behind the largest position so far; an image or a video is laid out from there.
    """
    spans, places = iter(case.spans), {}
    for count, (_, width), seconds in case.shown:
        for i in range(count):
            start, length = next(spans)
            time = int(i * (seconds or 0) * 2)
            places |= {start + n: (time, n // (width // 2), n % (width // 2)) for n in range(length)}
    found: list[list[int]] = []
    begin = 0
    for token in range(len(case.ids)):
        if token not in places:
            found.append([max(map(max, found), default=-1) + 1] * 3)
        else:
            begin = begin if token - 1 in places else found[-1][0] + 1
            found.append([begin + x for x in places[token]])
    return found
