"""What the roles write: drafts with their evidence ledger, read from and written to JSON."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from evads_jax.data.records import TASKS

MODALITIES = ("visual", "ocr", "asr")
_THINK_END = re.compile(r".*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)


class MalformedReply(ValueError):
    """A reply that is not what was asked for; the message says why in words of our own."""


@dataclasses.dataclass(frozen=True)
class Evidence:
    """One line of a ledger: a claim and where it can be checked.

    Attributes:
      claim: what it supports, in words.
      modality: "visual", "ocr" or "asr".
      start: first second.
      end: last second.
      quote: the words written or said; "" for "visual".
      frames: the seconds at which a "visual" claim can be seen.
    """

    claim: str
    modality: str
    start: float
    end: float
    quote: str = ""
    frames: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Draft:
    """A question as a role proposes it."""

    task: str
    question: str
    answer: str
    clues: str
    ledger: tuple[Evidence, ...]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A draft on its way.

    Attributes:
      id: role and task, unique within a video.
      role: who wrote it.
      draft: its newest form.
      objection: what its critic said; "" for nothing.
      rejected: why it is out; "" while it is in.
    """

    id: str
    role: str
    draft: Draft
    objection: str = ""
    rejected: str = ""


def read_object(text: str) -> dict[str, Any]:
    """The JSON object in a reply, after a reasoning block and within a code fence or not.

    Raises:
      MalformedReply: there is none, or it is cut off.
    """
    text = _THINK_END.sub("", text[:200_000])
    start = text.find("{")
    if start < 0:
        raise MalformedReply("no JSON object")
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        raise MalformedReply("the JSON is broken or cut off") from None
    return value


def read_drafts(text: str) -> list[Draft]:
    """The drafts in a reply; one that is not as asked for is left out, the others count.

    Raises:
      MalformedReply: no draft can be read.
    """
    found = read_object(text).get("drafts")
    if not isinstance(found, list):
        raise MalformedReply("no list «drafts»")
    drafts: dict[str, Draft] = {}
    problem = "the list «drafts» is empty"
    for fields in found[: 2 * len(TASKS)]:
        try:
            draft = draft_from_json(fields)
        except MalformedReply as error:
            problem = str(error)
        else:
            drafts.setdefault(draft.task, draft)
    if not drafts and found:
        raise MalformedReply(problem)
    return list(drafts.values())


def draft_from_json(fields: Any) -> Draft:
    """A draft from its JSON object.

    Raises:
      MalformedReply: a field is missing or of another kind.
    """
    if not isinstance(fields, Mapping):
        raise MalformedReply("a draft is not an object")
    if (task := fields.get("task")) not in TASKS:
        raise MalformedReply("a draft's task is none of " + ", ".join(TASKS))
    texts = {name: _text(fields, name) for name in ("question", "answer", "clues")}
    ledger = fields.get("ledger")
    if not isinstance(ledger, list):
        raise MalformedReply("a draft has no list «ledger»")
    return Draft(str(task), **texts, ledger=tuple(_evidence(entry) for entry in ledger[:20]))


def to_json(value: Candidate | Draft) -> dict[str, Any]:
    """As `candidate_from_json` or `draft_from_json` reads it."""
    return dataclasses.asdict(value)


def candidate_from_json(fields: Mapping[str, Any]) -> Candidate:
    """A candidate that `to_json` wrote."""
    return Candidate(**{**fields, "draft": draft_from_json(fields["draft"])})


def _evidence(entry: Any) -> Evidence:
    if not isinstance(entry, Mapping):
        raise MalformedReply("an entry of «ledger» is not an object")
    modality = str(entry.get("modality", "")).lower()
    frames = entry.get("frames") or []
    if modality not in MODALITIES or not isinstance(frames, list | tuple):
        raise MalformedReply("an entry's modality is none of " + ", ".join(MODALITIES))
    start = _number(entry, "start")
    return Evidence(
        claim=_text(entry, "claim", needed=False),
        modality=modality,
        start=start,
        end=_number(entry, "end") if entry.get("end") is not None else start,
        quote=_text(entry, "quote", needed=False),
        frames=tuple(_number({"frames": time}, "frames") for time in frames[:50]),
    )


def _text(fields: Mapping[str, Any], name: str, needed: bool = True) -> str:
    value = fields.get(name)
    if value is None and not needed:
        return ""
    if not isinstance(value, str) or (needed and not value.strip()):
        raise MalformedReply(f"«{name}» is not a text")
    # One line, without the tags that frame an answer elsewhere and without lone surrogates.
    text = re.sub(r"</?(?:think|answer)>", " ", value).encode("utf-8", "replace").decode()
    return " ".join(text.split())


def _number(fields: Mapping[str, Any], name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise MalformedReply(f"«{name}» is not a number of seconds")
    return float(value)
