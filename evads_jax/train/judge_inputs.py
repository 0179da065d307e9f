"""What a judge learns from: its tokenizer, and batches of prompts as `LocalJudge` builds them."""

import dataclasses
import functools
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from evads_jax.data.annotations.grammar import format_line
from evads_jax.data.tokenizer import Tokenizer, load_tokenizer, train_sentencepiece
from evads_jax.errors import UserError
from evads_jax.judge import local
from evads_jax.judge.examples import HELD_OUT, Examples, JudgeExample, attacked
from evads_jax.judge.local import LocalJudge
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
Item = tuple[Prompt, float]
Draw = Callable[[int], JudgeExample]


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
            dataclasses.replace(prompt, tokens=prompt.tokens[:1], positions=prompt.positions[:1], next_position=1)
            for prompt, _ in items
        ]
        rest = [[([*prompt.tokens[1:], *self._judge.encode_value(label)], 0)] for prompt, label in items]
        prompts = collate_prompts(begun, 1, 1, self._model.vision.merge**2, self._model)
        return SFTBatch(prompts, collate_suffixes(rest, 1, sum(self._judge.rooms)))


class JudgeBatches(StepBatches[SFTBatch]):
    """Groups: candidates of one question each, of which the values are scored.

    What a group's candidates are compared with is its prompt, run once; its suffixes are the candidates with what
    follows them and the label's value. All of it stands exactly as `LocalJudge` builds it.

    Args:
      examples: the training examples.
      judge: builds the prompts.
      model: the model's sizes.
      groups: groups a batch.
      size: candidates a group.
    """

    def __init__(self, examples: Examples, judge: LocalJudge, model: QwenVLConfig, groups: int, size: int):
        self._examples, self._judge, self._model, self._groups, self._size = examples, judge, model, groups, size
        self._values = {value: judge.encode_value(value) for value in GRID}

    def batch(self, step: int) -> SFTBatch:
        """The batch of a step."""
        numbers = range(step * self._groups, (step + 1) * self._groups)
        groups = [fitting_group(self._examples, self._judge, number, self._size)[0] for number in numbers]
        T, S = self._judge.rooms
        shared = [group[0][0] for group in groups]
        suffixes = [
            [([*prompt.suffix, *self._values[label]], len(prompt.suffix)) for prompt, label in group]
            for group in groups
        ]
        prompts = collate_prompts(shared, T, 1, self._model.vision.merge**2, self._model)
        return SFTBatch(prompts, collate_suffixes(suffixes, self._size, S))


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
            return (prompt, example.label), attempt
        told = "its prompt does not begin as its group's does"
    raise UserError(f"no example fits: {told}", "config.data", "raise prompt_tokens or candidate_tokens")


def fitting_group(examples: Examples, judge: LocalJudge, number: int, size: int) -> tuple[list[Item], int]:
    """A group of which every candidate fits, its question drawn again until it does; and the number of that draw.

    Raises:
      UserError: no draw of the question has candidates that fit.
    """
    told: UserError | None = None
    for question in range(_DRAWS):
        items: list[Item] = []
        try:
            for place in range(size):
                draw = functools.partial(examples.group, number, place, size, question=question)
                # A candidate that spells its prompt's nonce has another prompt.
                shared = items[0][0].tokens if items else None
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
    lengths = [len(prompt.tokens) for (prompt, _), _ in found]
    return {
        "mean_prompt": float(np.mean(lengths)),
        "longest_prompt": max(lengths),
        "drawn_again": float(np.mean([attempt > 0 for _, attempt in found])),
        "groups_drawn_again": float(
            np.mean([fitting_group(examples, judge, number, size)[1] > 0 for number in range(-(-count // size))])
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
