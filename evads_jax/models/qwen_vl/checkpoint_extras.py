"""What stands beside the weights of a model that was not made from a checkpoint folder: everything that transformers
needs to open it: config.json, tokenizer, chat template and processors.
"""

import json
from pathlib import Path
from typing import Any

from evads_jax.data.qwen_processor import Processing
from evads_jax.data.tokenizer import IM_END, IM_START, PAD, Tokenizer
from evads_jax.data.tokenizer_json import to_tokenizer_json
from evads_jax.models.qwen_vl.checkpoint_config import NAME, config_json
from evads_jax.models.qwen_vl.config import QwenVLConfig
from evads_jax.models.qwen_vl.inputs import chat_layout

_PROCESSORS = {  # of a prompt, of a video
    "qwen3_vl": ("Qwen3VLProcessor", "Qwen3VLVideoProcessor"),
    "qwen2_5_vl": ("Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor"),
}
_TEMPLATE = (
    "{{ '%(system)s' }}{%% for message in messages %%}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{%% if message['content'] is string %%}{{ message['content'] }}{%% else %%}"
    "{%% for part in message['content'] %%}"
    "{%% if part['type'] in ('image', 'video') %%}<|vision_start|><|{{ part['type'] }}_pad|><|vision_end|>"
    "{%% else %%}{{ part['text'] }}{%% endif %%}{%% endfor %%}{%% endif %%}{{ '<|im_end|>\\n' }}{%% endfor %%}"
    "{%% if add_generation_prompt %%}{{ '<|im_start|>assistant\\n' }}{%% endif %%}"
)


def write_extras(
    folder: Path, config: QwenVLConfig, tokenizer: Tokenizer, dtype: str, video: Processing | None = None
) -> None:
    """Writes everything but weights.

    Args:
      folder: the checkpoint's.
      config: the model's sizes.
      tokenizer: its tokenizer; one of sentencepiece is also written as a tokenizer.json.
      dtype: of the stored tensors.
      video: how videos are processed; None: what transformers takes by default.
    """
    _write(folder / NAME, config_json(config, tokenizer.ids, dtype))
    _write(folder / "generation_config.json", {"eos_token_id": tokenizer.ids.eos, "pad_token_id": tokenizer.ids.pad})
    tokenizer.save(folder)
    if (folder / "tokenizer.model").is_file():
        content = to_tokenizer_json(folder / "tokenizer.model")
        (folder / "tokenizer.json").write_text(content, encoding="utf-8")
    prompt, videos = _PROCESSORS[config.family]
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "processor_class": prompt}
    special = {"eos_token": IM_END, "pad_token": PAD, "clean_up_tokenization_spaces": False}
    _write(folder / "tokenizer_config.json", named | special)
    system = chat_layout(config).system
    turn = f"{IM_START}system\\n{system}{IM_END}\\n" if system else ""
    (folder / "chat_template.jinja").write_text(_TEMPLATE % {"system": turn}, encoding="utf-8")
    sizes = config.vision
    common: dict[str, Any] = {
        "processor_class": prompt,
        "patch_size": sizes.patch,
        "merge_size": sizes.merge,
        "temporal_patch_size": sizes.temporal_patch,
        "image_mean": list(sizes.pixel_mean),
        "image_std": list(sizes.pixel_std),
    }
    image: dict[str, Any] = {"image_processor_type": "Qwen2VLImageProcessor"}
    moving: dict[str, Any] = {"video_processor_type": videos}
    if video is not None:
        one = video.max_pixels // video.max_frames if video.whole_video else video.max_pixels
        image["size"] = {"shortest_edge": sizes.cell**2, "longest_edge": one}
        moving["size"] = {"shortest_edge": video.min_pixels, "longest_edge": video.max_pixels}
        moving |= {"fps": video.frame_rate, "min_frames": video.min_frames, "max_frames": video.max_frames}
    _write(folder / "preprocessor_config.json", common | image)
    _write(folder / "video_preprocessor_config.json", common | moving)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
