"""How many of the script's facts an answer states, and how many it states wrongly.

A measure beside the judge's score that no stage is trained on. It reads answers with a matcher of its own, so that a
fault of the lexical judge's does not hide here too: wordings become one regular expression, the longest first, scanned
from left to right; what a negator precedes within the clause is not stated.

Of a question count the slots of its rubric that its reference states (*expected*), how many of them the answer states
(*right*), and how many values the answer states for those slots that are not the script's (*wrong*). Reported are
`Σ right / Σ expected` and `Σ wrong / Σ (right + wrong)`: listing values raises both.
"""

import dataclasses
import functools
import re
import unicodedata

from evads_jax.data.records import RubricPoint

_CLAUSE_START = re.compile(r"[.,;:!?()。、]|\bbut\b|而是|但是?")
_NEGATED = re.compile(
    r"(?:\b(?:not|no|never|without|neither|nor|cannot|instead of|rather than)|n't)(?:\s+[\w'-]+){0,3}\s+$"
    r"|(?:不是|并非|而非|没有|不含).{0,2}$|[不非无没未]$"
)


@dataclasses.dataclass(frozen=True)
class FactCount:
    """What one answer says about the facts its reference states.

    Attributes:
      expected: slots that the reference states.
      right: those of them that the answer states.
      wrong: values that the answer states for the rubric's slots and that are not the script's.
    """

    expected: int
    right: int
    wrong: int


def count_facts(rubric: tuple[RubricPoint, ...], reference: str, answer: str) -> FactCount:
    """Reads an answer against the rubric of its question.

    Args:
      rubric: the question's points; none gives zero counts.
      reference: the reference answer.
      answer: the answer's text, without tags.
    """
    expected, conceded = _stated(rubric, reference)
    right, wrong = _stated(rubric, answer)
    return FactCount(len(expected), len(right & expected), len(wrong - conceded))


@functools.lru_cache(maxsize=1 << 14)
def _stated(rubric: tuple[RubricPoint, ...], text: str) -> tuple[frozenset[str], frozenset[tuple[str, str]]]:
    """Slots whose value a text states, and the (slot, wording) of other values that it states."""
    pattern, owners = _compile(rubric)
    right, wrong = set(), set()
    if pattern is not None:
        text = _plain(text)
        for match in pattern.finditer(text):
            if _denied(text[: match.start()]):
                continue
            for slot, wording, accepted in owners[match.lastgroup or ""]:
                if accepted:
                    right.add(slot)
                else:
                    wrong.add((slot, wording))
    return frozenset(right), frozenset(wrong)


@functools.lru_cache(maxsize=1 << 14)
def _compile(
    rubric: tuple[RubricPoint, ...],
) -> tuple[re.Pattern[str] | None, dict[str, list[tuple[str, str, bool]]]]:
    """One pattern for all wordings; each of its groups is one wording, owned by one or more slots."""
    by_wording: dict[str, list[tuple[str, str, bool]]] = {}
    for point in rubric:
        accepted = [_plain(wording) for wording in point.accepted]
        for wording in accepted:
            by_wording.setdefault(wording, []).append((point.slot, wording, True))
        for rival in map(_plain, point.rivals):
            if rival not in accepted:
                by_wording.setdefault(rival, []).append((point.slot, rival, False))
    wordings = sorted((w for w in by_wording if w), key=lambda w: (-len(w), w))
    if not wordings:
        return None, {}
    pattern = "|".join(f"(?P<g{i}>{_wording_pattern(w)})" for i, w in enumerate(wordings))
    return re.compile(pattern), {f"g{i}": by_wording[w] for i, w in enumerate(wordings)}


def _wording_pattern(wording: str) -> str:
    pattern = re.escape(wording).replace(r"\ ", r"\s+")
    before = r"(?<![a-z0-9])" if re.match("[a-z0-9]", wording) else ""
    after = r"(?:e?s)?(?![a-z0-9])" if re.search("[a-z]$", wording) else r"(?!\d)" if wording[-1].isdigit() else ""
    return before + pattern + after


def _plain(text: str) -> str:
    """One spelling of a text: compatibility forms, case, hyphens and runs of white space."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return " ".join(re.sub(r"[\u200b-\u200f\u2060\ufeff]", "", text).replace("-", " ").split())


def _denied(before: str) -> bool:
    return _NEGATED.search(_CLAUSE_START.split(before)[-1]) is not None
