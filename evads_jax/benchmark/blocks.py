"""Completions as people read them: the question, what was answered, what the judges said, the reference."""

import dataclasses
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evads_jax.benchmark import html
from evads_jax.benchmark.files import Evaluation, answer_id, read_lines
from evads_jax.benchmark.html import chip, escape, fold

WIDTH, INDENT = 110, 14


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What one judge said about one part of a completion; `score` None is a missing verdict."""

    name: str
    score: float | None
    reason: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """One completion.

    Attributes:
      name: whose: a stage, a run and its stage, or a step of training.
      completion: as it was written; None where there is none.
      judgements: the first is the one that counts.
      failure: why there is nothing to judge; "" elsewhere.
    """

    name: str
    completion: str | None
    judgements: tuple[Judgement, ...]
    failure: str = ""

    @property
    def score(self) -> float | None:
        """The score that counts."""
        return self.judgements[0].score if self.judgements else None


@dataclasses.dataclass(frozen=True)
class Block:
    """A question with one answer, or with the answers of two runs.

    Attributes:
      id: the answer's (`files.answer_id`); of training, with step and sample.
      video, task, category: where it belongs; None where unknown.
      question, reference, clues: the texts; "" where the folder does not hold them.
      answers: one, or two that are compared.
    """

    id: str
    video: str
    task: str | None
    category: str | None
    question: str
    reference: str
    clues: str
    answers: tuple[Answer, ...]

    @property
    def difference(self) -> float | None:
        """The first answer's score minus the second's; None where there is no second or one is missing."""
        if len(self.answers) < 2:
            return None
        a, b = (answer.score for answer in self.answers[:2])
        return None if a is None or b is None else a - b


@dataclasses.dataclass(frozen=True)
class Filter:
    """Which blocks are wanted; None asks nothing.

    Attributes:
      task: only this task.
      lowest, highest: bounds of the (first) answer's score, both inclusive.
      missing: only answers without a score.
      difference: only blocks whose two scores differ by at least this.
      contains: only blocks with this text anywhere in question, video, id or completion; case does not matter.
    """

    task: str | None = None
    lowest: float | None = None
    highest: float | None = None
    missing: bool = False
    difference: float | None = None
    contains: str | None = None

    def keeps(self, block: Block) -> bool:
        """Whether a block is wanted."""
        score = block.answers[0].score
        bounded = self.lowest is not None or self.highest is not None
        if self.task is not None and block.task != self.task:
            return False
        if self.missing and all(answer.score is not None for answer in block.answers):
            return False
        if bounded and (
            score is None or not (self.lowest or 0.0) <= score <= (1.0 if self.highest is None else self.highest)
        ):
            return False
        if self.difference is not None and (block.difference is None or abs(block.difference) < self.difference):
            return False
        texts = (block.question, block.video, block.id, *(answer.completion or "" for answer in block.answers))
        return self.contains is None or any(self.contains.casefold() in text.casefold() for text in texts)


def from_evaluation(
    evaluation: Evaluation, questions: Mapping[str, Mapping[str, Any]], name: str = ""
) -> dict[str, Block]:
    """Answer id → block, in the order of the split.

    Args:
      evaluation: the evaluation.
      questions: what it asked, by question id (`Evaluation.questions`).
      name: of its answers; default the evaluation's.
    """
    raw, further = evaluation.completions(), _further(evaluation)
    blocks = {}
    for row in evaluation.verdicts:
        key = answer_id(row)
        asked = questions.get(row["id"], {})
        first = Judgement(row["judge"], row["score"], row["reason"])
        answer = Answer(name or evaluation.name, raw.get(key), (first, *further.get(key, ())), row.get("failure") or "")
        blocks[key] = Block(
            id=key,
            video=row["video"],
            task=row["task"],
            category=row["category"],
            question=asked.get("question", ""),
            reference=asked.get("reference", ""),
            clues=asked.get("clues", ""),
            answers=(answer,),
        )
    return blocks


def _further(evaluation: Evaluation) -> dict[str, list[Judgement]]:
    """Answer id → what the judge said when it was asked again, and what other judges said."""
    found: dict[str, list[Judgement]] = {}
    for path in sorted(evaluation.folder.glob("verdicts_*.jsonl")):
        label = path.stem.removeprefix("verdicts_").split("_")[0]
        rows = {answer_id(row): row for row in read_lines(path)}
        for key, row in rows.items():
            found.setdefault(key, []).append(Judgement(f"{row['judge']}, {label}", row["score"], row["reason"]))
    return found


def side_by_side(ours: Mapping[str, Block], theirs: Mapping[str, Block]) -> list[Block]:
    """The blocks of two evaluations of the same questions, each pair as one."""
    return [dataclasses.replace(b, answers=b.answers + theirs[key].answers) for key, b in ours.items() if key in theirs]


def as_text(blocks: Sequence[Block]) -> str:
    """Blocks for a terminal."""
    return "\n".join(_text(number, block) for number, block in enumerate(blocks, 1))


def as_row(block: Block) -> dict[str, Any]:
    """A block as JSON."""
    return dataclasses.asdict(block) | {"difference": block.difference}


def as_page(title: str, blocks: Iterable[Block]) -> str:
    """Blocks as one HTML document."""
    cards = "".join(_card(block) for block in blocks)
    return html.page(title, "", [("completions", "Completions", cards or "<p>None.</p>")])


def _text(number: int, block: Block) -> str:
    about = " · ".join(x for x in (block.task, block.video, block.category) if x)
    lines = [f"{'─' * WIDTH}", f"{number}. {block.id}  {about}"]
    lines += _wrapped("question", block.question)
    for answer in block.answers:
        lines.append(f"  [{answer.name}]")
        lines += _wrapped("completion", answer.failure if answer.completion is None else answer.completion)
        for j in answer.judgements:
            score = "missing" if j.score is None else f"{j.score:g}"
            lines += _wrapped(j.name, f"{score}  {j.reason}")
    lines += _wrapped("reference", block.reference) + _wrapped("clues", block.clues)
    return "\n".join(lines) + "\n"


def _wrapped(name: str, text: str) -> list[str]:
    """A text behind its name, line by line; nothing for an empty one. What would steer the terminal shows as ▯."""
    if not text:
        return []
    plain = "".join(c if c.isprintable() or c == "\n" else "▯" for c in text.replace("\t", " "))
    lines = [part for line in plain.split("\n") for part in textwrap.wrap(line, WIDTH - INDENT) or [""]]
    head = f"  {name}:"
    lines = [f"{head if i == 0 else '':<{INDENT}}{line}" for i, line in enumerate(lines)]
    return [head, f"{'':<{INDENT}}{lines[0][len(head) :]}", *lines[1:]] if len(head) >= INDENT else lines


def _card(block: Block) -> str:
    about = " · ".join(x for x in (block.task, block.video, block.category, block.id) if x)
    rows = "".join(
        f"<tr><td>{escape(answer.name)}</td><td>{chip(j.score)}</td>"
        f"<td>{escape(j.name)}<small>{escape(j.reason)}</small></td></tr>"
        for answer in block.answers
        for j in answer.judgements
    )
    said = "".join(
        f'<p class="soft">{escape(answer.name)}</p><pre>{escape(answer.completion or answer.failure)}</pre>'
        for answer in block.answers
    )
    clues = fold("Clues", f"<p>{escape(block.clues)}</p>") if block.clues else ""
    return (
        f'<article class="card"><h3>{escape(block.question)}</h3><p class="soft">{escape(about)}</p>{said}'
        f'<div class="scroll"><table class="answers"><tbody>{rows}</tbody></table></div>'
        f'<p>{escape(block.reference)} <span class="soft">(reference)</span></p>{clues}</article>'
    )
