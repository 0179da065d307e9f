"""Models that can be asked about a video, before anything large is read: a stage of a run, or a checkpoint folder.

A run is asked with its own frames, prompt format and limits; a checkpoint with the frames that its processor takes, as
many as `CHECKPOINT_VIDEO_TOKENS` allow.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from evads_jax import storage
from evads_jax.data import media, prompts, qwen_processor
from evads_jax.data.makers import Sampling
from evads_jax.data.tokenizer import Tokenizer, find_tokenizer
from evads_jax.errors import UserError
from evads_jax.models import lora, qwen_vl
from evads_jax.models.qwen_vl import QwenVLConfig, checkpoint
from evads_jax.models.qwen_vl.inputs import Clip
from evads_jax.train.results import find_policy

# A checkpoint's processor allows videos that fill a memory: the frames and the video tokens that are taken at most.
CHECKPOINT_FRAMES, CHECKPOINT_VIDEO_TOKENS = 64, 4096


@dataclasses.dataclass(frozen=True)
class Manner:
    """How videos and questions are put to a model.

    Attributes:
      format: prompt format, see `data.prompts`.
      language: "zh" or "en", of the prompt's instruction where the format has one in each; None: the question's.
      frame_rate: frames to take per second of video.
      max_frames: the most frames to take.
      prompt_tokens: tokens of the longest prompt; what is too long loses event lines.
      max_new_tokens: tokens of the longest completion.
      dtype: of activations.
    """

    format: str
    language: str | None
    frame_rate: float
    max_frames: int
    prompt_tokens: int
    max_new_tokens: int
    dtype: str

    def __post_init__(self):
        """Refuses an unknown format or language, and numbers that make no sense."""
        for field, known in (("format", prompts.FORMATS), ("language", (None, *prompts.LANGUAGES))):
            if (value := getattr(self, field)) not in known:
                named = ", ".join(name for name in known if name)
                raise UserError(f"unknown {field} {value!r}", f"config.{field}", f"use one of {named}")
        for field in ("frame_rate", "max_frames", "prompt_tokens", "max_new_tokens"):
            if getattr(self, field) <= 0:
                raise UserError(f"{field} must be above 0, got {getattr(self, field)}", f"config.{field}")


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a model is shown of a video.

    Attributes:
      name: the video's.
      clip: its frames.
      duration: whole seconds, where the prompt states them.
    """

    name: str
    clip: Clip
    duration: int | None


@dataclasses.dataclass(frozen=True)
class Source:
    """A model on the disk, before anything large is read.

    Attributes:
      name: what is told of it.
      tokenizer: its tokenizer.
      model: its sizes.
      manner: how it is asked.
      watch: a video's file → what the model is shown of it; raises `UserError` where there is nothing to show.
      parameters: reads the parameters.
    """

    name: str
    tokenizer: Tokenizer
    model: QwenVLConfig
    manner: Manner
    watch: Callable[[Path], Seen]
    parameters: Callable[[], Any]


def find(folder: str | Path, stage: str | None = None, **changes: Any) -> Source:
    """The model in a folder; its parameters are not read.

    Args:
      folder: a run's, or a checkpoint's in the Hugging Face layout; also in a bucket.
      stage: of a run: base, sft, control or mg_grpo; None: the last that is finished.
      **changes: fields of `Manner` that are to differ from the model's own; None leaves one as it is.

    Raises:
      UserError: there is no such model, stage or tokenizer, or a change makes no sense.
    """
    here = storage.fetched(folder, "config.json")
    if not here.is_dir():
        raise UserError(
            "no such folder of a model", str(folder), "name a run's work directory, or a checkpoint's folder"
        )
    changes = {name: value for name, value in changes.items() if value is not None}
    if "job" in qwen_processor.read_json(here / "config.json"):
        return _of_run(here, stage, changes)
    if stage is not None:
        raise UserError(f"a checkpoint has no stage {stage!r}", "config.stage", "leave it out")
    return _of_checkpoint(storage.fetched(folder), changes)


def _of_run(folder: Path, stage: str | None, changes: Mapping[str, Any]) -> Source:
    """A stage of a run of ours: frames, prompt format and limits are the run's."""
    policy = find_policy(folder, stage)
    config, data = policy.config, policy.config.data
    own = {"format": data.format_eval, "frame_rate": data.frame_rate, "max_frames": data.max_frames}
    own |= {"language": config.run.language, "prompt_tokens": data.prompt_tokens}
    own |= {"max_new_tokens": config.eval.max_new_tokens, "dtype": config.model.dtype}
    manner = Manner(**{**own, **changes})
    model = dataclasses.replace(policy.model, dtype=manner.dtype)
    sampling = Sampling(manner.frame_rate, manner.max_frames, data.frame_size, model.vision.cell)

    def watch(path: Path) -> Seen:
        taken = sampling.decode(path)
        if isinstance(taken, media.MediaFailure):
            raise UserError(f"the video cannot be shown: {taken.kind}, {taken.detail}", str(path), "give another file")
        # Through JPEG, as the frames of the shards that it learned from.
        frames = media.decode_jpegs([media.encode_jpeg(frame) for frame in taken.frames])
        return Seen(path.name, Clip(frames, taken.times), round(taken.duration))

    return Source(
        f"{storage.name_of(folder)}, {policy.weights}", policy.tokenizer, model, manner, watch, policy.parameters
    )


def _of_checkpoint(folder: Path, changes: Mapping[str, Any]) -> Source:
    """A checkpoint in the Hugging Face layout: frames are those of its processor, as many as a prompt may hold."""
    cpu = jax.default_backend() == "cpu"
    own = {"format": "asr_ocr", "max_frames": CHECKPOINT_FRAMES, "prompt_tokens": 2 * CHECKPOINT_VIDEO_TOKENS}
    own |= {"max_new_tokens": 512, "dtype": "float32" if cpu else "bfloat16"}
    model, tokenizer = checkpoint.read_config(folder), find_tokenizer(folder)
    sizes = model.vision
    stated = qwen_processor.read_processing(folder, model.family, "video", sizes.cell, sizes.temporal_patch)
    manner = Manner(**{**own, "language": None, "frame_rate": stated.frame_rate, **changes})
    model = dataclasses.replace(model, dtype=manner.dtype)
    frames = min(manner.max_frames, stated.max_frames)
    pixels = CHECKPOINT_VIDEO_TOKENS * sizes.cell**2 * sizes.temporal_patch // (1 if stated.whole_video else frames)
    processing = dataclasses.replace(
        stated, frame_rate=manner.frame_rate, max_frames=frames, max_pixels=max(min(stated.max_pixels, pixels), 1)
    )

    def watch(path: Path) -> Seen:
        video = qwen_processor.read_video(path, processing)
        return Seen(path.name, Clip(video.frames, video.times, seconds_per_unit=video.seconds_per_unit), None)

    def parameters() -> Any:
        return lora.hold(checkpoint.load_parameters(folder, model), qwen_vl.fan_in(model), model.dtype)

    return Source(storage.name_of(folder), tokenizer, model, manner, watch, parameters)
