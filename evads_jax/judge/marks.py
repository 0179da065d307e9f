"""Where a text names values that a question asks about, and whether they are the script's.

What a judge in training is taught beside the verdict: a verdict is one number for a whole candidate, these are one for
each thing that it states.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from evads_jax.data.render import vocabulary as words
from evads_jax.judge.candidates import Ad

Named = Mapping[str, frozenset[tuple[str, str]]]  # a wording or a piece of evidence → the (slot, value) that it names


class NamedValue(NamedTuple):
    """A value that a text names.

    Attributes:
      end: number of characters up to the end of its name.
      right: whether the script has it.
      script: what the script's value of its slot is called.
    """

    end: int
    right: bool
    script: str


def named_values(ad: Ad, task: str, text: str) -> Iterator[NamedValue]:
    """The values of the slots of a question's rubric that a text names by any wording or evidence, in order.

    The longest of overlapping names is meant. Of two points with one slot, either's value is right, and `script` is the
    first's: which of the two a text speaks of is not told from the name.

    Args:
      ad: the ad that is asked about.
      task: of the question.
      text: any text.
    """
    right = {(words.family(p.slot), ad.script.values[p.slot].key) for p in ad.questions[task].rubric}
    pattern, named = _names(ad.script.language, tuple(sorted({family for family, _ in right})))
    for match in pattern.finditer(text):
        meant = named[match[0].casefold()]
        families = {family for family, _ in meant}
        script = next(ad.script.values[p.slot] for p in ad.questions[task].rubric if words.family(p.slot) in families)
        yield NamedValue(match.end(), not right.isdisjoint(meant), script.name(ad.script.language))


@functools.cache
def _names(language: str, families: tuple[str, ...]) -> tuple[re.Pattern[str], Named]:
    """What finds a name of any value of some slots, and which values each name stands for."""
    named: dict[str, set[tuple[str, str]]] = {}
    for family in families:
        for value in words.SLOTS[family]:
            for name in filter(None, (*value.wordings[language], value.evidence[language])):
                named.setdefault(name.casefold(), set()).add((family, value.key))
    longest_first = "|".join(re.escape(name) for name in sorted(named, key=len, reverse=True))
    bounded = rf"(?<![a-z0-9])(?:{longest_first})(?![a-z0-9])" if language == "en" else longest_first
    return re.compile(bounded, re.IGNORECASE), {name: frozenset(values) for name, values in named.items()}
