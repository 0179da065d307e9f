"""A_den and O_den: words a second, heard and read, from time-aligned events.

`A_den = |ASR words| / duration`, `O_den = |OCR words| / duration`. How often an overlay counts that stays on screen is
open in the paper:

* `per_second` (default): in every second that shows it: what a viewer faces at any moment, and the closest to a
  density in time;
* `per_run`: once for a run of seconds that show the same list of overlays;
* `distinct`: once a video for each distinct overlay text: what there is to learn.

Speech is never repeated: an event's words count once, over however many seconds the event lasts.
"""

import dataclasses
from collections.abc import Callable, Sequence

from evads_jax.data.records import Event
from evads_jax.density.words import DEFAULT_RULE, WORD_RULES
from evads_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TextSettings:
    """The rules of A_den and O_den.

    Attributes:
        words: a name of `WORD_RULES`.
        ocr_counting: a name of `OCR_COUNTING`.

    Raises:
        UserError: a name that is not known.
    """

    words: str = DEFAULT_RULE
    ocr_counting: str = "per_second"

    def __post_init__(self) -> None:
        for name, known in (("words", WORD_RULES), ("ocr_counting", OCR_COUNTING)):
            if getattr(self, name) not in known:
                raise UserError(
                    f"unknown rule {getattr(self, name)!r}", f"config.text.{name}", "one of " + ", ".join(known)
                )


@dataclasses.dataclass(frozen=True)
class TextDensity:
    """Words a second of one channel of one video.

    Attributes:
        value: words a second; None where it could not be measured.
        missing: why there is no value; else None.
        curve: words that fall into each second.
    """

    value: float | None
    missing: str | None = None
    curve: tuple[float, ...] = ()


def speech_density(events: Sequence[Event], duration: float, settings: TextSettings) -> TextDensity:
    """A_den of one video: the words of each event once, spread evenly over the event's seconds in the curve."""
    spans = [(e.start, e.end, (e.asr,)) for e in events if e.asr]
    return _density([(s, e, _count(texts, settings)) for s, e, texts in spans], duration)


def overlay_density(events: Sequence[Event], duration: float, settings: TextSettings) -> TextDensity:
    """O_den of one video under `settings.ocr_counting`.

    The curve places a repeated overlay where the counting rule counts it: in every second, in the first second of
    its run, or in the first second in which the text occurs.
    """
    spans = [(e.start, e.end, e.ocr) for e in events if e.ocr]
    counted = OCR_COUNTING[settings.ocr_counting](spans)
    return _density([(s, e, _count(texts, settings)) for s, e, texts in counted], duration)


Span = tuple[int, int, tuple[str, ...]]


def _every_second(spans: list[Span]) -> list[Span]:
    return [(second, second, texts) for start, end, texts in spans for second in range(start, end + 1)]


def _every_run(spans: list[Span]) -> list[Span]:
    runs: list[Span] = []
    last_end, last_texts = -2, ()
    for start, end, texts in spans:
        if not (texts == last_texts and start <= last_end + 1):
            runs.append((start, start, texts))
        last_end, last_texts = end, texts  # type: ignore[assignment]
    return runs


def _every_text(spans: list[Span]) -> list[Span]:
    first: dict[str, int] = {}
    for start, _, texts in spans:
        for text in texts:
            first.setdefault(text, start)
    return [(second, second, (text,)) for text, second in first.items()]


OCR_COUNTING: dict[str, Callable[[list[Span]], list[Span]]] = {
    "per_second": _every_second,
    "per_run": _every_run,
    "distinct": _every_text,
}


def _count(texts: Sequence[str], settings: TextSettings) -> int:
    return sum(map(WORD_RULES[settings.words], texts))


def _density(counts: list[tuple[int, int, int]], duration: float) -> TextDensity:
    if not duration > 0:
        return TextDensity(None, "zero_duration")
    curve = [0.0] * max(int(-(-duration // 1)), *(end + 1 for _, end, _ in counts), 1)
    for start, end, words in counts:
        for second in range(start, end + 1):
            curve[second] += words / (end + 1 - start)
    return TextDensity(sum(words for _, _, words in counts) / duration, curve=tuple(curve))
