"""One judge for all processes of a run: they divide its requests, and each keeps what the others have paid for.

Who is asked about a request follows from what it says, so that equal ones go to one process, now and after a restart.
Verdicts are told after every call, and with them what the endpoint judge has bought. So the machine of any process may
be lost: what it had told is not paid for again, and its successor is told at the start.
"""

import dataclasses
import json
import zlib
from collections.abc import Sequence
from typing import Any

import jax

from evads_jax import processes
from evads_jax.judge.cache import VerdictCache
from evads_jax.judge.verdict import Judge, JudgeRequest, Missing, Verdict

AT_ONCE = 256  # requests of each process between two times that verdicts are told


class DividedJudge:
    """A judge that every process asks for the same verdicts, of which it gives each process's share.

    Args:
      judge: this process's own; its other attributes are this one's, too.
    """

    def __init__(self, judge: Judge):
        self.name = judge.name
        self._judge = judge

    def __getattr__(self, name: str) -> Any:
        return getattr(self._judge, name)

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict | Missing]:
        """Scores every request; all processes must give the same ones, and get the same verdicts.

        Raises:
          UserError: the judge of a process had to stop; nothing that any of them received is lost.
        """
        results: list[Verdict | Missing] = []
        size = AT_ONCE * jax.process_count()
        for start in range(0, len(requests), size):
            results += self._part(requests[start : start + size])
        return results

    def _part(self, requests: Sequence[JudgeRequest]) -> list[Verdict | Missing]:
        mine = [i for i, request in enumerate(requests) if whose(request) == jax.process_index()]
        said: list[Verdict | Missing] = []
        failure: BaseException | None = None
        try:
            if mine:
                said = self._judge.judge([requests[i] for i in mine])
        except BaseException as error:
            failure = error
        tell(self._judge)
        processes.fail_together(failure, "have its answers judged", "config.judge")
        told = processes.values([[i, *_plain(verdict)] for i, verdict in zip(mine, said, strict=True)])
        heard = {i: _verdict(*rest) for part in told for i, *rest in part}
        return [heard[i] for i in range(len(requests))]


def divided(judge: Judge) -> Judge:
    """A judge whose requests are divided among the processes of this run; of a single process, the judge itself."""
    return judge if jax.process_count() == 1 else DividedJudge(judge)


def whose(request: JudgeRequest) -> int:
    """The number of the process that asks for a verdict."""
    text = repr((request.question, request.reference, request.candidate, request.aspect))
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % jax.process_count()


def tell(judge: Judge) -> None:
    """Tells all processes what this one's judge has bought since the last time; nothing of a judge that is free.

    Every process must call it at the same point.
    """
    cache = getattr(judge, "cache", None)
    if cache is None or jax.process_count() == 1:
        return
    told = processes.values(cache.bought())

    def learn() -> None:
        for process, bought in enumerate(told):
            if process != jax.process_index():
                cache.learn(bought)

    processes.together(learn, "keep the verdicts of the others", str(cache.path))


def catch_up(cache: VerdictCache, run: str) -> None:
    """Tells all processes what the run has bought before, from the file that holds most of it: another may be new.

    Every process must call it at the same point.

    Args:
      cache: this process's.
      run: the run's name.
    """
    if jax.process_count() == 1:
        return
    held = cache.of_run(run)
    counts = processes.values([len(held["verdicts"]), len(held["spending"])])
    source = counts.index(max(counts))
    if min(counts) != max(counts):
        told = processes.from_one(source, json.dumps(held if jax.process_index() == source else None).encode())
        processes.together(lambda: cache.learn(json.loads(told)), "keep the run's verdicts", str(cache.path))


def _plain(verdict: Verdict | Missing) -> tuple[bool, dict[str, Any]]:
    return isinstance(verdict, Verdict), dataclasses.asdict(verdict)


def _verdict(known: bool, fields: dict[str, Any]) -> Verdict | Missing:
    return Verdict(**fields) if known else Missing(**fields)
