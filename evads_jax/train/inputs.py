"""From records to batches: which prompt format, what shares a prompt, what fits; and the count of what did not."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from flax import struct
from jaxtyping import Int
from ml_collections import ConfigDict

from evads_jax.data import chat, prompts
from evads_jax.data.media import decode_jpeg, decode_jpegs
from evads_jax.data.records import Example, VideoRecord
from evads_jax.data.tokenizer import Tokenizer
from evads_jax.errors import UserError
from evads_jax.models.qwen_vl import PromptBatch, QwenVLConfig, SuffixBatch
from evads_jax.models.qwen_vl.inputs import ABSENT, Clip, Prompt, PromptBuilder, collate_prompts, collate_suffixes


@dataclasses.dataclass(frozen=True)
class SFTItem:
    """A video's prompt and, for each question that fits, its suffix ids and where the completion begins in them.

    A video of which no question fits keeps its place in the batch, so that which videos a batch holds can be told
    without reading those before it.
    """

    prompt: Prompt
    suffixes: tuple[tuple[list[int], int], ...]


_NOTHING = SFTItem(ABSENT, ())  # takes a place in a batch that no video has


@struct.dataclass
class SFTBatch:
    """B videos with G question-and-answer suffixes each.

    Attributes:
      prompt: the prompts up to the question.
      suffix: question, closing and completion; the mask holds the completion.
    """

    prompt: PromptBatch
    suffix: SuffixBatch


@dataclasses.dataclass(frozen=True)
class PromptItem:
    """One question's whole prompt, and the example that it asks."""

    prompt: Prompt
    example: Example


@dataclasses.dataclass(frozen=True)
class PromptsBatch:
    """B prompts to be continued by sampling.

    Attributes:
      prompt: their arrays.
      ids: a number that depends on the question's id alone; with a key it decides what is sampled.
      examples: what they ask; fewer than B where the batch was filled up with copies of the last.
    """

    prompt: PromptBatch
    ids: Int[np.ndarray, " B"]
    examples: tuple[Example, ...]


class Inputs:
    """Builds items and batches for one tokenizer, model and set of buckets.

    Args:
      data: the config section: prompt formats, `prompt_tokens` (T), `suffix_tokens` (S), frame limits.
      language: "zh" or "en".
      tokenizer: the policy's tokenizer.
      model: the policy's sizes.
    """

    def __init__(self, data: ConfigDict, language: str, tokenizer: Tokenizer, model: QwenVLConfig):
        self._language, self._tokenizer, self._model = language, tokenizer, model
        self._builder = PromptBuilder(tokenizer, model)
        self._T, self._S, self._format_sft = data.prompt_tokens, data.suffix_tokens, data.format_sft
        self._units = -(-data.max_frames // model.vision.temporal_patch)
        self._patches = (data.frame_size // model.vision.cell) ** 2 * model.vision.merge**2

    def sft_transform(self, group: int) -> Callable[[VideoRecord, int | None], SFTItem]:
        """Record → `SFTItem`.

        Args:
          group: G, the most questions that a video may have.
        """
        return functools.partial(self._sft_item, group)

    def sft_collate(
        self, batch: int, group: int, rows: Sequence[int] | None = None
    ) -> Callable[[Sequence[SFTItem]], SFTBatch]:
        """Items → `SFTBatch`; a short batch is filled up with absent videos.

        Args:
          batch: items of a batch, of all processes together.
          group: G, the most questions that a video may have.
          rows: where the items stand in the batch of all processes; None: these are all.
        """
        return functools.partial(self._sft_batch, rows or range(batch), group)

    def prompt_transform(self, format: str) -> Callable[[VideoRecord, int | None], PromptItem]:
        """(Record, question) → `PromptItem`.

        Args:
          format: the prompt format.
        """
        return functools.partial(self._prompt_item, format)

    def prompt_collate(
        self, batch: int, rows: Sequence[int] | None = None
    ) -> Callable[[Sequence[PromptItem]], PromptsBatch]:
        """Items → `PromptsBatch`; a short batch is filled up with copies of the last item.

        Args:
          batch: items of a batch, of all processes together.
          rows: where the items stand in the batch of all processes; None: these are all.
        """
        return functools.partial(self._prompts_batch, rows or range(batch))

    def survey(self, source: Any, format: str, together: bool, numbers: Iterable[int] | None = None) -> dict[str, int]:
        """Counts what does not fit, before anything is trained on.

        Args:
          source: the records of a split.
          format: the prompt format.
          together: whether the questions of a video share its prompt, and their targets must fit a suffix (SFT).
          numbers: of the records to look at; None: all.

        Returns:
          `questions`, `cut` (questions whose prompt lost event lines), `lines` (event lines lost, per prompt once)
          and, with `together`, `left_out` (questions whose target is longer than the suffix bucket).

        Raises:
          UserError: a prompt does not fit even without events.
        """
        counts = {"questions": 0, "cut": 0, "lines": 0} | ({"left_out": 0} if together else {})
        for number in range(len(source)) if numbers is None else numbers:
            record = source[number]
            size = decode_jpeg(record.frames[0]).shape[:2]
            examples = list(record.examples())
            counts["questions"] += len(examples)
            for group in [examples] if together else [[example] for example in examples]:
                fitted, dropped = self._fit(group, format, record, size)
                counts["cut"] += len(group) if dropped else 0
                counts["lines"] += dropped
                if together:
                    counts["left_out"] += sum(self._suffix(*pair) is None for pair in zip(fitted, group, strict=True))
        return counts

    def _fit(
        self, group: Sequence[Example], format: str, record: VideoRecord, size: Sequence[int]
    ) -> tuple[list[prompts.PromptText], int]:
        rendered = [prompts.render(example, format, self._language) for example in group]
        return self._builder.fit(rendered, self._T, record.times, size)

    def _suffix(self, prompt: prompts.PromptText, example: Example) -> tuple[list[int], int] | None:
        """Question, closing and completion, and where the completion begins; None where they are too long."""
        asked = chat.encode_prompt(self._tokenizer, prompt, [], split=True).suffix
        ids = asked + chat.encode_completion(self._tokenizer, prompts.target(example.question))
        return (ids, len(asked)) if len(ids) <= self._S else None

    def _sft_item(self, group: int, record: VideoRecord, question: int | None) -> SFTItem:
        examples = list(record.examples())
        if len(examples) > group:
            what = f"video {record.video} has {len(examples)} questions, a group holds {group}"
            raise UserError(what, "config.sft.questions_per_video", "raise it")
        frames = decode_jpegs(record.frames)
        fitted, _ = self._fit(examples, self._format_sft, record, frames.shape[1:3])
        suffixes = [self._suffix(*pair) for pair in zip(fitted, examples, strict=True)]
        kept = tuple(suffix for suffix in suffixes if suffix)
        prompt = self._builder.build(fitted[0], [Clip(frames, record.times)], split=True)
        return SFTItem(prompt, kept)

    def _prompt_item(self, format: str, record: VideoRecord, question: int | None) -> PromptItem:
        if question is None:
            raise ValueError("a prompt item needs a question")
        example, frames = record.example(question), decode_jpegs(record.frames)
        (fitted,), _ = self._fit([example], format, record, frames.shape[1:3])
        return PromptItem(self._builder.build(fitted, [Clip(frames, record.times)], split=False), example)

    def _sft_batch(self, rows: Sequence[int], group: int, items: Sequence[SFTItem]) -> SFTBatch:
        filled = [*items, *[_NOTHING] * (len(rows) - len(items))]
        suffixes = collate_suffixes([item.suffixes for item in filled], group, self._S)
        return SFTBatch(self._collate([item.prompt for item in filled], rows), suffixes)

    def _prompts_batch(self, rows: Sequence[int], items: Sequence[PromptItem]) -> PromptsBatch:
        filled = [*items, *[items[-1]] * (len(rows) - len(items))]
        ids = [zlib.crc32(item.example.question.id.encode()) & 0x7FFFFFFF for item in filled]
        prompt = self._collate([item.prompt for item in filled], rows)
        return PromptsBatch(prompt, np.asarray(ids, np.int32), tuple(item.example for item in items))

    def _collate(self, items: Sequence[Prompt], rows: Sequence[int]) -> PromptBatch:
        return collate_prompts(items, self._T, self._units, self._patches, self._model, rows)
