"""Whether a quoted string stands in what a video writes and says.

Texts are compared without white space, punctuation, case and width (NFKC). A quote is *exact* when it is contained,
*fuzzy* when some part of the text is like it: with d the least number of edits (Levenshtein) between the quote and any
part of the text, and n the quote's length, `1 − d/n ≥ THRESHOLD`; one wrong character in five. Speech is cut at whole
seconds in the middle of words, so that a quote is looked for in the joined text of its seconds.
"""

import dataclasses
import unicodedata
from collections.abc import Sequence

from evads_jax.data.records import Event

THRESHOLD = 0.8
TOLERANCE = 1  # seconds by which a quote may stand beside its span: annotators and recognisers cut apart
SHORTEST = 2  # characters; less is found everywhere


@dataclasses.dataclass(frozen=True)
class Found:
    """How a quote stands in a text: `kind` is "exact", "fuzzy" or "none", `similarity` is 1 − d/n."""

    kind: str
    similarity: float


def normalise(text: str) -> str:
    """Letters and digits only, in one width and case."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def find(quote: str, text: str) -> Found:
    """Looks for a quote in a text; both are normalised here. A quote without letters is not found."""
    quote, text = normalise(quote), normalise(text)
    if not quote:
        return Found("none", 0.0)
    if quote in text:
        return Found("exact", 1.0)
    similarity = 1 - least_edits(quote, text) / len(quote)
    return Found("fuzzy" if similarity >= THRESHOLD else "none", similarity)


def least_edits(pattern: str, text: str) -> int:
    """The least edit distance between `pattern` and any part of `text`.

    Myers' bit-vector algorithm (J. ACM 46, 1999): one column of the dynamic programme per character of the text, held
    in the bits of two integers.
    """
    if not pattern:
        return 0
    size = len(pattern)
    mask, top = (1 << size) - 1, 1 << (size - 1)
    places: dict[str, int] = {}
    for i, character in enumerate(pattern):
        places[character] = places.get(character, 0) | (1 << i)
    up, down, score = mask, 0, size
    least = size
    for character in text:
        equal = places.get(character, 0)
        across = equal | down
        equal |= ((equal & up) + up) ^ up
        right, left = down | ~(equal | up), up & equal
        if right & top:
            score += 1
        elif left & top:
            score -= 1
        right, left = (right << 1) & mask, (left << 1) & mask
        up, down = (left | ~(across | right)) & mask, right & across
        least = min(least, score)
    return least


def spoken(events: Sequence[Event], start: float, end: float) -> str:
    """The speech of a span of seconds, `TOLERANCE` on each side included, joined."""
    return "".join(event.asr or "" for event in _near(events, start, end))


def written(events: Sequence[Event], start: float, end: float) -> list[str]:
    """The overlay texts of a span of seconds, `TOLERANCE` on each side included."""
    return [text for event in _near(events, start, end) for text in event.ocr]


def find_in_events(quote: str, modality: str, events: Sequence[Event], start: float, end: float) -> Found:
    """Looks for a quote in what is written ("ocr") or said ("asr") at its time."""
    if modality == "asr":
        return find(quote, spoken(events, start, end))
    texts = written(events, start, end)
    # An overlay may be split into items: the joined text finds what spans them.
    return max((find(quote, text) for text in [*texts, "".join(texts)]), key=lambda found: found.similarity)


def _near(events: Sequence[Event], start: float, end: float) -> list[Event]:
    return [event for event in events if event.start <= end + TOLERANCE and start - TOLERANCE <= event.end]
