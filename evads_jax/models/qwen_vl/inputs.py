"""From frames and text to the arrays that the model is called with; on the host, in NumPy.

`PromptBuilder` turns one prompt and its videos into ids, positions and patches; `collate_prompts` and
`collate_suffixes` pad several of them to the static shapes of a bucket.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from evads_jax.data import chat
from evads_jax.data.prompts import PromptText, fit_together
from evads_jax.data.tokenizer import Tokenizer
from evads_jax.errors import UserError
from evads_jax.models.qwen_vl import mrope
from evads_jax.models.qwen_vl.batch import PromptBatch, SuffixBatch, VideoInputs
from evads_jax.models.qwen_vl.config import QwenVLConfig, VisionConfig


@dataclasses.dataclass(frozen=True)
class Clip:
    """The frames of one video that the model is shown, or one image.

    Attributes:
      frames: RGB, sides in multiples of the model's `VisionConfig.cell`.
      times: presentation time of each frame in seconds.
      image: whether it is an image: one frame, shown with image tokens and without a time.
      seconds_per_unit: seconds between the starts of two temporal units, where a family has time in its positions;
        None takes the mean distance of the frames. Positions are cut to whole numbers, so it must be exact where a
        reference's positions are to be met.
    """

    frames: UInt8[np.ndarray, "F height width 3"]
    times: Sequence[float]
    image: bool = False
    seconds_per_unit: float | None = None


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One prompt, not yet padded.

    Attributes:
      tokens: ids up to where its suffixes begin.
      positions: M-RoPE positions of the tokens.
      next_position: the position of the token that follows.
      spans: (start, length) of the video or image tokens of each temporal unit.
      units: patches of each temporal unit, in merge-block order.
      grids: height and width in patches of each unit.
      suffix: ids of the question and the assistant's header where they are split off, else empty.
    """

    tokens: Int[np.ndarray, " n"]
    positions: Int[np.ndarray, "n 3"]
    next_position: int
    spans: tuple[tuple[int, int], ...]
    units: tuple[UInt8[np.ndarray, "patches C"], ...]
    grids: tuple[tuple[int, int], ...]
    suffix: tuple[int, ...] = ()


# Takes a place in a batch that no prompt has.
ABSENT = Prompt(np.zeros(0, np.int32), np.zeros((0, 3), np.int32), 0, (), (), ())


class PromptBuilder:
    """Builds prompts for one tokenizer and one model.

    Args:
      tokenizer: the model's tokenizer.
      config: the model's sizes.

    Attributes:
      layout: how the model's family writes a prompt.
    """

    def __init__(self, tokenizer: Tokenizer, config: QwenVLConfig):
        self.tokenizer, self.config, self.layout = tokenizer, config, chat_layout(config)

    def fit(
        self, texts: Sequence[PromptText], T: int, times: Sequence[float], size: Sequence[int]
    ) -> tuple[list[PromptText], int]:
        """The prompts of one video, without the event lines that do not fit beside it (`prompts.fit_together`).

        Args:
          texts: the prompts; they differ in their questions only.
          T: the most tokens that the longest may have.
          times: presentation time of each of the video's frames.
          size: height and width of the frames.

        Returns:
          The prompts that fit and how many lines they lost.

        Raises:
          UserError: one does not fit even without events.
        """
        vision = self.config.vision
        span = chat.VideoSpan(unit_times(times, vision), (size[0] // vision.cell) * (size[1] // vision.cell))
        budget = T - chat.overhead(self.tokenizer, [span], self.layout)
        return fit_together(texts, budget, chat.counter(self.tokenizer))

    def build(self, prompt: PromptText, clips: Sequence[Clip], *, split: bool) -> Prompt:
        """One prompt.

        Args:
          prompt: its text.
          clips: its videos and images, in order; may be empty.
          split: whether the question goes into `Prompt.suffix`, so that several questions share the prompt.

        Raises:
          UserError: a video without frames, or with frames that do not divide into the model's cells; an image of
            several frames.
        """
        vision = self.config.vision
        units, grids, videos = [], [], []
        offsets: list[tuple[int, ...]] = []
        for clip in clips:
            if clip.image and len(clip.frames) > 1:
                raise UserError(f"an image of {len(clip.frames)} frames", do="give it as a video, with its times")
            patches, grid = patchify(clip.frames, vision)
            units += list(patches)
            grids += [grid] * len(patches)
            times = (0.0,) if clip.image else unit_times(clip.times, vision)
            videos.append(chat.VideoSpan(times, patches.shape[1] // vision.merge**2, clip.image))
            if clip.image or self.layout.timestamps:
                offsets += [(0,)] * len(patches)
            else:
                offsets.append(mrope.unit_offsets(len(patches), seconds_per_unit(clip, vision), self.config))
        ids = chat.encode_prompt(self.tokenizer, prompt, videos, split, self.layout)
        merged = [(height // vision.merge, width // vision.merge) for height, width in grids]
        positions, next_position = mrope.token_positions(
            len(ids.prefix), ids.video_spans, merged, offsets, self.config.video_layout
        )
        return Prompt(
            tokens=np.asarray(ids.prefix, np.int32),
            positions=positions,
            next_position=next_position,
            spans=tuple(ids.video_spans),
            units=tuple(units),
            grids=tuple(grids),
            suffix=tuple(ids.suffix),
        )


def chat_layout(config: QwenVLConfig) -> chat.Layout:
    """How the model's family writes a prompt.

    Qwen3-VL's own code, and with it transformers 4, puts the frame groups in the place of the chat template's pair of
    vision tags; transformers 5 leaves that pair around them (`video_layout`, docs/parity.md).
    """
    if config.traits.timestamps:
        return chat.Layout(wrapped=config.video_layout == "transformers_5")
    return chat.Layout(system="You are a helpful assistant.", timestamps=False)


def patchify(
    frames: UInt8[np.ndarray, "F height width 3"], vision: VisionConfig
) -> tuple[UInt8[np.ndarray, "units patches C"], tuple[int, int]]:
    """Cuts frames into temporal units of patches.

    The last frame is repeated to fill the last unit. Patches stand in merge-block order (row of blocks, block, row in
    block, column in block), the values of one by channel, frame, row, column.

    Returns:
      The patches, and the grid's height and width in patches.

    Raises:
      UserError: no frames, or sides that are no multiples of `vision.cell`.
    """
    frames = np.asarray(frames)
    if not len(frames):
        raise UserError("a video without frames cannot be shown to the model")
    count, height, width = frames.shape[:3]
    if height % vision.cell or width % vision.cell or not height or not width:
        raise UserError(
            f"frames of {height}×{width} pixels do not divide into cells of {vision.cell}",
            do="prepare the shards with the model's patch and merge sizes",
        )
    t, m, p = vision.temporal_patch, vision.merge, vision.patch
    frames = np.concatenate([frames, np.repeat(frames[-1:], -count % t, axis=0)])
    rows, columns = height // p, width // p
    cut = frames.reshape(-1, t, rows // m, m, p, columns // m, m, p, 3)
    cut = cut.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return cut.reshape(len(cut), rows * columns, vision.patch_values), (rows, columns)


def unit_times(times: Sequence[float], vision: VisionConfig) -> tuple[float, ...]:
    """The second written before each temporal unit: midway between its first and its last frame."""
    size = vision.temporal_patch
    padded = [*times, *[times[-1]] * (-len(times) % size)]
    return tuple((padded[i] + padded[i + size - 1]) / 2 for i in range(0, len(padded), size))


def seconds_per_unit(clip: Clip, vision: VisionConfig) -> float:
    """Seconds between the starts of two temporal units of a video.

    Taken from the times, it is rounded to milliseconds: what times are kept in, and positions are cut at whole numbers.
    """
    if clip.seconds_per_unit is not None:
        return clip.seconds_per_unit
    steps = max(len(clip.times) - 1, 1)
    return round((clip.times[-1] - clip.times[0]) / steps * vision.temporal_patch, 3)


def collate_prompts(
    prompts: Sequence[Prompt],
    T: int,
    units: int,
    patches: int,
    config: QwenVLConfig,
    rows: Sequence[int] | None = None,
) -> PromptBatch:
    """Pads prompts to one static shape.

    Every prompt has room for `units` temporal units, so that a batch can be split among devices with its videos.

    Args:
      prompts: the B prompts.
      T: tokens of the bucket.
      units: temporal units that each prompt has room for.
      patches: P, patches that each unit has room for; a multiple of merge².
      config: the model's sizes.
      rows: where the prompts stand in the batch of all processes; None: these are all.

    Returns:
      A batch of NumPy arrays, U = B · units.

    Raises:
      ValueError: a prompt does not fit (events were to be dropped before), or P is no multiple of merge².
    """
    B, merged = len(prompts), config.vision.merge**2
    if patches % merged:
        raise ValueError(f"{patches} patches per unit are no multiple of merge² = {merged}")
    tokens, video_index = np.zeros((B, T), np.int32), np.full((B, T), -1, np.int32)
    positions = np.zeros((B, T, 3), np.int32)
    pixels = np.zeros((B * units, patches, config.vision.patch_values), np.uint8)
    grid = np.zeros((B * units, 2), np.int32)
    for b, prompt in enumerate(prompts):
        n = len(prompt.tokens)
        largest = max((len(unit) for unit in prompt.units), default=0)
        if n > T or len(prompt.units) > units or largest > patches:
            raise ValueError(
                f"a prompt of {n} tokens, {len(prompt.units)} units of up to {largest} patches does not fit the "
                f"bucket of {T} tokens, {units} units of {patches} patches"
            )
        tokens[b, :n], positions[b, :n] = prompt.tokens, prompt.positions
        places = enumerate(zip(prompt.units, prompt.grids, prompt.spans, strict=True), start=b * units)
        for u, (unit, size, (start, length)) in places:
            pixels[u, : len(unit)], grid[u] = unit, size
            # It counts the video tokens of the whole batch, of all processes, that stand before its own.
            whole = u if rows is None else u + (rows[b] - b) * units
            video_index[b, start : start + length] = whole * (patches // merged) + np.arange(length)
    arrays: dict[str, Any] = {  # NumPy here, on the device where it is used
        "tokens": tokens,
        "lengths": np.asarray([len(prompt.tokens) for prompt in prompts], np.int32),
        "positions": positions,
        "video_index": video_index,
        "next_position": np.asarray([prompt.next_position for prompt in prompts], np.int32),
    }
    video: dict[str, Any] = {"patches": pixels, "grid": grid}
    return PromptBatch(**arrays, video=VideoInputs(**video))


def collate_suffixes(groups: Sequence[Sequence[tuple[Sequence[int], int]]], G: int, S: int) -> SuffixBatch:
    """Pads the suffixes of each prompt to one static shape.

    Args:
      groups: for each prompt, up to G pairs of token ids and the index of the first scored one.
      G: suffixes per prompt; absent ones get length 0.
      S: tokens of the bucket.

    Returns:
      A batch of NumPy arrays.

    Raises:
      ValueError: a group has more than G suffixes, or one has more than S tokens.
    """
    B = len(groups)
    tokens, lengths = np.zeros((B, G, S), np.int32), np.zeros((B, G), np.int32)
    mask = np.zeros((B, G, S), bool)
    for b, group in enumerate(groups):
        if len(group) > G:
            raise ValueError(f"{len(group)} suffixes do not fit a group of {G}")
        for g, (ids, scored_from) in enumerate(group):
            if len(ids) > S:
                raise ValueError(f"a suffix of {len(ids)} tokens does not fit the bucket of {S}")
            tokens[b, g, : len(ids)], lengths[b, g] = ids, len(ids)
            mask[b, g, scored_from : len(ids)] = True
    arrays: dict[str, Any] = {"tokens": tokens, "lengths": lengths, "mask": mask}
    return SuffixBatch(**arrays)
