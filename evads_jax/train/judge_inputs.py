"""What a judge learns from: its tokenizer, and batches of prompts as `LocalJudge` builds them."""

import bisect
import dataclasses
import functools
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import struct
from jaxtyping import Bool, Int
from ml_collections import ConfigDict

from evads_jax.data.annotations.grammar import format_line
from evads_jax.data.tokenizer import Tokenizer, load_tokenizer, train_sentencepiece
from evads_jax.errors import UserError
from evads_jax.judge import local
from evads_jax.judge.examples import HELD_OUT, Examples, JudgeExample, attacked
from evads_jax.judge.local import LocalJudge
from evads_jax.judge.marks import named_values
from evads_jax.judge.request import Prompts, defuse
from evads_jax.judge.verdict import GRID
from evads_jax.models.qwen_vl import QwenVLConfig
from evads_jax.models.qwen_vl.inputs import Prompt, collate_prompts, collate_suffixes
from evads_jax.train.inputs import SFTBatch
from evads_jax.train.stage import StepBatches

TOKENIZER = "sentencepiece"
# Constant parts of the chat, of fences and of event lines; and the grid values: a verdict is one token and the end of
# the turn, so that all five are weighed at one place.
_MARKS = (
    *("user\n", "assistant\n", "]\n", "\n\n", "Time ", "s: OCR Text: [", '] ; ASR Text: "', '"\n', " | "),
    *("0.25", "0.5", "0.75"),
)
_DIGITS = "0123456789abcdef"
_DRAWS = 20  # until one fits the bucket
_CORPUS = 2_000  # honest examples that the tokenizer is trained on
_CORPUS_ATTACKED = 5  # of them also in every attack that training shows …
_LONGEST_TEXT = 400  # … up to so many characters
_MARKED = 16  # values of a candidate that are marked, the first ones
VALUE_TOKENS = 2  # of a grid value and the end of the turn
Draw = Callable[[int], JudgeExample]
DrawGroup = Callable[..., JudgeExample]  # as `Examples.group` is called


class Item(NamedTuple):
    """An example that fits: its prompt, its label and what both were made from."""

    prompt: Prompt
    label: float
    example: JudgeExample


class ReadingBatches(StepBatches[SFTBatch]):
    """Whole prompts with their values as text: every token but the first is scored.

    Args:
      examples: the training examples.
      judge: builds the prompts.
      model: the model's sizes.
      prompts: prompts a batch.
    """

    def __init__(self, examples: Examples, judge: LocalJudge, model: QwenVLConfig, prompts: int):
        self._examples, self._judge, self._model, self._prompts = examples, judge, model, prompts

    def batch(self, step: int) -> SFTBatch:
        """The batch of a step."""
        numbers = range(step * self._prompts, (step + 1) * self._prompts)
        items = [fitting(functools.partial(self._examples, number), self._judge)[0] for number in numbers]
        begun = [
            dataclasses.replace(
                item.prompt, tokens=item.prompt.tokens[:1], positions=item.prompt.positions[:1], next_position=1
            )
            for item in items
        ]
        rest = [[([*item.prompt.tokens[1:], *self._judge.encode_value(item.label)], 0)] for item in items]
        prompts = collate_prompts(begun, 1, 1, self._model.vision.merge**2, self._model)
        return SFTBatch(prompts, collate_suffixes(rest, 1, sum(self._judge.rooms)))


@struct.dataclass
class MarkedBatch(SFTBatch):
    """Groups of candidates, and what a judge is to know of each value that they name.

    Attributes:
      places: tokens of a suffix with which the values end that it names; −1 where there are no more.
      right: whether a value is the script's.
      names: the first token of what the script's value is called.
    """

    places: Int[Any, "B G M"]
    right: Bool[Any, "B G M"]
    names: Int[Any, "B G M"]


class JudgeBatches(StepBatches[MarkedBatch]):
    """Groups: candidates of one question each, of which the values are scored.

    What a group's candidates are compared with is its prompt, run once; its suffixes are the candidates with what
    follows them and the label's value. All of it stands exactly as `LocalJudge` builds it. Beside it are marks for the
    values of the question's slots that a candidate names (`judge.marks`).

    Args:
      draw: `Examples.group`; or `Examples.mixed`, of which only the marks are scored.
      judge: builds the prompts.
      tokenizer: the judge's.
      model: the model's sizes.
      groups: groups a batch.
      size: candidates a group.
      verdicts: whether the labels' values are scored; else only the marks are there to learn from.
    """

    def __init__(
        self,
        draw: DrawGroup,
        judge: LocalJudge,
        tokenizer: Tokenizer,
        model: QwenVLConfig,
        groups: int,
        size: int,
        *,
        verdicts: bool = True,
    ):
        self._draw, self._judge, self._tokenizer, self._verdicts = draw, judge, tokenizer, verdicts
        self._model, self._groups, self._size = model, groups, size
        self._values = {value: judge.encode_value(value) for value in GRID}

    def batch(self, step: int) -> MarkedBatch:
        """The batch of a step."""
        numbers = range(step * self._groups, (step + 1) * self._groups)
        groups = [fitting_group(self._draw, self._judge, number, self._size)[0] for number in numbers]
        T, S = self._judge.rooms
        suffixes = [[self._scored(item) for item in group] for group in groups]
        prompts = [group[0].prompt for group in groups]
        prompt = collate_prompts(prompts, T, 1, self._model.vision.merge**2, self._model)
        marks = [[self._marks(item) for item in group] for group in groups]
        places, right, names = np.moveaxis(np.array(marks, np.int32), -1, 0)
        return MarkedBatch(prompt, collate_suffixes(suffixes, self._size, S), places, right.astype(bool), names)

    def _scored(self, item: Item) -> tuple[list[int], int]:
        """A suffix and the index of its first scored token."""
        ids = [*item.prompt.suffix, *(self._values[item.label] if self._verdicts else ())]
        return ids, len(item.prompt.suffix)

    def _marks(self, item: Item) -> list[tuple[int, bool, int]]:
        """Place, rightness and name of the first values that a suffix names, filled up to `_MARKED`."""
        ids, decode = item.prompt.suffix, self._tokenizer.decode
        found = []
        for value in itertools.islice(named_values(item.example.ad, item.example.task, decode(ids)), _MARKED):
            place = bisect.bisect_left(range(len(ids)), value.end, key=lambda n: len(decode(ids[: n + 1])))
            found.append((place, value.right, self._tokenizer.encode(value.script)[0]))
        return found + [(-1, False, 0)] * (_MARKED - len(found))


def fitting(
    draw: Draw, judge: LocalJudge, *, split: bool = False, shared: np.ndarray | None = None
) -> tuple[Item, int]:
    """An example's prompt and label, drawn again until it fits the judge's bucket; and the number of the draw.

    What an attack puts behind the candidate may be shown in part; the candidate, which the label is about, may not.

    Args:
      draw: the number of an attempt → an example.
      judge: builds the prompt.
      split: as in `LocalJudge.prompt`.
      shared: tokens that the prompt must begin with; None: any.

    Raises:
      UserError: none of the draws fits.
    """
    told = ""
    for attempt in range(_DRAWS):
        example = draw(attempt)
        honest, candidate = example.honest.text, example.request.candidate
        try:
            prompt = judge.prompt(example.request, candidate.find(honest) + len(honest), split=split)
        except UserError as error:
            told = error.what
            continue
        if shared is None or np.array_equal(prompt.tokens, shared):
            return Item(prompt, example.label, example), attempt
        told = "its prompt does not begin as its group's does"
    raise UserError(f"no example fits: {told}", "config.data", "raise prompt_tokens or candidate_tokens")


def fitting_group(draw_group: DrawGroup, judge: LocalJudge, number: int, size: int) -> tuple[list[Item], int]:
    """A group of which every candidate fits, its question drawn again until it does; and the number of that draw.

    Args:
      draw_group: `Examples.group` or `Examples.mixed`.
      judge: builds the prompts.
      number: which group.
      size: candidates a group.

    Raises:
      UserError: no draw of the question has candidates that fit.
    """
    told: UserError | None = None
    for question in range(_DRAWS):
        items: list[Item] = []
        try:
            for place in range(size):
                draw = functools.partial(draw_group, number, place, size, question=question)
                # A candidate that spells its prompt's nonce has another prompt.
                shared = items[0].prompt.tokens if items else None
                items.append(fitting(draw, judge, split=True, shared=shared)[0])
        except UserError as error:
            told = error
        else:
            return items, question
    assert told is not None
    raise told


def survey(examples: Examples, judge: LocalJudge, count: int, size: int) -> dict[str, float]:
    """What becomes of the first examples and groups in the judge's bucket, before anything is trained on.

    Args:
      examples: the training examples.
      judge: builds the prompts.
      count: examples, and candidates of groups, that are looked at.
      size: candidates a group.

    Returns:
      Mean and longest prompt in tokens, and the shares of the examples and of the groups' questions that were drawn
      again.

    Raises:
      UserError: an example or a group does not fit, however often it is drawn.
    """
    found = [fitting(functools.partial(examples, number), judge) for number in range(count)]
    lengths = [len(item.prompt.tokens) for item, _ in found]
    return {
        "mean_prompt": float(np.mean(lengths)),
        "longest_prompt": max(lengths),
        "drawn_again": float(np.mean([attempt > 0 for _, attempt in found])),
        "groups_drawn_again": float(
            np.mean([fitting_group(examples.group, judge, number, size)[1] > 0 for number in range(-(-count // size))])
        ),
    }


def make_tokenizer(config: ConfigDict, folder: Path, prompts: Prompts, examples: Examples) -> Tokenizer:
    """The tokenizer in W/tokenizer, trained on the training examples' texts where it is not there yet.

    The prompts' constant lines are single pieces, and so are two places of the nonces that stand in them a dozen times
    a prompt (pairs of two letters excepted, which words have too).

    Raises:
      UserError: the vocabulary is too small.
    """
    if not (folder / "tokenizer.model").exists():
        pairs = [a + b for a in _DIGITS for b in _DIGITS if not (a + b).isalpha()]
        constants = (*local.constants(prompts), *_MARKS, *pairs)
        honest = Examples(examples.ads, "train", config.run.seed)
        texts = [text for number in range(_CORPUS) for text in _texts(honest(number))]
        texts += [text for number in range(_CORPUS_ATTACKED) for text in _attacks(honest(number))]
        train_sentencepiece(texts, config.tokenizer.vocabulary, folder, constants, config.tokenizer.longest_piece)
    return load_tokenizer(TOKENIZER, folder)


def _texts(example: JudgeExample) -> list[str]:
    asked = example.request
    return [*map(format_line, asked.events), asked.question, asked.clues, asked.reference, asked.candidate]


def _attacks(example: JudgeExample) -> list[str]:
    rng = random.Random(example.request.video)
    texts = attacked(rng, example.ad, example.task, example.request.candidate)
    return [defuse(text[:_LONGEST_TEXT]) for name, text in texts.items() if name not in HELD_OUT]
