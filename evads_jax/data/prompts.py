"""What the policy is asked and how its completion is read: prompt formats, fitting, targets and parsing.

Four formats, one `render`:

- `sft_released`, `rl_released`: the released training prompts. Their constant parts are English whatever the language
  of the run, also for Chinese questions, because that is how they were released.
- `eval_released`: the released evaluation prompt as far as it is known: the speech as running text, a blank line, a
  sentence that asks to answer by watching the video within 50 words, the question; no overlay text. The exact
  sentence is not known; `EVAL_SENTENCE` is our wording, which also names the tags. It too is one English constant.
- `asr_ocr`: ours: category, duration, events with overlay text and speech, the question; instruction and the unit of
  «about 50» (words, 字) follow the language.

A prompt shows an example's `events` only: what `judge_events` holds never reaches the policy.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, get_args

from evads_jax.data.annotations import grammar
from evads_jax.data.annotations.grammar import CLOSING, EVENTS_TITLE, PromptText
from evads_jax.data.records import Example, Question
from evads_jax.errors import UserError

__all__ = [
    "FORMATS",
    "LANGUAGES",
    "TAGS",
    "Completion",
    "PromptText",
    "constants",
    "corpus",
    "fit",
    "fit_together",
    "parse_completion",
    "render",
    "target",
]

Format = Literal["sft_released", "rl_released", "eval_released", "asr_ocr"]
Language = Literal["zh", "en"]
FORMATS: tuple[str, ...] = get_args(Format)
LANGUAGES: tuple[str, ...] = get_args(Language)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")

EVAL_SENTENCE = (
    "\n\nAnswer the question by watching the video, in the form <think>your_thinking</think> "
    "<answer>your_answer</answer>, the answer within 50 words.\n"
)
ASR_OCR_CLOSING = {
    "en": (
        "Reason from what the video shows, writes and says, then answer in about 50 words, in this form:\n"
        "<think>your reasoning</think>\n<answer>your answer</answer>"
    ),
    "zh": (
        "请根据视频的画面、文字和语音推理，再用约50字作答，格式如下：\n"
        "<think>你的推理</think>\n<answer>你的答案</answer>"
    ),
}

_STRICT = re.compile(r"\s*<think>(.*)</think>\s*<answer>(.*)</answer>\s*", re.DOTALL)
_ANY_TAG = re.compile("|".join(TAGS))


def render(example: Example, format: str, language: str) -> PromptText:
    """The prompt of an example.

    Args:
      example: the example; only its `events`, never its `judge_events`, are shown.
      format: one of `FORMATS`.
      language: "zh" or "en"; changes `asr_ocr` only (see the module's docstring).

    Raises:
      UserError: unknown format or language.
    """
    if language not in LANGUAGES:
        raise UserError(f"unknown language {language!r}", "run.language", f"use one of {', '.join(LANGUAGES)}")
    question = example.question.question
    match format:
        case "sft_released":
            return grammar.sft_prompt(example.category, example.duration, example.events, question)
        case "rl_released":
            return grammar.rl_prompt(example.duration, (e for e in example.events if e.asr is not None), question)
        case "eval_released":
            return PromptText("", _speech(example), EVAL_SENTENCE, question, "")
        case "asr_ocr":
            parts = grammar.sft_prompt(example.category, example.duration, example.events, question)
            return dataclasses.replace(parts, closing=ASR_OCR_CLOSING[language])
    raise UserError(f"unknown prompt format {format!r}", "data.format_*", f"use one of {', '.join(FORMATS)}")


def _speech(example: Example) -> tuple[str, ...]:
    """The speech of each event, followed by what separates it from the next.

    The annotations cut speech at whole seconds, in the middle of Chinese words: Chinese goes on without a space.
    """
    spoken = [event.asr for event in example.events if event.asr]
    texts = []
    for i, text in enumerate(spoken):
        after = spoken[i + 1] if i + 1 < len(spoken) else ""
        texts.append(text + (" " if after and not (_cjk(text[-1]) and _cjk(after[0])) else ""))
    return tuple(texts)


def _cjk(character: str) -> bool:
    return "\u2e80" <= character <= "\u9fff" or "\uac00" <= character <= "\ud7af" or "\uff00" <= character <= "\uffef"


def fit(prompt: PromptText, budget: int, count: Callable[[str], int]) -> tuple[PromptText, int]:
    """Makes a prompt fit a budget of tokens by dropping whole event lines.

    The rule: lines are visited in an order every beginning of which is spread evenly over the video (the bit-reversed
    order of their index), and each is kept if it still fits; kept lines stay in time order. The head, the question and
    the closing are never touched. Lines are counted once each, so that the work grows with their number.

    Args:
      prompt: the prompt.
      budget: the most tokens that `prompt.prefix` and `prompt.suffix`, counted apart, may have; what the chat format
        adds around them (`chat.overhead`) is not part of it.
      count: the tokens of a text.

    Returns:
      The prompt that fits and how many lines it lost.

    Raises:
      UserError: it does not fit even without events.
    """
    (fitted,), dropped = fit_together([prompt], budget, count)
    return fitted, dropped


def fit_together(
    prompts: Sequence[PromptText], budget: int, count: Callable[[str], int]
) -> tuple[list[PromptText], int]:
    """`fit` for the prompts of one video, which lose the same lines: those that its longest question needs to lose.

    Raises:
      ValueError: the prompts differ before the question.
      UserError: the longest does not fit even without events.
    """
    first = prompts[0]
    if any((p.head, p.events, p.tail) != (first.head, first.events, first.tail) for p in prompts):
        raise ValueError("prompts fitted together must be equal before the question")
    room = budget - max(count(p.suffix) for p in prompts)
    events = first.events
    if (excess := count(first.prefix) - room) > 0:
        lengths = [count(event) for event in first.events]
        # Tokens of a whole may differ from the sum of its parts' by a few at the seams: the whole decides, and the
        # allowance shrinks by what it was over.
        allowance = room - count(first.head + first.tail)
        while excess > 0:
            if not events:
                raise UserError(
                    f"a prompt needs {budget + excess} tokens without any event, {budget} are there",
                    f"question «{first.question.strip()[:40]}»",
                    "raise data.prompt_tokens",
                )
            events = _spread(first.events, lengths, allowance)
            excess = count(first.head + "".join(events) + first.tail) - room
            allowance -= max(excess, 0)
    return [dataclasses.replace(p, events=events) for p in prompts], len(first.events) - len(events)


def _spread(events: tuple[str, ...], lengths: list[int], allowance: int) -> tuple[str, ...]:
    bits = max(len(events) - 1, 1).bit_length()
    order = sorted(range(len(events)), key=lambda i: int(format(i, f"0{bits}b")[::-1], 2))
    kept = []
    for i in order:
        if lengths[i] <= allowance:
            kept.append(i)
            allowance -= lengths[i]
    return tuple(events[i] for i in sorted(kept))


def target(question: Question) -> str:
    """The completion that SFT teaches: `<think>clues</think>`, newline, `<answer>answer</answer>`.

    Raises:
      Malformed: clues or answer hold one of the tags.
    """
    return grammar.format_target(question.clues, question.answer)


@dataclasses.dataclass(frozen=True)
class Completion:
    """A completion as it was understood.

    Attributes:
      trace: the reasoning, without tags; "" when there is none.
      answer: the answer, without tags; when the form is broken, the best guess at it.
      well_formed: whether it is exactly one non-empty `<think>…</think>` and then one non-empty `<answer>…</answer>`,
        with nothing but white space around and between.
    """

    trace: str
    answer: str
    well_formed: bool


def parse_completion(text: str) -> Completion:
    """Reads any text as a completion; never raises.

    A text of another form is not well formed and its answer is, in this order: what stands in the first
    `<answer>…</answer>`; what follows an `<answer>` that is not closed; nothing, when `<think>` is not closed; what
    follows `</think>`; the whole text.
    """
    match = _STRICT.fullmatch(text)
    if match and not _ANY_TAG.search(match[1]) and not _ANY_TAG.search(match[2]):
        trace, answer = match[1].strip(), match[2].strip()
        return Completion(trace, answer, bool(trace and answer))
    before, has_answer, after = text.partition("<answer>")
    if has_answer:
        return Completion(_untagged(before), _untagged(after.partition("</answer>")[0]), False)
    trace, closed, rest = text.partition("</think>")
    if closed or "<think>" in text:
        return Completion(_untagged(trace), _untagged(rest), False)
    return Completion("", _untagged(text), False)


def _untagged(text: str) -> str:
    return _ANY_TAG.sub(" ", text).strip()


def constants() -> tuple[str, ...]:
    """The texts that every prompt repeats; a tokenizer trained for these formats can make each a single piece."""
    lines = ("Time ", "s: OCR Text: [", '] ; ASR Text: "', 's: ASR Text: "', 's: Audio Speech: "', '"\n', "]\n", " | ")
    heads = ("Category: ", "\nDuration: ", "Voiceover: Duration: ", "s\n\n" + EVENTS_TITLE, grammar.RL_QUESTION, "\n\n")
    closings = (CLOSING, EVAL_SENTENCE, *ASR_OCR_CLOSING.values())
    chat = ("user\n", "assistant\n", " seconds>")
    return (
        *chat,
        *lines,
        *heads,
        *(piece for closing in closings for piece in _ANY_TAG.split(closing) if len(piece) > 1),
    )


def corpus(examples: Iterable[Example]) -> list[str]:
    """The texts that a tokenizer for these examples is trained on, each as often as a reader meets it.

    Overlays, speech and category once per video; questions, answers and clues each time. Constant texts are left
    out: see `constants`.
    """
    texts: list[str] = []
    seen: set[str] = set()
    for example in examples:
        q = example.question
        texts += [q.question, q.answer, q.clues]
        if example.video not in seen:
            seen.add(example.video)
            texts += [example.category or ""]
            texts += [text for event in example.events for text in (*event.ocr, event.asr or "")]
    return [text for text in texts if text]
