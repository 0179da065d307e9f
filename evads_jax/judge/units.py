"""Scoring without a rubric: content units of the reference in the candidate.

The units of a text are, in order of reading,

* for Chinese: the pairs of neighbouring characters in each run between punctuation, function characters and empty
  pairs such as 视频 (a run of one character is a unit by itself);
* for words of alphabetic scripts and numbers: the stem of each word that is no function word;

each marked by whether a negation covers it. Units that already stand in the question are given, not answered: they
count on neither side, unless the reference has no others. Of the remaining units of reference and candidate, as sets,

    value = recall · √precision,   recall = shared / reference's,   precision = shared / candidate's

and the grid value is the highest whose threshold in `THRESHOLDS` the value reaches, but at most .25 where precision is
below `LEAST_PRECISION`: then a third of what is said is not in the reference, which the rubric calls fabricated. Sets,
so repeating earns nothing; precision, so pasting and listing earn nothing. Where reference and candidate differ in a
value of a closed class (colour, side, count, compliance) they contradict each other, see `closed_values`.
"""

import dataclasses
import functools
import itertools
import re

from evads_jax.judge import words
from evads_jax.judge.text import BREAK, SPACE, Tokens, is_cjk, normalise, read

THRESHOLDS = ((0.8, 1.0), (0.55, 0.75), (0.33, 0.5), (0.12, 0.25))
LEAST_PRECISION = 0.65

Unit = tuple[str, bool]

_COLOURS_ZH = re.compile(
    r"(粉红|玫红|酒红|米白|奶白|米黄|藏蓝|天蓝|草绿|墨绿|咖啡|[红橙黄绿青蓝紫黑白灰棕褐粉金银米驼杏])色|(?<![a-z])"
    r"(red|orange|yellow|green|cyan|blue|purple|violet|black|white|gr[ae]y|brown|pink|golden|silver|beige|navy)(?![a-z])"
)
_SIDES = re.compile(r"([左右])(?!右|左)[侧边手脚上下方半面]|(?<![a-z])(left|right) +(?:side|hand|half)")
_COUNTS = re.compile(
    r"(\d+(?:\.\d+)?|[一二三四五六七八九十两半])\s*(个|件|条|款|种|双|瓶|盒|片|层|圈|次|步|位|人|元|块|%|斤|岁)"
)
_COMPLIANCE = re.compile(r"[不未没无]合规|[不未没无]违规|违规|合规|non +compliant|not +compliant|compliant")


def units(text: Tokens) -> list[Unit]:
    """The content units of a text, with repetitions; see the module's rule."""
    found: list[Unit] = []
    run: list[int] = []

    def close() -> None:
        if len(run) == 1:
            found.append((text.tokens[run[0]], text.denied[run[0]]))
        for a, b in itertools.pairwise(run):
            found.append((text.tokens[a] + text.tokens[b], text.denied[a]))
        run.clear()

    empty = 0  # characters of an empty pair still to be skipped
    for i, token in enumerate(text.tokens):
        if is_cjk(token):
            empty = 2 if "".join(text.tokens[i : i + 2]) in words.EMPTY_PAIRS else max(empty - 1, 0)
            if not empty and token not in words.FUNCTION_CHARACTERS:
                run.append(i)
                continue
        close()
        if token not in (BREAK, SPACE) and not is_cjk(token) and token not in words.FUNCTION_WORDS:
            found.append((token, text.denied[i]))
    close()
    return found


def closed_values(text: str) -> dict[str, frozenset[str]]:
    """The values of closed classes that a text (`Tokens.plain`) names: slot → values.

    Slots are `colour`, `side`, `compliance` and, for each measure word, `count …`. In such a slot two values exclude
    each other.
    """
    values: dict[str, set[str]] = {}
    for match in _COLOURS_ZH.finditer(text):
        values.setdefault("colour", set()).add(match.group(1) or match.group(2).replace("gray", "grey"))
    for match in _SIDES.finditer(text):
        values.setdefault("side", set()).add(match.group(1) or match.group(2))
    for match in _COUNTS.finditer(text):
        values.setdefault(f"count {match.group(2)}", set()).add(words.NUMERALS.get(match.group(1), match.group(1)))
    for match in _COMPLIANCE.finditer(text):
        denied = match.group()[0] in "不未没无n"
        breach = denied != match.group().endswith("违规")
        values.setdefault("compliance", set()).add("breach" if breach else "compliant")
    return {slot: frozenset(found) for slot, found in values.items()}


@dataclasses.dataclass(frozen=True)
class UnitScore:
    """How a candidate compares with a reference.

    Attributes:
      recall: share of the reference's units that the candidate has.
      precision: share of the candidate's units that the reference has.
      competing: closed slots in which the candidate names the reference's only value and another one; and compliance,
        the conclusion of its answer, when the candidate's verdict is another one.
      contradicted: closed slots in which the candidate names only another value, or one too many of several.
    """

    recall: float
    precision: float
    competing: tuple[str, ...] = ()
    contradicted: tuple[str, ...] = ()

    @property
    def grade(self) -> float:
        """The grid value: thresholds on `recall · √precision`; at most .25 fabricated or contradicted, 0 competing."""
        if self.competing:
            return 0.0
        value = self.recall * self.precision**0.5
        grade = next((grade for threshold, grade in THRESHOLDS if value >= threshold), 0.0)
        return min(grade, 0.25) if self.contradicted or self.precision < LEAST_PRECISION else grade

    @property
    def reason(self) -> str:
        """One line for the verdict."""
        parts = [f"recall {self.recall:.2f}", f"precision {self.precision:.2f}"]
        parts += [f"competing {slot}" for slot in self.competing]
        parts += [f"contradicted {slot}" for slot in self.contradicted]
        return "; ".join(parts)


class UnitReference:
    """A reference, prepared for comparison.

    Args:
      reference: the reference text.
      question: the question it answers.
    """

    def __init__(self, reference: str, question: str):
        asked, told = read(question), read(reference)
        given, wanted = frozenset(units(asked)), frozenset(units(told))
        # A reference made of the question's words («which of A and B?») or of function words is compared as it is.
        self._given = given if wanted - given else frozenset()
        self._wanted = wanted - self._given
        self._plain = normalise(reference).strip()
        self._values = closed_values(told.plain)
        question_values = closed_values(asked.plain)
        # Values named in the question are not the candidate's fault, unless the question is a choice between them.
        self._excused = {
            slot: values for slot, values in question_values.items() if not values & self._values.get(slot, frozenset())
        }

    def compare(self, candidate: str, text: Tokens) -> UnitScore:
        """Compares a candidate, given as text and tokenised."""
        if not self._wanted:
            same = float(normalise(candidate).strip() == self._plain)
            return UnitScore(same, same)
        said = frozenset(units(text)) - self._given
        shared = len(said & self._wanted)
        competing, contradicted = self._conflicts(text)
        return UnitScore(shared / len(self._wanted), shared / max(len(said), 1), competing, contradicted)

    def _conflicts(self, text: Tokens) -> tuple[tuple[str, ...], tuple[str, ...]]:
        competing: list[str] = []
        contradicted: list[str] = []
        if self._values:
            named = closed_values(text.plain)
            for slot, right in self._values.items():
                said = named.get(slot, frozenset())
                if said - right - self._excused.get(slot, frozenset()):
                    fatal = len(right) == 1 and (slot == "compliance" or said & right)
                    (competing if fatal else contradicted).append(slot)
        return tuple(competing), tuple(contradicted)


@functools.lru_cache(maxsize=1 << 14)
def compile_units(reference: str, question: str) -> UnitReference:
    """`UnitReference`, kept for the next candidate of the same question."""
    return UnitReference(reference, question)
