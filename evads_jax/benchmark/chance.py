"""What a score is worth: the best constant answer, and answers shuffled among videos.

Two zero points for a judge's score, both under the same judge:

- *chance*: for each task the one answer that scores best on other videos, given to every question of the task. It is
  chosen among the references of a choosing split and parts of them, on that split, and applied to the test split as
  it is.
- *shuffled*: the evaluated answers themselves, dealt out again among the videos of the same question template. They
  keep their wording, length and frequency and lose only the link to their video: what is left is what the policy
  could score without seeing which video it is asked about.
"""

import dataclasses
import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from evads_jax.benchmark.files import Split
from evads_jax.data.prompts import TAGS
from evads_jax.data.records import Example, VideoRecord
from evads_jax.judge.verdict import Judge, JudgeRequest, Missing, Verdict

PERMUTATIONS = 16
CANDIDATES, FINALISTS = 150, 25  # of each kind; that are tried on all questions
FIRST_QUESTIONS, FINAL_QUESTIONS = 40, 200
MOST_POINTS = 4
_QUOTED = re.compile(r"«[^»]*»|“[^”]*”|\"[^\"]*\"|「[^」]*」|『[^』]*』|《[^》]*》|(?<!\w)'[^']*'(?!\w)|‘[^’]*’")


@dataclasses.dataclass(frozen=True)
class Constant:
    """The best constant answer of a task.

    Attributes:
      answer: its text.
      chosen_at: its mean score on the split that it was chosen on.
      candidates: how many answers were tried.
      questions: on how many questions it was chosen.
    """

    answer: str
    chosen_at: float
    candidates: int
    questions: int


class ConstantPolicy:
    """Gives every question the constant answer of its task; evaluated like a stage.

    Args:
      constants: task → constant; the key None serves questions without a task.
    """

    weights = "none"
    batch = 256
    dropped_lines: Mapping[str, int] = MappingProxyType({})

    def __init__(self, constants: Mapping[str | None, Constant]):
        self._constants = dict(constants)
        self.protocol: Mapping[str, Any] = {
            "name": "best constant answer",
            "constants": {str(task): dataclasses.asdict(c) for task, c in self._constants.items()},
        }

    def generate(self, items: Sequence[tuple[VideoRecord, int]]) -> list[str]:
        """The constant of each question's task, in the tags of an answer."""
        tasks = (record.questions[i].task for record, i in items)
        return [f"<answer>{self._constants[task].answer if task in self._constants else ''}</answer>" for task in tasks]


def best_constants(
    choosing: Split, judge: Judge, request: Callable[[Example, str], JudgeRequest], seed: int = 0
) -> dict[str | None, Constant]:
    """Chooses a constant answer per task; `None` is the task of questions without a label.

    Candidates are references, and where a rubric is known also what says less: the canonical wordings of one or more
    of its points, as a constant that risks fewer details can score more. Of each kind the most frequent are tried on a
    few questions, and the best of them on more.

    Args:
      choosing: the split to choose on; never the test split.
      judge: the judge of the evaluation.
      request: what the judge is asked about an answer to an example.
      seed: draws the questions and breaks ties of frequency.
    """
    by_task: dict[str | None, list[Example]] = defaultdict(list)
    for example in choosing.examples:
        by_task[example.question.task].append(example)
    rng = np.random.default_rng(seed)
    constants = {}
    for task, examples in by_task.items():
        asked = [examples[i] for i in rng.permutation(len(examples))[:FINAL_QUESTIONS]]
        tried = _candidates(examples, rng)

        def mean(text: str, among: Sequence[Example]) -> float:
            return _mean(judge.judge([request(example, text) for example in among]))

        first = sorted(tried, key=lambda text: -mean(text, asked[:FIRST_QUESTIONS]))[:FINALISTS]
        scored = [(mean(text, asked), text) for text in first]
        best, answer = max(scored, key=lambda item: item[0])
        constants[task] = Constant(answer, best, len(tried), len(asked))
    return constants


def _candidates(examples: Sequence[Example], rng: np.random.Generator) -> list[str]:
    references: Counter[str] = Counter()
    parts: Counter[str] = Counter()
    for example in examples:
        references[_untagged(example.question.answer)] += 1
        wordings = [point.accepted[0] for point in example.question.rubric if point.accepted][:MOST_POINTS]
        for size in range(1, len(wordings) + 1):
            parts.update(", ".join(some) for some in itertools.combinations(wordings, size))
    tried: dict[str, None] = {}
    for counter in (references, parts):
        texts = sorted(counter)
        order = sorted(rng.permutation(len(texts)), key=lambda i: -counter[texts[i]])
        tried |= dict.fromkeys(texts[i] for i in order[:CANDIDATES])
    return list(tried)


def template(example: Example, facts: Mapping[str, str] | None = None) -> str:
    """A question without what varies from video to video: quotations, numbers, and the script's own values."""
    text = _QUOTED.sub("«»", example.question.question.casefold())
    for value in sorted({v.casefold() for v in (facts or {}).values() if v}, key=len, reverse=True):
        text = re.sub(rf"(?<![a-z0-9]){re.escape(value)}(?![a-z0-9])", "«»", text)
    return f"{example.question.task}: " + " ".join(re.sub(r"\d+(?:\.\d+)?", "#", text).split())


def shuffled_scores(
    split: Split,
    answers: Sequence[str | None],
    judge: Callable[[list[tuple[int, str]]], Sequence[Verdict | Missing]],
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> np.ndarray:
    """The mean score of each question over answers dealt out among the videos of its template.

    A permutation is a random cycle through the template's questions, so that no question keeps its answer; one
    whose partner belongs to the same video is left out.

    Args:
      split: the questions.
      answers: the answer given to each; None where there is none, and the question takes no part.
      judge: scores (number of a question, answer) pairs; asked about each distinct pair once.
      seed: of the permutations.
      permutations: how many are averaged.

    Returns:
      [N] means; NaN for a question without an answer, without a partner or without a verdict.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for n, (example, facts) in enumerate(zip(split.examples, split.facts, strict=True)):
        if answers[n] is not None:
            groups[template(example, facts)].append(n)
    rng = np.random.default_rng(seed)
    pairs: list[tuple[int, str]] = []
    for group in groups.values():
        for _ in range(permutations if len(group) > 1 else 0):
            cycle = rng.permutation(group)
            for n, partner in zip(cycle, np.roll(cycle, 1), strict=True):
                dealt = answers[partner]
                if dealt is not None and split.examples[n].video != split.examples[partner].video:
                    pairs.append((int(n), dealt))
    distinct = list(dict.fromkeys(pairs))
    score = {
        pair: math.nan if isinstance(verdict, Missing) else verdict.score
        for pair, verdict in zip(distinct, judge(distinct), strict=True)
    }
    sums, counts = np.zeros(len(answers)), np.zeros(len(answers))
    for pair in pairs:
        if not math.isnan(score[pair]):
            sums[pair[0]] += score[pair]
            counts[pair[0]] += 1
    return np.divide(sums, counts, out=np.full(len(answers), np.nan), where=counts > 0)


def _mean(verdicts: Sequence[Verdict | Missing]) -> float:
    scores = [v.score for v in verdicts if isinstance(v, Verdict)]
    return sum(scores) / len(scores) if scores else 0.0


def _untagged(text: str) -> str:
    for tag in TAGS:
        text = text.replace(tag, " ")
    return text
