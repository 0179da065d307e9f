"""The life of a run on slices that come and go, as a pure state machine: what was seen → the next phase and the deeds.

    create → wait → setup → run → (stop) → delete → done
       ↑                                     │
       └──────────── taken away ─────────────┘

No clock, no process and no network here: `advance` is a function. Every deed may be done twice, and what became of it
is only believed when it is seen. There is one way out, through `delete`, and `done` is reached only when the slice was
seen to be gone, or loudly with `STILL_THERE`.
"""

import dataclasses
import enum
from collections.abc import Mapping

OK = 0
BUDGET_SPENT = 3
GAVE_UP = 4
STILL_THERE = 5
PREEMPTED = 42
INTERRUPTED = 130

Deeds = tuple[str, ...]  # of pack, create, setup, start, stop, collect, delete, in this order


class Phase(enum.Enum):
    """Where a run is."""

    CREATE = "create"
    WAIT = "wait"
    SETUP = "setup"
    RUN = "run"
    STOP = "stop"
    DELETE = "delete"
    DONE = "done"


class Seen(enum.Enum):
    """What became of the slice."""

    UNKNOWN = "unknown"  # could not be asked
    ABSENT = "absent"
    WAITING = "waiting"
    ACTIVE = "active"
    GONE = "gone"  # taken away, or it never came; a request that must still be deleted
    DELETING = "deleting"


@dataclasses.dataclass(frozen=True)
class Worker:
    """A worker that answered.

    Attributes:
      phase: setup, ready, running or exited.
      code: exit code of its setup or its job; None before.
      age: seconds since its heartbeat.
    """

    phase: str
    code: int | None
    age: float


@dataclasses.dataclass(frozen=True)
class Observation:
    """The world at one moment.

    Attributes:
      now: seconds, of a clock that only rises.
      slice: the slice.
      workers: those that answered, by number.
      refused: why no slice comes however often it is asked for (quota, permission); "" otherwise.
      interrupted: whether the user wants to end.
    """

    now: float
    slice: Seen
    workers: Mapping[int, Worker] = dataclasses.field(default_factory=dict)
    refused: str = ""
    interrupted: bool = False


@dataclasses.dataclass(frozen=True)
class Limits:
    """How long, how often; times in seconds.

    Attributes:
      hosts: workers of the slice.
      held: how long slices may be held, all together.
      wait: how long a request may wait for capacity.
      attempts: slices created at most.
      setup: from active to every worker ready.
      lost: silence after which a running worker counts as lost.
      settle: a crash is believed to be one only after so long: a preemption is often seen as a crash first.
      stop: how long the job may take to save when it is asked to end.
      retry: between two deletions, or creations, of the same slice.
      tries: creations or deletions of one slice that are tried before giving up.
    """

    hosts: int
    held: float
    wait: float
    attempts: int
    setup: float = 1800.0
    lost: float = 600.0
    settle: float = 90.0
    stop: float = 180.0
    retry: float = 60.0
    tries: int = 10


@dataclasses.dataclass(frozen=True)
class State:
    """What is remembered between two looks.

    Attributes:
      phase: where the run is.
      attempt: the slice's number, from 1.
      since: when the phase began.
      active: when this slice became active; None before.
      held: seconds for which slices were held before this one.
      acted: when the phase's deed was last done.
      tries: how often the phase's deed was done.
      failed: when a worker was first seen to have failed; None without.
      silent: since when not every worker has been heard; None if all were.
      code: what to end with; None: go on with a new slice after `delete`.
      why: the reason, for the user.
    """

    phase: Phase = Phase.CREATE
    attempt: int = 1
    since: float = 0.0
    active: float | None = None
    held: float = 0.0
    acted: float | None = None
    tries: int = 0
    failed: float | None = None
    silent: float | None = None
    code: int | None = None
    why: str = ""


def advance(state: State, seen: Observation, limits: Limits) -> tuple[State, Deeds]:
    """One step.

    Args:
      state: before it.
      seen: the world.
      limits: of this run.

    Returns:
      The state after it, and what is to be done now.
    """
    if state.phase is Phase.DONE:
        return state, ()
    if state.active is None and seen.slice is Seen.ACTIVE:
        state = dataclasses.replace(state, active=seen.now)
    ending = state.phase in (Phase.STOP, Phase.DELETE)
    if not ending and seen.interrupted:
        return _stop(state, seen, INTERRUPTED, "interrupted")
    if not ending and held(state, seen.now) >= limits.held:
        return _stop(state, seen, BUDGET_SPENT, "the hours are spent")
    return _STEPS[state.phase](state, seen, limits)


def held(state: State, now: float) -> float:
    """Seconds for which slices have been held so far."""
    return state.held + (now - state.active if state.active is not None else 0.0)


def _create(state: State, seen: Observation, limits: Limits) -> tuple[State, Deeds]:
    if seen.refused:
        return _delete(state, seen, GAVE_UP, seen.refused)
    if seen.slice in (Seen.WAITING, Seen.ACTIVE):  # ours, or left by a launcher that died: it is taken over
        return _enter(state, Phase.WAIT, seen.now), ()
    if seen.slice is Seen.GONE:
        why = "the request failed" if state.tries else "an earlier request of this name was in the way"
        return _again(state, seen, limits, why)
    if seen.slice is Seen.ABSENT and _due(state, seen.now, limits.retry):
        if state.tries >= limits.tries:
            return _delete(state, seen, GAVE_UP, "the request could not be made")
        # Later slices run the code that the first was given.
        deeds = ("pack", "create") if state.attempt == 1 and not state.tries else ("create",)
        return dataclasses.replace(state, acted=seen.now, tries=state.tries + 1), deeds
    return state, ()


def _wait(state: State, seen: Observation, limits: Limits) -> tuple[State, Deeds]:
    if seen.slice is Seen.ACTIVE:
        return _enter(state, Phase.SETUP, seen.now), ()
    if seen.slice in (Seen.ABSENT, Seen.DELETING):
        return _delete(state, seen, GAVE_UP, "somebody else deleted the request")
    if seen.refused:  # some services take a request first and look at the quota then
        return _delete(state, seen, GAVE_UP, seen.refused)
    if seen.slice is Seen.GONE:
        return _again(state, seen, limits, "the request failed, or the slice was taken away while it was waited for")
    if seen.now - state.since >= limits.wait:
        return _delete(state, seen, GAVE_UP, "no capacity in time")
    return state, ()


def _setup(state: State, seen: Observation, limits: Limits) -> tuple[State, Deeds]:
    if (lost := _lost(state, seen, limits)) is not None:
        return lost
    bad = [n for n, w in seen.workers.items() if w.phase == "exited" and w.code]
    if any(w.phase == "running" for w in seen.workers.values()):  # a launcher before us had come so far
        return _enter(state, Phase.RUN, seen.now), ()
    if bad:
        code = seen.workers[bad[0]].code
        return _delete(state, seen, code, f"worker {bad[0]} could not be set up (exit code {code}), see its log")
    if len(seen.workers) == limits.hosts and all(w.phase == "ready" for w in seen.workers.values()):
        return _enter(state, Phase.RUN, seen.now, seen.now), ("start",)
    if seen.now - state.since >= limits.setup:
        silent = sorted(set(range(limits.hosts)) - {n for n, w in seen.workers.items() if w.phase == "ready"})
        return _again(state, seen, limits, f"workers {silent} were not ready in time")
    if len(seen.workers) < limits.hosts and _due(state, seen.now, limits.retry):
        return dataclasses.replace(state, acted=seen.now), ("setup",)
    return state, ()


def _run(state: State, seen: Observation, limits: Limits) -> tuple[State, Deeds]:
    if (lost := _lost(state, seen, limits)) is not None:
        return lost
    codes = {n: w.code for n, w in seen.workers.items() if w.phase == "exited"}
    everyone = len(codes) == limits.hosts
    if everyone and not any(codes.values()):
        return _delete(state, seen, OK, "done")
    if everyone and all(code in (OK, PREEMPTED) for code in codes.values()):
        return _again(state, seen, limits, "the job was told to end, and saved")
    heard = sum(w.phase == "exited" or w.age < limits.lost for w in seen.workers.values())
    silent = None if heard == limits.hosts else state.silent if state.silent is not None else seen.now
    bad = sorted(n for n, code in codes.items() if code not in (OK, PREEMPTED))
    failed = None if not bad else state.failed if state.failed is not None else seen.now
    state = dataclasses.replace(state, silent=silent, failed=failed)
    if silent is not None and seen.now - silent >= limits.lost:
        return _again(state, seen, limits, f"only {heard} of {limits.hosts} workers could be heard")
    if failed is not None and silent is None and seen.now - failed >= limits.settle:
        return _delete(state, seen, codes[bad[0]], f"the job failed on worker {bad[0]} with exit code {codes[bad[0]]}")
    if any(w.phase == "ready" for w in seen.workers.values()) and _due(state, seen.now, limits.retry):
        return dataclasses.replace(state, acted=seen.now), ("start",)  # did not reach every worker
    return state, ()


def _stopping(state: State, seen: Observation, limits: Limits) -> tuple[State, Deeds]:
    ended = bool(seen.workers) and all(w.phase == "exited" for w in seen.workers.values())
    if ended or seen.slice in (Seen.ABSENT, Seen.GONE) or seen.now - state.since >= limits.stop:
        return _delete(state, seen, state.code, state.why)
    return state, ()


def _deleting(state: State, seen: Observation, limits: Limits) -> tuple[State, Deeds]:
    if seen.slice is Seen.ABSENT:
        paid = held(state, seen.now)
        state = dataclasses.replace(state, held=paid, active=None)
        code = state.code
        if code is None and seen.interrupted:
            code = INTERRUPTED
        if code is None and paid >= limits.held:
            code, state = BUDGET_SPENT, dataclasses.replace(state, why="the hours are spent")
        if code is not None:
            return dataclasses.replace(_enter(state, Phase.DONE, seen.now), code=code), ()
        return dataclasses.replace(_enter(state, Phase.CREATE, seen.now, seen.now), attempt=state.attempt + 1), ()
    if seen.slice is Seen.DELETING and seen.now - state.since < limits.retry * limits.tries:
        return state, ()
    if _due(state, seen.now, limits.retry):
        if state.tries >= limits.tries:
            return dataclasses.replace(_enter(state, Phase.DONE, seen.now), code=STILL_THERE), ()
        return dataclasses.replace(state, acted=seen.now, tries=state.tries + 1), ("delete",)
    return state, ()


_STEPS = {
    Phase.CREATE: _create,
    Phase.WAIT: _wait,
    Phase.SETUP: _setup,
    Phase.RUN: _run,
    Phase.STOP: _stopping,
    Phase.DELETE: _deleting,
}


def _lost(state: State, seen: Observation, limits: Limits) -> tuple[State, Deeds] | None:
    """Where a slice that was active is no longer there."""
    if seen.slice in (Seen.ABSENT, Seen.DELETING):
        return _delete(state, seen, GAVE_UP, "somebody else deleted the slice")
    if seen.slice is Seen.GONE:
        return _again(state, seen, limits, "the slice was taken away")
    return None


def _again(state: State, seen: Observation, limits: Limits, why: str) -> tuple[State, Deeds]:
    """Gives the slice back and creates the next, unless it was the last."""
    if state.attempt >= limits.attempts:
        return _delete(state, seen, GAVE_UP, f"{why}; that was attempt {state.attempt} of {limits.attempts}")
    return _delete(state, seen, None, why)


def _stop(state: State, seen: Observation, code: int, why: str) -> tuple[State, Deeds]:
    """Lets a running job save before its slice is given back."""
    if state.phase is not Phase.RUN:
        return _delete(state, seen, code, why)
    return dataclasses.replace(_enter(state, Phase.STOP, seen.now), code=code, why=why), ("stop",)


def _delete(state: State, seen: Observation, code: int | None, why: str) -> tuple[State, Deeds]:
    """Collects where there may be something, and gives back."""
    deeds = ("collect", "delete") if state.active is not None else ("delete",)
    after = _enter(state, Phase.DELETE, seen.now, seen.now)
    return dataclasses.replace(after, code=code, why=why, tries=1), deeds


def _enter(state: State, phase: Phase, now: float, acted: float | None = None) -> State:
    return dataclasses.replace(state, phase=phase, since=now, acted=acted, tries=0, failed=None, silent=None)


def _due(state: State, now: float, every: float) -> bool:
    return state.acted is None or now - state.acted >= every
