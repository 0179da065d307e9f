"""What a judge learns from: its tokenizer, and batches of prompts exactly as `LocalJudge` builds them."""

import dataclasses
import random
from collections.abc import Sequence
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


class JudgeBatches:
    """Endless batches of new examples, a function of the step alone.

    Args:
      examples: the training examples.
      judge: builds the prompts.
      model: the model's sizes.
      batch: examples a batch.
      T: the prompts' bucket.
      text: tokens at the end of each prompt that are scored beside the value; a prompt of fewer keeps its first one.
      first: the step whose examples come first.
    """

    def __init__(
        self,
        examples: Examples,
        judge: LocalJudge,
        model: QwenVLConfig,
        batch: int,
        T: int,
        text: int = 0,
        first: int = 0,
    ):
        self._examples, self._judge, self._model, self._batch = examples, judge, model, batch
        self._T, self._text, self._first = T, text, first
        self._values = {value: judge.encode_value(value) for value in GRID}
        self._step = 0

    def __next__(self) -> SFTBatch:
        """The next batch."""
        first = (self._first + self._step) * self._batch
        self._step += 1
        return self.collate([fitting(self._examples, self._judge, first + i)[0] for i in range(self._batch)])

    def collate(self, items: Sequence[Item]) -> SFTBatch:
        """Prompts and labels as a batch; the last `text` tokens and the value's are the scored suffix."""
        cut = [_cut(prompt, self._text) for prompt, _ in items]
        suffixes = [[([*rest, *self._values[label]], 0)] for (_, rest), (_, label) in zip(cut, items, strict=True)]
        prompts = collate_prompts(
            [p for p, _ in cut], self._T - self._text, 1, self._model.vision.merge**2, self._model
        )
        S = self._text + max(map(len, self._values.values()))
        return SFTBatch(prompts, collate_suffixes(suffixes, 1, S))

    def get_state(self) -> dict[str, int]:
        """The place: batches given so far."""
        return {"step": self._step}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a place."""
        self._step = state["step"]


def _cut(prompt: Prompt, count: int) -> tuple[Prompt, list[int]]:
    """A prompt without its last tokens, and these; both together are the prompt."""
    at = max(len(prompt.tokens) - count, 1)
    kept = dataclasses.replace(
        prompt,
        tokens=prompt.tokens[:at],
        positions=prompt.positions[:at],
        next_position=int(prompt.positions[at - 1, 0]) + 1,
    )
    return kept, prompt.tokens[at:].tolist()


def fitting(examples: Examples, judge: LocalJudge, number: int) -> tuple[Item, int]:
    """An example's prompt and label, drawn again until it fits the judge's bucket; and the number of the draw.

    What an attack puts behind the candidate may be shown in part; the candidate, which the label is about, may not.

    Raises:
      UserError: none of the draws fits.
    """
    for attempt in range(_DRAWS):
        example: JudgeExample = examples(number, attempt)
        honest, candidate = example.honest.text, example.request.candidate
        try:
            return (judge.prompt(example.request, candidate.find(honest) + len(honest)), example.label), attempt
        except UserError as error:
            told = error.what
    raise UserError(f"no example fits: {told}", "config.data.prompt_tokens", "raise it")


def survey(examples: Examples, judge: LocalJudge, count: int) -> dict[str, float]:
    """What becomes of the first examples in the judge's bucket, before anything is trained on.

    Returns:
      Mean and longest prompt in tokens, and the share of the examples that was drawn again.

    Raises:
      UserError: an example does not fit, however often it is drawn.
    """
    found = [fitting(examples, judge, number) for number in range(count)]
    lengths = [len(prompt.tokens) for (prompt, _), _ in found]
    return {
        "mean_prompt": float(np.mean(lengths)),
        "longest_prompt": max(lengths),
        "drawn_again": float(np.mean([attempt > 0 for _, attempt in found])),
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
