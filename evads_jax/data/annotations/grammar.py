r"""The text grammar of the released E-VAds annotations: typed fields → text and back, byte for byte.

The annotations keep a video's category, length and time-aligned events as text inside the prompt. This module is the
only place that knows how that text is written:

    SFT    <video>Category: C\nDuration: Ns\n\n[Time-aligned Events]:\nLINES\nQUESTION\n\nCLOSING
    RL     <video>Voiceover: Duration: Ns\n\n[Time-aligned Events]:\nLINES\n\n Question: QUESTION\nCLOSING
    meta   Category: C\nDuration: Ns\n\n[Time-aligned Events]:\nLINES
    LINE   `Time As: ` or `Time A-Bs: `, then `OCR Text: [a | b]`, ` ; `, `ASR Text: "…"` (either or both);
           in RL prompts `Audio Speech: "…"` alone.

Overlay texts hold anything, brackets, quotes and bars included. What makes the grammar unambiguous all the same: speech
holds no `"`, so the last `"…"` of a line is the speech and the last `]` before it closes the overlays; and items are
cut at ` | ` only, so that cutting and joining are inverse. Every parser formats what it has read and compares: text
that the typed fields do not give back is `Malformed`, never silently changed.
"""

import dataclasses
import re
from collections.abc import Iterable
from typing import Literal

from evads_jax.data.records import Event

VIDEO = "<video>"
CLOSING = (
    "You are permitted to gather any relevant clues, think step by step, to answer this question. Output your thought "
    "process (no length limit) and the final answer (using approximately 50 words; longer answers will be truncated) "
    "in the following format\n<think>your_thinking</think> <answer>your_answer_within_50_words</answer>"
)
EVENTS_TITLE = "[Time-aligned Events]:\n"
RL_LEAD, RL_QUESTION = "Voiceover: ", " Question: "

LineKind = Literal["full", "speech"]  # "full": OCR and ASR, as in SFT prompts and meta_info; "speech": RL prompts

_LINE = re.compile(r"Time (\d+)(?:-(\d+))?s: (.*)", re.ASCII)
_FULL = re.compile(r'(?:OCR Text: \[(?P<ocr>.*)\])?(?: ; )?(?:ASR Text: "(?P<asr>[^"]*)")?')
_SPEECH = re.compile(r'Audio Speech: "(?P<asr>[^"]*)"')
_TAG = re.compile(r"</?(?:think|answer)>")
_TARGET = re.compile(r"<think>(.*)</think>\n<answer>(.*)</answer>", re.DOTALL)
_HEAD = re.compile(r"(?:Category: (?P<category>.*)\n)?(?:Duration: (?P<duration>\d+)s)?", re.ASCII)


class Malformed(ValueError):
    """A text that the grammar does not give; the message says why in a few words."""


@dataclasses.dataclass(frozen=True)
class PromptText:
    """A prompt in its parts; the parts in order, nothing between them, are the prompt.

    Attributes:
      head: what stands before the events (category, duration, a title).
      events: one text per event, its line end or separator included; what `prompts.fit` may drop.
      tail: what stands between the events and the question; constant of the format.
      question: the question with its own lead-in and line ends.
      closing: the instruction after the question; constant of the format.
    """

    head: str
    events: tuple[str, ...]
    tail: str
    question: str
    closing: str

    @property
    def prefix(self) -> str:
        """Everything before the question: the same for all questions of one video."""
        return self.head + "".join(self.events) + self.tail

    @property
    def suffix(self) -> str:
        """The question and what follows it."""
        return self.question + self.closing

    @property
    def text(self) -> str:
        """The whole prompt."""
        return self.prefix + self.suffix


@dataclasses.dataclass(frozen=True)
class ParsedText:
    """The typed fields of a prompt or a `meta_info`; None or "" for what its form does not carry."""

    category: str | None
    duration: int | None
    events: tuple[Event, ...]
    question: str = ""


def format_line(event: Event, kind: LineKind = "full") -> str:
    """One event as a line, without its line end.

    Args:
      event: the event; a "speech" line writes its speech only.
      kind: "full" for SFT prompts and `meta_info`, "speech" for RL prompts.
    """
    span = f"Time {event.start}s: " if event.start == event.end else f"Time {event.start}-{event.end}s: "
    if kind == "speech":
        return f'{span}Audio Speech: "{event.asr or ""}"'
    parts = []
    if event.ocr:
        parts.append(f"OCR Text: [{' | '.join(event.ocr)}]")
    if event.asr is not None:
        parts.append(f'ASR Text: "{event.asr}"')
    return span + " ; ".join(parts)


def parse_line(line: str, kind: LineKind = "full") -> Event:
    """The inverse of `format_line`.

    Raises:
      Malformed: the line is not one that `format_line` writes.
    """
    if not (match := _LINE.fullmatch(line)):
        raise Malformed(f"event line does not start with «Time As:» or «Time A-Bs:»: {_short(line)}")
    start, end = int(match[1]), int(match[2] or match[1])
    body = (_FULL if kind == "full" else _SPEECH).fullmatch(match[3])
    if body is None:
        raise Malformed(f"event is neither OCR Text nor ASR Text: {_short(line)}")
    fields = body.groupdict()
    ocr = fields.get("ocr")
    event = Event(start, end, () if ocr is None else tuple(ocr.split(" | ")), fields["asr"])
    if start > end or (not event.ocr and event.asr is None) or format_line(event, kind) != line:
        raise Malformed(f"event line is not written as the grammar writes it: {_short(line)}")
    return event


def parse_lines(text: str, kind: LineKind = "full") -> tuple[Event, ...]:
    """The events of a block of lines; an empty text has none."""
    return tuple(parse_line(line, kind) for line in text.split("\n")) if text else ()


def header(category: str | None, duration: int | None) -> str:
    """The `Category:` and `Duration:` lines and the events' title; an unknown field leaves its line out."""
    lines = [f"Category: {category}\n"] if category is not None else []
    return "".join([*lines, _duration(duration), "\n\n" if lines or duration is not None else "", EVENTS_TITLE])


def sft_prompt(category: str | None, duration: int | None, events: Iterable[Event], question: str) -> PromptText:
    """The released SFT prompt, without the `<video>` mark: events with OCR and ASR."""
    lines = tuple(format_line(event) + "\n" for event in events)
    return PromptText(header(category, duration), lines, "", question + "\n\n", CLOSING)


def rl_prompt(duration: int | None, events: Iterable[Event], question: str) -> PromptText:
    """The released RL prompt, without the `<video>` mark: speech only, no category."""
    lines = tuple(format_line(event, "speech") + "\n" for event in events)
    head = RL_LEAD + _duration(duration) + "\n\n" + EVENTS_TITLE
    return PromptText(head, lines, "\n", RL_QUESTION + question + "\n", CLOSING)


def format_meta(category: str | None, duration: int | None, events: Iterable[Event]) -> str:
    """The judge's `meta_info`."""
    return header(category, duration) + "\n".join(map(format_line, events))


def parse_sft_prompt(text: str) -> ParsedText:
    """The fields of an SFT prompt as it stands in the parquet, `<video>` mark included.

    Raises:
      Malformed: the prompt is not one that `VIDEO + sft_prompt(…).text` gives.
    """
    body = _between(text, VIDEO, "\n\n" + CLOSING)
    head, rest = _cut(body, EVENTS_TITLE, "no [Time-aligned Events] title")
    lines, _, question = rest.rpartition("\n")
    category, duration = _parse_head(head)
    parsed = ParsedText(category, duration, parse_lines(lines), question)
    _same(text, VIDEO + sft_prompt(category, duration, parsed.events, question).text)
    return parsed


def parse_rl_prompt(text: str) -> ParsedText:
    """The fields of an RL prompt as it stands in the parquet; its events hold speech only.

    Raises:
      Malformed: the prompt is not one that `VIDEO + rl_prompt(…).text` gives.
    """
    body = _between(text, VIDEO + RL_LEAD, "\n" + CLOSING)
    head, rest = _cut(body, EVENTS_TITLE, "no [Time-aligned Events] title")
    lines, question = _cut(rest, "\n" + RL_QUESTION, "no « Question: » after the events")
    _, duration = _parse_head(head)
    parsed = ParsedText(None, duration, parse_lines(lines.removesuffix("\n"), "speech"), question)
    _same(text, VIDEO + rl_prompt(duration, parsed.events, question).text)
    return parsed


def parse_meta(text: str) -> ParsedText:
    """The fields of a `meta_info`.

    Raises:
      Malformed: the text is not one that `format_meta` gives.
    """
    head, lines = _cut(text, EVENTS_TITLE, "no [Time-aligned Events] title")
    category, duration = _parse_head(head)
    parsed = ParsedText(category, duration, parse_lines(lines))
    _same(text, format_meta(category, duration, parsed.events))
    return parsed


def format_target(clues: str, answer: str) -> str:
    """The SFT target: the clues as the trace, then the answer.

    Raises:
      Malformed: either text holds one of the tags itself.
    """
    check_untagged(clues, answer)
    return f"<think>{clues}</think>\n<answer>{answer}</answer>"


def parse_target(text: str) -> tuple[str, str]:
    """Clues and answer of an SFT target.

    Raises:
      Malformed: the text is not one that `format_target` gives.
    """
    if not (match := _TARGET.fullmatch(text)):
        raise Malformed("target is not <think>…</think>, newline, <answer>…</answer>")
    check_untagged(match[1], match[2])
    return match[1], match[2]


def check_untagged(*texts: str) -> None:
    """Refuses clues or answers that hold a tag: no target could keep them apart.

    Raises:
      Malformed: one of the texts does.
    """
    if any(_TAG.search(text) for text in texts):
        raise Malformed("clues or answer hold a <think> or <answer> tag")


def _duration(duration: int | None) -> str:
    return "" if duration is None else f"Duration: {duration}s"


def _parse_head(head: str) -> tuple[str | None, int | None]:
    match = _HEAD.fullmatch(head.removesuffix("\n\n"))
    if match is None:
        raise Malformed(f"head is not «Category: …», «Duration: Ns»: {_short(head)}")
    return match["category"], None if match["duration"] is None else int(match["duration"])


def _between(text: str, start: str, end: str) -> str:
    if not text.startswith(start):
        raise Malformed(f"prompt does not start with {start!r}: {_short(text)}")
    if not text.endswith(end) or len(text) < len(start) + len(end):
        raise Malformed("prompt does not end with the released instruction")
    return text[len(start) : len(text) - len(end)]


def _cut(text: str, mark: str, otherwise: str) -> tuple[str, str]:
    before, found, after = text.partition(mark)
    if not found:
        raise Malformed(otherwise)
    return before, after


def _same(text: str, again: str) -> None:
    if text != again:
        at = next((i for i, (a, b) in enumerate(zip(text, again, strict=False)) if a != b), min(len(text), len(again)))
        raise Malformed(f"text is not written as the grammar writes it, from character {at} on: {_short(text[at:])}")


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
