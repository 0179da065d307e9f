r"""Reads a judge's reply: a score on the grid, or the reason why there is none.

What counts as a verdict, after reasoning blocks and echoes of the fenced candidate are cut away:

* a JSON object with a score field that begins a line, plain or in a code fence;
* a line «label: value» (`Answer: 0.75.`, `**Score**: 3/4`, `得分：75%`, `Final score is .5`), also with the value on
  the next line or a short explanation behind it;
* `\boxed{0.75}` or `<score>0.75</score>` on a line of its own;
* a reply that is nothing but a value.

A label in the middle of a sentence, a quoted line (`> …`) and a rubric («0.75: right but generic») are none. Whatever
has no verdict, two different ones, a value off the grid, or was cut off, is missing. A wrong reading costs more than a
second question, so that in doubt the reply is missing.
"""

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from evads_jax.judge.verdict import GRID, Missing, Verdict

LONGEST = 50_000  # characters; no judge that was asked for a few sentences writes more
_REASON_LENGTH = 400

SCORE_LABELS = ("score", "answer", "verdict", "rating", "grade", "得分", "评分", "分数", "打分", "答案", "分值", "结论")
ANSWER_LABELS = ("answer", "answer score", "score of the answer", "答案", "答案得分", "答案评分", "回答得分")
TRACE_LABELS = ("trace", "reasoning", "trace score", "reasoning score", "推理", "推理得分", "推理评分", "思路得分")
_REASONS = ("reason", "rationale", "explanation", "justification", "理由", "原因")

_THINK = r"think|thinking|thought|reasoning|analysis"
_THINK_END = re.compile(rf".*</(?:{_THINK})>", re.DOTALL | re.IGNORECASE)
_THINK_START = re.compile(rf"<(?:{_THINK})>", re.IGNORECASE)
_FENCE_LINE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*\w*[ \t]*$", re.MULTILINE)
_QUOTE_LINE = re.compile(r"^[ \t]*>.*$", re.MULTILINE)
_MARKUP = re.compile(r"[*`_]+|^[ \t]*#{1,6}[ \t]+|^[ \t]*[-•][ \t]+(?=[^\d.\s])|\$", re.MULTILINE)
_OBJECT = re.compile(r"^[ \t*`]*{", re.MULTILINE)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")

_NUMBER = r"[+\-−–]?(?:\d{1,9}(?:[.,]\d{1,9})?|[.,]\d{1,9}|(?:nan|inf(?:inity)?)\b)"
_VALUE = rf"(?P<top>{_NUMBER})(?:\s*%|\s*(?:/|out\s+of)\s*(?P<bottom>{_NUMBER}))?(?P<unit>\s*%)?"
_BARE = re.compile(rf"\s*(?P<value>{_VALUE})\s*(?:分|points?)?\s*[.。!！]?\s*", re.IGNORECASE)
_AFTER = re.compile(
    r"\s*(?:分|points?)?\s*(?:[.。!！]?\s*$|[,，;；:：.。(（]\s*(?=\D)|\s[-–—]+\s+|\s+(?:because|since|as|因为)\b)"
)
_OTHER = re.compile(rf"(?<![\w.,/])(?P<value>{_VALUE})(?![\w.,]*\d)(?P<word>\s*[^\W\d])?", re.IGNORECASE)
_MAY_GO_ON = re.compile(r"\s*\d+\s*[.,/]?\s*")
_LEAD = r"(?:(?:my|the|final|overall|total)[ \t]+|最终|最后|综合|总体|总|我的)*"
_MAX_OBJECTS = 64


def parse_reply(text: object, *, nonce: str | None = None, finished: bool | None = None) -> Verdict | Missing:
    """The verdict in a reply.

    Args:
      text: the reply; anything but a text is missing.
      nonce: the request's; what the reply echoes between the fences is cut away.
      finished: whether the judge is known to have come to its end. When False the reply is missing; when unknown, a
        bare integer at the very end is missing too, since it may be the beginning of `0.75` or `1/4`.
    """
    return parse_fields(text, {"score": SCORE_LABELS}, nonce=nonce, finished=finished)["score"]


def parse_joint(
    text: object, *, nonce: str | None = None, finished: bool | None = None
) -> dict[str, Verdict | Missing]:
    """The verdicts on `answer` and `trace` in a reply that gives both; see `parse_reply`."""
    return parse_fields(text, {"answer": ANSWER_LABELS, "trace": TRACE_LABELS}, nonce=nonce, finished=finished)


def parse_fields(
    text: object, labels: Mapping[str, Sequence[str]], *, nonce: str | None = None, finished: bool | None = None
) -> dict[str, Verdict | Missing]:
    """A verdict for each of several fields.

    Args:
      text: the reply.
      labels: field → the lower-case labels that announce it.
      nonce: as in `parse_reply`.
      finished: as in `parse_reply`.
    """
    if not isinstance(text, str) or not text.strip():
        return {name: Missing("empty reply", text if isinstance(text, str) else None) for name in labels}
    if len(text) > LONGEST:
        return {name: Missing(f"reply of {len(text)} characters", text[:LONGEST]) for name in labels}
    if finished is False:
        return {name: Missing("cut off", text) for name in labels}
    said = _spoken(_QUOTE_LINE.sub("", _cut_echo(text, nonce)))
    if said is None:
        return {name: Missing("cut off while reasoning", text) for name in labels}
    objects, rest = _objects(said)
    lines = _plain(rest)
    result: dict[str, Verdict | Missing] = {}
    for name, words in labels.items():
        values = [v for o in objects for v in _in_object(o, words)]
        values += _labelled(lines, words, finished)
        if not values and len(labels) == 1:
            values = _bare(lines, finished)
        result[name] = _conclude(values, text, _reason(objects, rest))
    return result


def read_value(text: object) -> float | str:
    """The number that a value stands for (`.75`, `0,75`, `3/4`, `75%`), or why it is none."""
    if isinstance(text, bool) or text is None:
        return f"not a number: {text}"
    if isinstance(text, int | float):
        return float(text) if abs(text) < 1e9 else f"off the grid: {str(text)[:12]}"
    match = _BARE.fullmatch(unicodedata.normalize("NFKC", str(text)[:80]))
    return _value(match) if match else f"not a number: {str(text)[:40]}"


def _value(match: re.Match[str]) -> float:
    top = _number(match["top"])
    bottom = 1.0 if match["bottom"] is None else _number(match["bottom"])
    percent = 100.0 if "%" in match["value"] else 1.0
    return top / (bottom * percent) if bottom > 0 else math.nan


def _number(text: str) -> float:
    return float(text.replace(",", ".").replace("−", "-").replace("–", "-"))


def _conclude(values: list[float | str], raw: str, reason: str) -> Verdict | Missing:
    """One score from all that was found: the only value, if it lies on the grid."""
    if not values:
        return Missing("no verdict in the reply", raw)
    problems = [v for v in values if isinstance(v, str)]
    if problems:
        return Missing(problems[0], raw)
    off = [v for v in values if not isinstance(v, str) and v not in GRID]
    if off:
        return Missing(f"off the grid: {off[0]:g}", raw)
    if len(set(values)) > 1:
        return Missing("contradictory: " + ", ".join(f"{v:g}" for v in values), raw)
    return Verdict(float(values[0]), reason, raw)


def _cut_echo(text: str, nonce: str | None) -> str:
    """The reply without what it repeats of the fenced texts; an unclosed echo reaches to the end."""
    if not nonce or nonce not in text:
        return text
    mark = re.escape(nonce)
    text = re.sub(rf"\[BEGIN [^\[\]\n]*{mark}\].*?(?:\[END [^\[\]\n]*{mark}\]|\Z)", "\n", text, flags=re.DOTALL)
    return text


def _spoken(text: str) -> str | None:
    """The reply without its reasoning blocks; None when the last one is not closed.

    Everything before the last closing tag is reasoning, also without an opening one (servers often put that into the
    prompt), so that a closing tag quoted within a block does not end it.
    """
    end = _THINK_END.match(text)
    if end:
        text = text[end.end() :]
    return None if _THINK_START.search(text) else text


def _objects(text: str) -> tuple[list[Any], str]:
    """The JSON objects that begin a line, and the text without them; one within a sentence is a quotation."""
    found: list[Any] = []
    rest: list[str] = []
    at, tries = 0, 0
    decoder = json.JSONDecoder(object_pairs_hook=list)
    while (match := _OBJECT.search(text, at)) and tries < _MAX_OBJECTS:
        tries, start = tries + 1, match.end() - 1
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            rest.append(text[at : start + 1])
            at = start + 1
            continue
        rest.append(text[at:start])
        found.append(value)
        at = end
    return found, "".join(rest) + text[at:]


def _in_object(value: Any, labels: Sequence[str], depth: int = 0) -> list[float | str]:
    """The values of the score fields of a decoded object, at any depth; objects come as lists of pairs."""
    if not isinstance(value, list) or depth > 8:
        return []
    found: list[float | str] = []
    for item in value:
        if not (isinstance(item, tuple) and len(item) == 2):
            found += _in_object(item, labels, depth + 1)
            continue
        key, inner = item
        if _label(key) in labels:
            found += _in_object(inner, SCORE_LABELS, depth + 1) if isinstance(inner, list) else [read_value(inner)]
        else:
            found += _in_object(inner, labels, depth + 1)
    return found


def _label(key: object) -> str:
    return re.sub(r"[\s_\-]+", " ", unicodedata.normalize("NFKC", str(key)).casefold()).strip().removeprefix("final ")


def _plain(text: str) -> str:
    """The text without markup, in half-width characters."""
    text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
    return _MARKUP.sub("", _FENCE_LINE.sub("", text))


def _labelled(text: str, labels: Sequence[str], finished: bool | None) -> list[float | str]:
    """The values of all lines that state one under a label."""
    words = "|".join(sorted((re.escape(word).replace(r"\ ", r"[ _]") for word in labels), key=len, reverse=True))
    says = r"(?:[ \t]+score)?(?:[ \t]*\([^()\n]{0,30}\))?[ \t]*(?::|=|\bis\b:?|为:?|是:?)"
    tag = rf"<(?:{words})>|\\boxed{{"
    head = re.compile(
        rf"^[ \t]*(?:{_LEAD}(?:{words}){says}|{tag})\s*(?:{tag})?\s*",
        re.IGNORECASE | re.MULTILINE,
    )
    found: list[float | str] = []
    for match in head.finditer(text):
        line, newline, _ = text[match.end() :].partition("\n")
        last = not newline and not text[match.end() + len(line) :].strip()
        if not line.strip():
            found.append("cut off")
        elif "\n" not in match.group():
            value = _stated(line, last and finished is None)
            found += [] if value is None else [value]
        elif _BARE.fullmatch(line):
            found += _bare(line, None if last and finished is None else True)
    return found


def _stated(line: str, may_be_cut: bool) -> float | str | None:
    """The value at the beginning of a line; None where the line states none."""
    match = re.match(rf"(?P<value>{_VALUE})", line, re.IGNORECASE)
    if match is None:
        return None
    integer = match["value"].isdigit()
    if may_be_cut and _MAY_GO_ON.fullmatch(line):
        return "may be cut off"
    after = re.sub(r"^\s*(?:}|</\w+>)", "", line[match.end() :])
    end = _AFTER.match(after)
    if end is None or (integer and re.match(r"[.、]\s*\S", after)):  # «1. The product …» is a list
        return "not a value: " + line[:40]
    value = _value(match)
    if any(_value(other) in set(GRID) - {value} and not other["word"] for other in _OTHER.finditer(after[end.end() :])):
        return "contradictory: " + line[:80]
    return value


def _bare(text: str, finished: bool | None) -> list[float | str]:
    """The value of a reply that consists of nothing else."""
    match = _BARE.fullmatch(text.strip("\n\r\t \"'“”"))
    if match is None:
        return []
    if finished is None and _MAY_GO_ON.fullmatch(text):
        return ["may be cut off"]
    return [_value(match)]


def _reason(objects: list[Any], rest: str) -> str:
    """The judge's reason: the field of its JSON, else the beginning of its text, on one line."""
    for value in objects:
        for item in value if isinstance(value, list) else []:
            if isinstance(item, tuple) and len(item) == 2 and _label(item[0]) in _REASONS and isinstance(item[1], str):
                return " ".join(item[1].split())[:_REASON_LENGTH]
    return " ".join(rest.split())[:_REASON_LENGTH]
