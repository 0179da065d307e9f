"""What is asked of a judge and what it may say: the one interface of training and evaluation."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, Protocol

from evads_jax.data.records import Event, RubricPoint

GRID = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass(frozen=True)
class JudgeRequest:
    """One part of one candidate, to be scored against a reference.

    Attributes:
      question: the question's text.
      events: the evidence the judge may consult (`Example.evidence`).
      clues: the reference reasoning.
      reference: the reference answer.
      candidate: the text to be scored: an answer or a reasoning trace.
      aspect: which of the two `candidate` is.
      rubric: the script's points for this question; empty for real annotations.
      task: task label when known.
      video: the video's name, for the record only.
      language: "zh" or "en".
    """

    question: str
    events: tuple[Event, ...]
    clues: str
    reference: str
    candidate: str
    aspect: Literal["answer", "trace"]
    rubric: tuple[RubricPoint, ...] = ()
    task: str | None = None
    video: str = ""
    language: str = "en"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A score on `GRID`, its reason, the reply as the judge gave it, and its cost in the price table's currency."""

    score: float
    reason: str = ""
    raw: str | None = None
    cost: float = 0.0

    def __post_init__(self):
        if self.score not in GRID:
            raise ValueError(f"a verdict's score must lie on {GRID}, got {self.score!r}")


@dataclasses.dataclass(frozen=True)
class Missing:
    """No verdict could be had; never to be read as a score of zero."""

    reason: str
    raw: str | None = None
    cost: float = 0.0


class Judge(Protocol):
    """Scores requests; the answer has the order and length of the requests."""

    name: str

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict | Missing]:
        """Scores every request."""
        ...
