"""Scoring by rubric points: which slots of the script a text states, leaves out or contradicts.

A slot is *found* when one of its accepted wordings is stated, and *contradicted* when a rival wording is stated (also
beside an accepted one: two competing values are no answer) or when an accepted wording is denied. Of two wordings of
a slot that overlap, the longer one is meant («dark red» is not «red»).
"""

import dataclasses
import functools

from evads_jax.data.records import RubricPoint
from evads_jax.judge.text import Tokens, read, tokenise


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a text says about each slot.

    Attributes:
      found: slots that are stated and not contradicted.
      missing: slots about which nothing is said.
      contradicted: slots with a rival value or a denial.
      grade: the grid value, see `grade`.
    """

    found: tuple[str, ...]
    missing: tuple[str, ...]
    contradicted: tuple[str, ...]
    grade: float

    @property
    def reason(self) -> str:
        """One line for the verdict."""
        parts = (("found", self.found), ("missing", self.missing), ("contradicted", self.contradicted))
        return "; ".join(f"{name} {', '.join(slots)}" for name, slots in parts if slots)


class Matcher:
    """The wordings of a rubric, indexed by their first token.

    Args:
      points: the rubric.
    """

    def __init__(self, points: tuple[RubricPoint, ...]):
        self.points = points
        self._index: dict[str, list[tuple[tuple[str, ...], int, bool]]] = {}
        for number, point in enumerate(points):
            accepted = {tokenise(wording) for wording in point.accepted}
            rivals = {tokenise(wording) for wording in point.rivals} - accepted
            for wording, right in [(w, True) for w in accepted] + [(w, False) for w in rivals]:
                if wording:
                    self._index.setdefault(wording[0], []).append((wording, number, right))

    def _matches(self, text: Tokens) -> list[tuple[int, int, int, bool]]:
        """All occurrences as (start, end, point, right), without those that a longer wording explains."""
        tokens, found = text.tokens, []
        for start, token in enumerate(tokens):
            for wording, number, right in self._index.get(token, ()):
                if tokens[start : start + len(wording)] == wording:
                    found.append((start, start + len(wording), number, right))
        return [match for match in found if not any(_explains(other, match) for other in found)]

    def statements(self, text: Tokens) -> tuple[set[int], set[int]]:
        """The points that a text states rightly, and those it contradicts."""
        stated, contradicted = set(), set()
        for start, end, number, right in self._matches(text):
            denied = text.denied[start] or text.taken_back(end)
            if right and not denied:
                stated.add(number)
            elif right or not denied:
                contradicted.add(number)
        return stated, contradicted

    def rivals_stated(self, text: Tokens) -> set[tuple[int, tuple[str, ...]]]:
        """The rival wordings that a text states, each with its point."""
        return {
            (number, text.tokens[start:end])
            for start, end, number, right in self._matches(text)
            if not right and not text.denied[start] and not text.taken_back(end)
        }

    def findings(self, text: Tokens) -> Findings:
        """What the text says about every point."""
        stated, contradicted = self.statements(text)
        slots = [point.slot for point in self.points]
        return Findings(
            found=tuple(s for i, s in enumerate(slots) if i in stated and i not in contradicted),
            missing=tuple(s for i, s in enumerate(slots) if i not in stated and i not in contradicted),
            contradicted=tuple(s for i, s in enumerate(slots) if i in contradicted),
            grade=grade(self.points, stated, contradicted),
        )


def _explains(longer: tuple[int, int, int, bool], match: tuple[int, int, int, bool]) -> bool:
    """Whether `match` lies inside a longer match of its own slot, or is a rival inside one of another slot."""
    inside = longer[0] <= match[0] and match[1] <= longer[1] and longer[1] - longer[0] > match[1] - match[0]
    return inside and (longer[2] == match[2] or not match[3])


@functools.lru_cache(maxsize=1 << 14)
def compile_rubric(points: tuple[RubricPoint, ...], reference: str) -> Matcher:
    """The matcher of the points that the reference text states.

    Rivals that the reference itself states are no rivals: a comparison names both sides.

    Returns:
      A matcher, perhaps of no points.
    """
    text = read(reference)
    named = Matcher(points).rivals_stated(text)
    trimmed = tuple(
        dataclasses.replace(point, rivals=tuple(r for r in point.rivals if (number, tokenise(r)) not in named))
        for number, point in enumerate(points)
    )
    stated, _ = Matcher(trimmed).statements(text)
    kept = [point for number, point in enumerate(trimmed) if number in stated]
    return Matcher(tuple(kept))


def grade(points: tuple[RubricPoint, ...], stated: set[int], contradicted: set[int]) -> float:
    """The grid value of what was found.

    ====  ==========================================================================================
    1     every point found
    .75   every core point found, a detail missing: right but generic
    .5    not every core point, but at least one, and at least half of all points
    .25   every core point found but a detail contradicted; or a fragment: fewer than half of the points, or
          no core point but at least half of the details
    0     a core point contradicted, or less than a fragment
    ====  ==========================================================================================

    A contradicted detail never leaves more than .25. Where a rubric has no core points all points are core.
    """
    core = {i for i, point in enumerate(points) if point.core} or set(range(len(points)))
    details = set(range(len(points))) - core
    if contradicted & core:
        return 0.0
    right = stated - contradicted
    if core <= right:
        return 0.25 if contradicted else 1.0 if details <= right else 0.75
    if right & core:
        return 0.5 if 2 * len(right) >= len(points) and not contradicted else 0.25
    return 0.25 if details and 2 * len(right) >= len(details) and not contradicted else 0.0
