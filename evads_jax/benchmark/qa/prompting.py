"""What each role is asked in each stage, as messages; the frames as JPEG data URLs."""

import base64
import dataclasses
import functools
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from evads_jax.benchmark.qa.draft import Candidate, Draft, to_json
from evads_jax.data.annotations import grammar
from evads_jax.data.records import TASKS, Event
from evads_jax.errors import UserError
from evads_jax.judge.request import defuse, fenced, fill, make_nonce

ROLES = ("consumer", "expert", "skeptic", "pragmatist", "director")


@dataclasses.dataclass(frozen=True)
class Subject:
    """A video that questions are written about.

    Attributes:
      video: its name.
      category: goods category; None when unknown.
      duration: seconds.
      events: what is written and said.
      frames: (second, JPEG) of the frames that writers see; empty where they see none.
    """

    video: str
    category: str | None
    duration: float
    events: tuple[Event, ...]
    frames: tuple[tuple[float, bytes], ...] = ()

    @property
    def frame_times(self) -> tuple[float, ...]:
        """The seconds of the frames."""
        return tuple(time for time, _ in self.frames)


@dataclasses.dataclass(frozen=True)
class Call:
    """One question to a writer.

    Attributes:
      stage: draft, critique, revise, blind, support or choose.
      role: who is asked.
      subject: the video.
      candidates: the drafts it is about; for blind and support one.
      complaint: why a first reply could not be used; "" at first.
    """

    stage: str
    role: str
    subject: Subject
    candidates: tuple[Candidate, ...] = ()
    complaint: str = ""


@functools.cache
def load_texts(version: str, language: str) -> Mapping[str, Any]:
    """Reads a version of the prompts.

    Raises:
      UserError: there is no such version or language.
    """
    folder = resources.files("evads_jax.benchmark.qa") / "prompts"
    file = folder / version / f"{language}.toml"
    if not re.fullmatch(r"\w+", version) or not file.is_file():
        known = ", ".join(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
        raise UserError(f"no prompts {version!r} for language {language!r}", "qa.prompts", f"one of {known}")
    texts = tomllib.loads(file.read_text(encoding="utf-8"))
    return {k: v.strip("\n") if isinstance(v, str) else v for k, v in texts.items()}


def messages(call: Call, texts: Mapping[str, Any], longest_answer: int) -> list[dict[str, Any]]:
    """The chat messages of a call.

    Args:
      call: who is asked what.
      texts: in which words.
      longest_answer: words (characters of Chinese) that an answer may have.
    """
    inside = _material(call)
    inside = {name: defuse(text).strip() for name, text in inside.items()}
    nonce = make_nonce(list(inside.values()))
    values = {name: fenced(name, text, nonce, texts["none"]) for name, text in inside.items()}
    subject = call.subject
    shown = subject.frames if call.stage in ("draft", "critique", "revise", "support") else ()
    if call.stage == "support":
        wanted = [time for entry in call.candidates[0].draft.ledger for time in entry.frames]
        shown = tuple(frame for frame in shown if any(abs(frame[0] - time) <= 0.5 for time in wanted))
    times = ", ".join(f"{time:.1f}" for time, _ in shown)
    values["frames"] = fill(texts["frames"], times=times) if shown else texts["no_frames"]
    values["longest"] = str(longest_answer)
    values["tasks"] = "\n".join(texts["tasks"][task] for task in TASKS)
    values["duration"] = f"{subject.duration:g}"
    category = defuse(subject.category or "")
    values["category"] = fill(texts["category"], category=category) if category else ""
    parts = [texts["video"]] if call.stage in ("draft", "critique", "revise", "choose") else []
    parts.append(texts[call.stage])
    parts += [fill(texts["again"], complaint=call.complaint)] if call.complaint else []
    text = "\n\n".join(fill(part, **values) for part in parts)
    system = fill(texts["system"], role=texts["roles"][call.role], nonce=nonce)
    content: Any = text if not shown else [{"type": "text", "text": text}, *map(_image, shown)]
    return [{"role": "system", "content": system}, {"role": "user", "content": content}]


def without_images(asked: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages as they are kept: a note in place of each image."""
    kept = []
    for message in asked:
        content = message["content"]
        if not isinstance(content, str):
            content = "\n".join(part["text"] if part["type"] == "text" else "[frame]" for part in content)
        kept.append({"role": message["role"], "content": content})
    return kept


def _material(call: Call) -> dict[str, str]:
    """What stands in fences: name → text."""
    material = {"events": "\n".join(map(grammar.format_line, call.subject.events))}
    if call.stage in ("blind", "support"):
        draft = call.candidates[0].draft
        material["question"] = draft.question
        material["answer"] = draft.answer
        material["ledger"] = _lines(to_json(draft)["ledger"])
        return {"question": draft.question} if call.stage == "blind" else material
    if call.candidates:
        rows = []
        for candidate in call.candidates:
            row: dict[str, Any] = {"id": candidate.id, **_fields(candidate.draft, whole=call.stage != "choose")}
            rows.append(row | ({"objection": candidate.objection} if call.stage == "revise" else {}))
        material["drafts"] = _lines(rows)
    return material


def _fields(draft: Draft, whole: bool) -> dict[str, Any]:
    fields = to_json(draft)
    return fields if whole else {name: fields[name] for name in ("task", "question", "answer")}


def _lines(rows: Sequence[Any]) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def _image(frame: tuple[float, bytes]) -> dict[str, Any]:
    url = "data:image/jpeg;base64," + base64.b64encode(frame[1]).decode()
    return {"type": "image_url", "image_url": {"url": url}}
