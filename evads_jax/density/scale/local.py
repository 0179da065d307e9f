"""Parts over the processes of one machine. A worker that dies costs its part a restart, not the job.

A worker is given a part, measures it, and asks for the next. When it dies (killed, out of memory), another takes the
part up after the last finished video; a video that was in work at two deaths is given up as "worker_killed". Deaths
before a worker has loaded its tools are no video's fault: after some in a row the job ends.
"""

import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from evads_jax.density.measure import Tools, make_tools
from evads_jax.density.scale.parts import (
    Part,
    check_failures,
    count_failures,
    failed,
    has_media,
    run_part,
    whole_lines,
)
from evads_jax.density.settings import MeasureSettings
from evads_jax.errors import UserError

MAX_DEATHS = 2  # with the same video in work
MAX_STARTS = 4  # workers in a row that die while they load their tools
_READY = "ready"

Progress = Callable[[int, int, int], None]  # videos done, videos, failures


def run_local(
    parts: Sequence[Part],
    settings: MeasureSettings,
    folder: Path,
    *,
    workers: int,
    max_bad_share: float,
    progress: Progress = lambda done, total, failures: None,
) -> None:
    """Measures all parts that are not done.

    Args:
        parts: the corpus.
        settings: the rules.
        folder: of the results.
        workers: processes; 0 measures in this one.
        max_bad_share: of the corpus that may fail.
        progress: called after each part.

    Raises:
        UserError: too many videos failed, a worker could not load its tools, or results cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tally = _Tally(parts, max_bad_share, progress)
    waiting = []
    for part in parts:
        if part.done(folder).exists():
            tally.add(part, count_failures(part, folder))
        else:
            waiting.append(part)
    if workers < 1:
        tools = make_tools(settings, has_media(parts)) if waiting else None
        try:
            for part in waiting:
                assert tools is not None
                tally.add(part, run_part(part, tools, settings, folder))
        finally:
            if tools is not None:
                tools.close()
        return
    _Pool(collections.deque(waiting), settings, folder, tally, has_media(parts)).run(min(workers, len(waiting)))


class _Tally:
    """Counts, reports and stops."""

    def __init__(self, parts: Sequence[Part], max_bad_share: float, progress: Progress):
        self._total = sum(len(part.items) for part in parts)
        self._share, self._progress = max_bad_share, progress
        self._done, self._failures = 0, collections.Counter[str]()

    def add(self, part: Part, failures: collections.Counter[str]) -> None:
        self._done += len(part.items)
        self._failures += failures
        self._progress(self._done, self._total, self._failures.total())
        check_failures(self._failures, self._total, self._share)


class _Worker:
    """A process and the part it has in hand."""

    def __init__(self, settings: MeasureSettings, folder: Path, media: bool):
        context = multiprocessing.get_context("spawn")  # a process that runs JAX must not be forked
        self.pipe, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_serve, args=(theirs, settings, folder, media))
        self.process.start()
        theirs.close()
        self.part: Part | None = None
        self.ready = False

    def give(self, part: Part | None) -> None:
        self.part = part
        with contextlib.suppress(ConnectionError):  # it has died, and its end of the pipe will say so
            self.pipe.send(part)


class _Pool:
    def __init__(
        self, waiting: collections.deque[Part], settings: MeasureSettings, folder: Path, tally: _Tally, media: bool
    ):
        self._waiting, self._settings, self._folder, self._tally = waiting, settings, folder, tally
        self._deaths: collections.Counter[tuple[int, int]] = collections.Counter()
        self._failed_starts = 0
        self._media = media
        self._workers: list[_Worker] = []

    def run(self, workers: int) -> None:
        try:
            for _ in range(workers):
                self._start()
            while self._workers:
                ready = multiprocessing.connection.wait([w.pipe for w in self._workers])
                for worker in [w for w in self._workers if w.pipe in ready]:
                    self._hear(worker)
        finally:
            for worker in self._workers:
                worker.process.kill()
                worker.process.join()

    def _start(self) -> None:
        worker = _Worker(self._settings, self._folder, self._media)
        self._workers.append(worker)
        self._next(worker)

    def _next(self, worker: _Worker) -> None:
        """Gives the worker a part, or lets it go."""
        if self._waiting:
            worker.give(self._waiting.popleft())
            return
        worker.give(None)
        worker.process.join()
        self._workers.remove(worker)

    def _hear(self, worker: _Worker) -> None:
        try:
            answer = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._bury(worker)
            return
        if isinstance(answer, UserError):
            raise answer
        if answer == _READY:
            worker.ready, self._failed_starts = True, 0
            return
        assert worker.part is not None
        self._tally.add(worker.part, answer)
        self._next(worker)

    def _bury(self, worker: _Worker) -> None:
        """Puts the part of a dead worker back, without the video that has killed workers twice."""
        worker.process.join()
        self._workers.remove(worker)
        part, code = worker.part, worker.process.exitcode
        if part is None:
            return
        finished = whole_lines(part.partial(self._folder))
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_STARTS:
                what = f"workers die while they load their tools (exit code {code})"
                raise UserError(what, "config.run.workers", "give them more memory, or set it to 0")
        else:
            self._deaths[part.number, len(finished)] += 1
        if self._deaths[part.number, len(finished)] >= MAX_DEATHS and len(finished) < len(part.items):
            line = failed(part.items[len(finished)], "worker_killed", f"exit code {code}, {MAX_DEATHS} times").line()
            part.partial(self._folder).write_bytes(b"".join(x + b"\n" for x in [*finished, line.encode()]))
        self._waiting.appendleft(part)
        self._start()


def _serve(pipe: Connection, settings: MeasureSettings, folder: Path, media: bool) -> None:
    """A worker's life: tools once, then part after part; ends with its parent."""
    _end_with_parent()
    try:
        tools = _load(settings, media)
        pipe.send(_READY)
        while (part := pipe.recv()) is not None:
            pipe.send(run_part(part, tools, settings, folder))
        tools.close()
    except UserError as error:
        pipe.send(UserError(error.what, error.where, error.do))


def _load(settings: MeasureSettings, media: bool) -> Tools:
    try:
        return make_tools(settings, media)
    except UserError:
        raise
    except Exception as error:
        traceback.print_exc()
        what = f"a worker cannot load its tools: {type(error).__name__}: {error}"
        raise UserError(what, "config.run.workers", "set it to 0 to load them once") from error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
