"""The job `generate_qa`: videos in, a benchmark with its evidence, its messages and a yield table out."""

import asyncio
import collections
import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from evads_jax import whole
from evads_jax import workdir as run_folder
from evads_jax.benchmark.qa import checks, subjects
from evads_jax.benchmark.qa.checks import Limits
from evads_jax.benchmark.qa.draft import Candidate, to_json
from evads_jax.benchmark.qa.pipeline import Pipeline
from evads_jax.benchmark.qa.prompting import ROLES, Call, Subject, load_texts, messages, without_images
from evads_jax.benchmark.qa.record import Record, State
from evads_jax.benchmark.qa.scripted import ScriptedWriter
from evads_jax.benchmark.qa.writers import EndpointWriter, Writer
from evads_jax.data import annotations
from evads_jax.data.records import TASKS, Example, Question
from evads_jax.errors import UserError
from evads_jax.judge.budget import Budget, message_tokens
from evads_jax.judge.endpoint import Endpoint, EndpointSettings

# Calls per video at most where all replies can be read: draft, critique, revise by five roles; two checks of 25 drafts;
# one choice. A reply that cannot be read costs one more.
CALLS_PER_VIDEO = 3 * len(ROLES) + 2 * len(ROLES) * len(TASKS) + 1
DRAFTED, KEPT = "drafted", "kept"


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs the job; started again, it goes on where it stopped.

    Writes `questions.parquet` (the test schema, with task labels), `ledger.jsonl` (the evidence of every kept
    question), `rejected.jsonl`, `yield.md` and `yield.json`, beside `messages.jsonl` and the states of the videos.

    Raises:
      UserError: bad input, an endpoint that cannot be used, or a budget that is spent.
    """
    run_folder.claim(workdir, config)
    qa, language = config.qa, config.run.language
    found = subjects.find(config)
    texts = load_texts(qa.prompts, language)
    limits = Limits(qa.longest_answer, qa.similarity)
    print(f"{len(found)} videos, writer {qa.writer}, {CALLS_PER_VIDEO} calls per video at most", flush=True)
    if qa.dry_run:
        return _show(subjects.with_frames(found[0], config), texts, limits)
    record = Record(workdir)
    states = asyncio.run(_all(found, config, record, texts, limits))
    states = choose([(source, states[source.subject.video]) for source in found], limits)
    table = count(states)
    write(workdir, found, states, table)
    print(markdown(table) + f"\ncost {record.cost:.4f} {qa.currency}; {workdir / 'questions.parquet'}", flush=True)


async def _all(
    found: Sequence[subjects.Source], config: ConfigDict, record: Record, texts: Any, limits: Limits
) -> dict[str, State]:
    """The state of every video; a few videos at a time."""
    writer, endpoint = await _writer(config, record, found, texts, limits)
    pipeline = Pipeline(writer, record, texts, config.run.language, limits)
    states: dict[str, State] = {}
    queue, failures = collections.deque(found), list[Exception]()

    async def worker() -> None:
        while queue and not failures:
            source = queue.popleft()
            try:
                subject = subjects.with_frames(source, config) if writer.sees_frames else source.subject
                states[subject.video] = await pipeline.run(subject)
            except Exception as error:
                failures.append(error)
            if len(states) % 10 == 0:
                print(f"{len(states)} of {len(found)} videos", flush=True)

    await asyncio.gather(*(worker() for _ in range(config.qa.videos_at_once)))
    if endpoint:
        endpoint.close()
    if failures:
        raise failures[0]
    return states


async def _writer(
    config: ConfigDict, record: Record, found: Sequence[subjects.Source], texts: Any, limits: Limits
) -> tuple[Writer, Endpoint | None]:
    """The writer, after its endpoint was found usable and its cost was told."""
    qa = config.qa
    if qa.writer == "scripted":
        return ScriptedWriter(config.run.language), None
    if qa.writer != "endpoint":
        raise UserError(f"unknown writer {qa.writer!r}", "qa.writer", "use scripted or endpoint")
    settings = EndpointSettings.from_config(qa, "qa")
    budget = Budget(settings.model, settings.prices, settings.max_cost, record.cost, settings.currency, "qa")
    endpoint = Endpoint(settings, budget, section="qa")
    await endpoint.check()
    left = [source for source in found if record.load(source.subject.video, "choose") is None]
    if left:
        asked = messages(Call("draft", ROLES[0], subjects.with_frames(left[0], config)), texts, limits.longest_answer)
        calls = [message_tokens(asked)] * (CALLS_PER_VIDEO * len(left))
        estimate = budget.estimate(calls, settings.max_tokens)
        print(f"at most {estimate.line(budget.currency)}", flush=True)
        budget.admit(estimate, "qa")
    return EndpointWriter(endpoint), endpoint


def choose(states: Sequence[tuple[subjects.Source, State]], limits: Limits) -> dict[str, State]:
    """For each video and task the best-ranked question that is no near-duplicate of an earlier video's.

    Videos are gone through in order, so that the result does not depend on which was finished first.
    """
    taken: list[str] = []
    chosen: dict[str, State] = {}
    for source, state in states:
        by_id = {c.id: c for c in state.candidates}
        done: set[str] = set()
        for name in state.ranking:
            c = by_id[name]
            if c.draft.task in done:
                by_id[name] = dataclasses.replace(c, rejected=checks.NOT_CHOSEN)
            elif checks.duplicates(c.draft.question, taken, limits):
                by_id[name] = dataclasses.replace(c, rejected=checks.DUPLICATE)
            else:
                done.add(c.draft.task)
                taken.append(c.draft.question)
        chosen[source.subject.video] = dataclasses.replace(state, candidates=tuple(by_id.values()))
    return chosen


def count(states: dict[str, State]) -> dict[str, dict[str, int]]:
    """Per task, and over `all`: drafted, rejected by reason, kept."""
    table: dict[str, collections.Counter[str]] = {task: collections.Counter() for task in (*TASKS, "all")}
    for state in states.values():
        for c in state.candidates:
            for column in (c.draft.task, "all"):
                table[column][DRAFTED] += 1
                table[column][c.rejected or KEPT] += 1
        table["all"]["roles whose drafts could not be read"] += len(state.malformed)
    return {column: dict(counts) for column, counts in table.items()}


def markdown(table: dict[str, dict[str, int]]) -> str:
    """The yield table."""
    rows = [DRAFTED, *(reason for reason in checks.REASONS if reason in table["all"]), KEPT]
    lines = ["| | " + " | ".join(table) + " |", "|---|" + "---:|" * len(table)]
    lines += [f"| {row} | " + " | ".join(str(column.get(row, 0)) for column in table.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write(
    folder: Path, found: Sequence[subjects.Source], states: dict[str, State], table: dict[str, dict[str, int]]
) -> None:
    """Writes the results; each file appears whole."""
    kept = [(s.subject, c) for s in found for c in states[s.subject.video].candidates if not c.rejected]
    out = [(s.subject, c) for s in found for c in states[s.subject.video].candidates if c.rejected]
    annotations.write_test(folder / "questions.parquet", [_example(subject, c) for subject, c in kept])
    _lines(folder / "ledger.jsonl", ({"id": _id(s, c), "role": c.role, **to_json(c.draft)} for s, c in kept))
    _lines(
        folder / "rejected.jsonl",
        (
            {"video": s.video, "id": c.id, "reason": c.rejected, "objection": c.objection, **to_json(c.draft)}
            for s, c in out
        ),
    )
    (folder / "yield.json").write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "yield.md").write_text(markdown(table), encoding="utf-8")


def _id(subject: Subject, candidate: Candidate) -> str:
    return f"{Path(subject.video).stem}-{candidate.draft.task}"


def _example(subject: Subject, candidate: Candidate) -> Example:
    draft = candidate.draft
    question = Question(_id(subject, candidate), draft.question, draft.answer, draft.clues, draft.task)
    speech = tuple(dataclasses.replace(event, ocr=()) for event in subject.events if event.asr is not None)
    duration = round(subject.duration)
    return Example(question, subject.video, subject.category, duration, speech, subject.events, "test")


def _lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    whole.write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _show(subject: Subject, texts: Any, limits: Limits, log: Callable[[str], None] = print) -> None:
    """The first requests, one per role; nothing is sent."""
    for role in ROLES:
        for message in without_images(messages(Call("draft", role, subject), texts, limits.longest_answer)):
            log(f"--- {role} [{message['role']}]\n{message['content']}")
    log("dry run: nothing was sent")
