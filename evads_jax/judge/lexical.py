"""The embedded judge: deterministic, no model, and hard to please by anything but content.

A candidate is scored in two steps.

1. Content. With rubric points, `judge.rubric`: slots found, missing and contradicted. Without, `judge.units`: content
   units of the reference. A trace is scored against the clues: by the rubric points that the clues state when all core
   points are among them; otherwise by the clues' content units, where contradicting a point that the clues do state
   leaves at most .25, and a core point 0.
2. Length. A text longer than `limit(reference)` tokens loses one step of the grid for every further time the limit
   goes into it. So text can be added to an answer without gain only, and pasting everything ends at zero.

Nothing in the candidate addresses this judge: scores, tags and instructions are words like any others.
"""

import functools
from collections.abc import Sequence

from evads_jax.judge.rubric import compile_rubric
from evads_jax.judge.text import Tokens, read
from evads_jax.judge.units import compile_units
from evads_jax.judge.verdict import GRID, JudgeRequest, Missing, Verdict

LIMIT_FACTOR = 2
LEAST_LIMIT = {"en": 24, "zh": 40}


def limit(reference_length: int, language: str) -> int:
    """The tokens (words or Chinese characters) that a candidate may have without loss.

    Twice the reference's, and at least 24 words or 40 characters, so that a short reference can be answered in a
    sentence.
    """
    return max(LIMIT_FACTOR * reference_length, LEAST_LIMIT[language])


def shorten(score: float, length: int, allowed: int) -> float:
    """A grid value lowered by one step for every time `allowed` is exceeded."""
    steps = max(-(-length // allowed) - 1, 0)
    return GRID[max(GRID.index(score) - steps, 0)]


class LexicalJudge:
    """The judge `lexical`.

    Args:
      language: "zh" or "en": the unit of the length limit. The words themselves may be of either.
    """

    name = "lexical"

    def __init__(self, language: str):
        self.language = language

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict | Missing]:
        """Scores every request; missing only where there is nothing to compare with."""
        return [self._verdict(request) for request in requests]

    def _verdict(self, request: JudgeRequest) -> Verdict | Missing:
        reference = request.reference if request.aspect == "answer" else request.clues
        if not reference.strip():
            return Missing("no reference answer" if request.aspect == "answer" else "no reference clues")
        text = read(request.candidate)
        if not text.length:
            return Verdict(0.0, "empty")
        allowed = limit(_length(reference), self.language)
        excess = f"; {text.length} tokens, limit {allowed}" if text.length > allowed else ""
        if shorten(1.0, text.length, allowed) == 0.0:
            return Verdict(0.0, f"too long{excess}")
        score, reason = self._content(request, reference, text)
        return Verdict(shorten(score, text.length, allowed), reason + excess)

    def _content(self, request: JudgeRequest, reference: str, text: Tokens) -> tuple[float, str]:
        """The grid value of what a text says, whatever its length, and the reason."""
        matcher = compile_rubric(request.rubric, reference)
        findings = matcher.findings(text)
        core = {point.slot for point in request.rubric if point.core}
        if matcher.points and core <= {point.slot for point in matcher.points}:
            return findings.grade, findings.reason
        comparison = compile_units(reference, request.question).compare(request.candidate, text)
        if not findings.contradicted:
            return comparison.grade, comparison.reason
        most = 0.0 if core & set(findings.contradicted) else 0.25
        return min(comparison.grade, most), f"{comparison.reason}; {findings.reason}"


@functools.lru_cache(maxsize=1 << 14)
def _length(reference: str) -> int:
    return read(reference).length
