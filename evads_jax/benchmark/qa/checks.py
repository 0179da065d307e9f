"""The checks that code makes on a draft: nothing here asks anybody.

Each returns the reason for a rejection, one of `REASONS`, or "".
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Sequence

from evads_jax.benchmark.qa import quotes
from evads_jax.benchmark.qa.draft import Draft, Evidence
from evads_jax.data.records import Event
from evads_jax.judge.text import BREAK, read
from evads_jax.judge.units import units

MALFORMED, WITHDRAWN, NOT_CHOSEN = "malformed reply", "withdrawn", "not chosen"
BLIND, UNSUPPORTED = "answerable without the video", "not supported by its evidence"
NO_EVIDENCE, SPAN, NO_QUOTE, NOT_FOUND = "no evidence", "span outside the video", "no quote", "quote not found"
NO_FRAMES, MODALITY, ANSWER, QUESTION = "no frame time", "modality missing", "answer length", "question length"
LEAK, DUPLICATE = "answer in the question", "near-duplicate question"
REASONS = (
    *(MALFORMED, WITHDRAWN, NO_EVIDENCE, SPAN, NO_QUOTE, NOT_FOUND, NO_FRAMES, MODALITY, ANSWER, QUESTION, LEAK),
    *(BLIND, UNSUPPORTED, DUPLICATE, NOT_CHOSEN),
)

# How many different modalities a task's evidence must come from; CM is about two at once.
NEEDED_MODALITIES = {"BP": 1, "CM": 2, "ML": 1, "CI": 1, "RC": 1}
SHORTEST_ANSWER, SHORTEST_QUESTION, LONGEST_QUESTION = 1, 4, 120  # words, or characters of Chinese
LEAKED_SHARE = 0.8


@dataclasses.dataclass(frozen=True)
class Limits:
    """What may differ from run to run.

    Attributes:
      longest_answer: words, or characters of Chinese; the released answers have at most 88 characters.
      similarity: of two questions from which on they are near-duplicates, see `similarity`.
    """

    longest_answer: int = 100
    similarity: float = 0.8


def check(draft: Draft, events: Sequence[Event], duration: float, frame_times: Sequence[float], limits: Limits) -> str:
    """The first reason to reject a draft, or "".

    Args:
      draft: the draft.
      events: what is written and said in its video.
      duration: the video's length in seconds.
      frame_times: the seconds of the frames that its writer was shown; a visual claim needs one within its span.
      limits: the limits.
    """
    question, answer = read(draft.question).length, read(draft.answer).length
    if not SHORTEST_ANSWER <= answer <= limits.longest_answer:
        return ANSWER
    if not SHORTEST_QUESTION <= question <= LONGEST_QUESTION:
        return QUESTION
    if leaked(draft):
        return LEAK
    if not draft.ledger:
        return NO_EVIDENCE
    for entry in draft.ledger:
        if reason := _check_evidence(entry, events, duration, frame_times):
            return reason
    if len({entry.modality for entry in draft.ledger}) < NEEDED_MODALITIES[draft.task]:
        return MODALITY
    return ""


def leaked(draft: Draft) -> bool:
    """Whether the question says the answer: all of it in a row, or `LEAKED_SHARE` of its content units."""
    question, answer = quotes.normalise(draft.question), quotes.normalise(draft.answer)
    # A yes or no, and a choice that the question offers («A or B?»), may stand in it.
    if len(answer) > 3 and answer in question:
        return True
    said = set(units(read(draft.answer)))
    return len(said) > 2 and len(said & set(units(read(draft.question)))) / len(said) >= LEAKED_SHARE


def similarity(first: str, second: str) -> float:
    """Jaccard similarity of two questions' pairs of neighbouring tokens (words, or Chinese characters)."""
    a, b = _pairs(first), _pairs(second)
    return len(a & b) / len(a | b) if a | b else 1.0


def duplicates(question: str, others: Iterable[str], limits: Limits) -> bool:
    """Whether a question is a near-duplicate of one of the others."""
    return any(similarity(question, other) >= limits.similarity for other in others)


@functools.lru_cache(maxsize=1 << 16)  # every question is compared with all that were kept before it
def _pairs(text: str) -> frozenset[tuple[str, ...]]:
    tokens = [token for token in read(text).tokens if token != BREAK]
    return frozenset(itertools.pairwise(tokens)) or frozenset({tuple(tokens)})


def _check_evidence(entry: Evidence, events: Sequence[Event], duration: float, frame_times: Sequence[float]) -> str:
    if not 0 <= entry.start <= entry.end <= duration:
        return SPAN
    if entry.modality == "visual":
        inside = [time for time in entry.frames if entry.start - 0.5 <= time <= entry.end + 0.5]
        shown = any(abs(time - frame) <= 0.5 for time in inside for frame in frame_times)
        return "" if shown else NO_FRAMES
    if len(quotes.normalise(entry.quote)) < quotes.SHORTEST:
        return NO_QUOTE
    found = quotes.find_in_events(entry.quote, entry.modality, events, entry.start, entry.end)
    return NOT_FOUND if found.kind == "none" else ""
