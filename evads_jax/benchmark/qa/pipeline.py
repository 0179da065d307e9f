"""The stages that one video's questions go through.

    draft     every role drafts a question for each task
    critique  every role criticises the drafts of the role before it
    revise    every role revises its own; what it leaves out is withdrawn
    check     code: evidence, spans, quotes, modalities, lengths, leaks, repetitions (`qa.checks`)
    verify    model: answerable without the video → out; not supported by its ledger alone → out
    choose    a role ranks what is left

A stage whose state is on disk is not run again, and within a stage no call is made twice.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from evads_jax.benchmark.qa import checks
from evads_jax.benchmark.qa.checks import Limits
from evads_jax.benchmark.qa.draft import Candidate, MalformedReply, read_drafts, read_object
from evads_jax.benchmark.qa.prompting import ROLES, Call, Subject, messages
from evads_jax.benchmark.qa.record import Record, State
from evads_jax.benchmark.qa.writers import Writer, Written
from evads_jax.judge.lexical import LexicalJudge
from evads_jax.judge.verdict import JudgeRequest, Verdict

STAGES = ("draft", "critique", "revise", "check", "verify", "choose")
CHOOSER = "director"
BLIND_SCORE = 0.75  # of the lexical judge: a blind answer this good needs no video
_Result = TypeVar("_Result")


class Pipeline:
    """Takes videos through the stages.

    Args:
      writer: who is asked.
      record: where everything is kept.
      texts: the prompts.
      language: "zh" or "en".
      limits: of the code checks.
    """

    def __init__(self, writer: Writer, record: Record, texts: Mapping[str, Any], language: str, limits: Limits):
        self._writer, self._record, self._texts, self._limits = writer, record, texts, limits
        self._language, self._judge = language, LexicalJudge(language)

    async def run(self, subject: Subject) -> State:
        """A video's state after the last stage.

        Raises:
          UserError: the writer cannot go on; what was done is kept.
        """
        state = State()
        steps: dict[str, Callable[[Subject, State], Awaitable[State]]] = {
            "draft": self._draft,
            "critique": self._critique,
            "revise": self._revise,
            "check": self._check,
            "verify": self._verify,
            "choose": self._choose,
        }
        for stage in STAGES:
            known = self._record.load(subject.video, stage)
            state = known if known is not None else await steps[stage](subject, state)
            if known is None:
                self._record.save(subject.video, stage, state)
        return state

    async def _draft(self, subject: Subject, state: State) -> State:
        replies = await _together([self._ask(Call("draft", role, subject), read_drafts) for role in ROLES])
        candidates = [
            Candidate(f"{role}-{draft.task}", role, draft)
            for role, drafts in zip(ROLES, replies, strict=True)
            for draft in drafts or ()
        ]
        malformed = [role for role, drafts in zip(ROLES, replies, strict=True) if drafts is None]
        return State(tuple(candidates), malformed=tuple(malformed))

    async def _critique(self, subject: Subject, state: State) -> State:
        calls = []
        for i, role in enumerate(ROLES):
            others = tuple(c for c in state.candidates if c.role == ROLES[i - 1])
            calls.append(self._ask(Call("critique", role, subject, others), _read_objections) if others else _nothing())
        objections: dict[str, str] = {}
        for found in await _together(calls):
            objections |= found or {}  # a critic that cannot be read has no objection
        return dataclasses.replace(
            state,
            candidates=tuple(dataclasses.replace(c, objection=objections.get(c.id, "")) for c in state.candidates),
        )

    async def _revise(self, subject: Subject, state: State) -> State:
        own = {role: tuple(c for c in state.candidates if c.role == role) for role in ROLES}
        asked = [role for role in ROLES if any(c.objection for c in own[role])]
        replies = await _together([self._ask(Call("revise", role, subject, own[role]), read_drafts) for role in asked])
        revised = {}
        for role, drafts in zip(asked, replies, strict=True):
            by_task = {draft.task: draft for draft in drafts or ()}
            for c in own[role]:
                if drafts is None:  # the first form stands
                    revised[c.id] = c
                elif c.draft.task in by_task:
                    revised[c.id] = dataclasses.replace(c, draft=by_task[c.draft.task])
                else:
                    revised[c.id] = dataclasses.replace(c, rejected=checks.WITHDRAWN)
        return dataclasses.replace(state, candidates=tuple(revised.get(c.id, c) for c in state.candidates))

    async def _check(self, subject: Subject, state: State) -> State:
        seen: list[str] = []
        checked = []
        times = subject.frame_times if self._writer.sees_frames else ()
        for c in state.candidates:
            if not c.rejected:
                reason = checks.check(c.draft, subject.events, subject.duration, times, self._limits)
                if not reason and checks.duplicates(c.draft.question, seen, self._limits):
                    reason = checks.DUPLICATE
                if not reason:
                    seen.append(c.draft.question)
                c = dataclasses.replace(c, rejected=reason)
            checked.append(c)
        return dataclasses.replace(state, candidates=tuple(checked))

    async def _verify(self, subject: Subject, state: State) -> State:
        async def one(c: Candidate) -> Candidate:
            if c.rejected:
                return c
            # Another role answers, so that nobody confirms its own draft.
            role = ROLES[(ROLES.index(c.role) + 2) % len(ROLES)]
            blind = await self._ask(Call("blind", role, subject, (c,)), _read_answer)
            if blind is None:
                return dataclasses.replace(c, rejected=checks.MALFORMED)
            if self._same(c, blind):
                return dataclasses.replace(c, rejected=checks.BLIND)
            supported = await self._ask(Call("support", role, subject, (c,)), _read_supported)
            if supported is None:
                return dataclasses.replace(c, rejected=checks.MALFORMED)
            return c if supported else dataclasses.replace(c, rejected=checks.UNSUPPORTED)

        return dataclasses.replace(state, candidates=tuple(await _together([one(c) for c in state.candidates])))

    async def _choose(self, subject: Subject, state: State) -> State:
        left = tuple(c for c in state.candidates if not c.rejected)
        if not left:
            return state
        ranking = await self._ask(Call("choose", CHOOSER, subject, left), _read_ranking) if len(left) > 1 else []
        known = {c.id for c in left}
        ordered = [name for name in dict.fromkeys(ranking or ()) if name in known]
        return dataclasses.replace(state, ranking=(*ordered, *(c.id for c in left if c.id not in ordered)))

    def _same(self, candidate: Candidate, blind: str) -> bool:
        draft = candidate.draft
        request = JudgeRequest(draft.question, (), draft.clues, draft.answer, blind, "answer", language=self._language)
        (verdict,) = self._judge.judge([request])
        return isinstance(verdict, Verdict) and verdict.score >= BLIND_SCORE

    async def _ask(self, call: Call, read: Callable[[str], _Result]) -> _Result | None:
        """What a writer says, read; asked once more where it cannot be read, and None where that does not help."""
        for _ in range(2):
            written = await self._reply(call)
            complaint = written.problem.partition(":")[0]  # what follows may be the endpoint's words
            if not complaint:
                try:
                    return read(written.text)
                except MalformedReply as error:
                    complaint = str(error)
            call = dataclasses.replace(call, complaint=complaint)
        return None

    async def _reply(self, call: Call) -> Written:
        asked = messages(call, self._texts, self._limits.longest_answer)
        key = self._record.key(self._writer.name, call, asked)
        known = self._record.known(key)
        if known is None:
            known = await self._writer.reply(call, asked)
            self._record.message(key, self._writer.name, call, asked, known)
        return known


async def _together(calls: Sequence[Awaitable[_Result]]) -> list[_Result]:
    """Runs calls at the same time; when one fails the others come to their end first, so that no paid reply is lost."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results  # type: ignore[return-value]


async def _nothing() -> None:
    return None


def _read_objections(text: str) -> dict[str, str]:
    found = read_object(text).get("objections")
    if not isinstance(found, list):
        raise MalformedReply("no list «objections»")
    rows = [row for row in found if isinstance(row, dict)]
    return {str(row.get("id")): " ".join(str(row.get("objection") or "").split())[:500] for row in rows}


def _read_answer(text: str) -> str:
    answer = read_object(text).get("answer")
    if not isinstance(answer, str):
        raise MalformedReply("«answer» is not a text")
    return answer


def _read_supported(text: str) -> bool:
    supported = read_object(text).get("supported")
    if not isinstance(supported, bool):
        raise MalformedReply("«supported» is neither true nor false")
    return supported


def _read_ranking(text: str) -> list[str]:
    ranking = read_object(text).get("ranking")
    if not isinstance(ranking, list):
        raise MalformedReply("no list «ranking»")
    return [str(name) for name in ranking]
