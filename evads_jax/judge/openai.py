"""The judge `openai`: a language model behind any OpenAI-compatible chat-completions endpoint.

Every verdict is looked up in the cache first and is on the disk before it is used. A reply without a readable verdict
is asked for again with a changed request; what still has none is missing, with the reason. The work of one `judge` call
is told, with its cost, before any of it is done.
"""

import asyncio
import collections
import dataclasses
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ml_collections import ConfigDict

from evads_jax import storage
from evads_jax.data.annotations import grammar
from evads_jax.judge import cache as cache_module
from evads_jax.judge.budget import Budget, message_tokens
from evads_jax.judge.cache import Committer, Entry, Payment, VerdictCache
from evads_jax.judge.endpoint import Endpoint, EndpointSettings, NoReply
from evads_jax.judge.parser import parse_joint, parse_reply
from evads_jax.judge.request import Prompts, Rendered, load_prompts, render, render_joint
from evads_jax.judge.verdict import JudgeRequest, Missing, Verdict

SHOWN_IN_DRY_RUN = 10
_POLL = 0.5  # seconds between looks at what another process is asking
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class _Unit:
    """What is asked in one call: one part of a candidate, or answer and trace of one completion.

    Attributes:
      requests: field of the reply → request.
      places: field → positions in the caller's list that get its verdict.
      key: of the cache.
    """

    requests: dict[str, JudgeRequest]
    places: dict[str, list[int]]
    key: str

    def render(self, prompts: Prompts, complaint: str = "") -> Rendered:
        if len(self.requests) == 2:
            return render_joint(self.requests["answer"], self.requests["trace"], prompts, complaint)
        return render(next(iter(self.requests.values())), prompts, complaint)

    def parse(self, text: str, nonce: str, finished: bool | None) -> dict[str, Verdict | Missing]:
        if len(self.requests) == 2:
            return parse_joint(text, nonce=nonce, finished=finished)
        return {"score": parse_reply(text, nonce=nonce, finished=finished)}


class OpenAIJudge:
    """Judges through an endpoint.

    Args:
      settings: the endpoint.
      prompts: version of the prompts.
      language: "zh" or "en".
      cache: where verdicts are kept.
      malformed_retries: further attempts after replies without a readable verdict.
      joint: whether answer and trace of one completion are judged in one call.
      dry_run: show what would be asked and leave.
      repeat: number of the repetition; each has verdicts of its own.
      run: names the run that pays, so that `max_cost` holds over its restarts.
      part: of what `max_cost` leaves at the beginning of a call, the part that this process may spend.
      section: the config section, for messages.
      check: whether to find out now that the endpoint can be used.
      log: told what is about to be done.

    Raises:
      UserError: no key, unreachable host, unknown model, no price for a limit.
    """

    name = "openai"

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        cache: VerdictCache,
        language: str = "en",
        prompts: str = "v1",
        malformed_retries: int = 2,
        joint: bool = False,
        dry_run: bool = False,
        repeat: int = 0,
        run: str = "",
        part: float = 1.0,
        section: str = "judge",
        check: bool = True,
        log: Callable[[str], None] = print,
    ):
        self.settings, self.cache, self._log, self._run_name, self._section = settings, cache, log, run, section
        self._prompts = load_prompts(prompts, language)
        self._malformed_retries, self._joint, self._dry_run, self._repeat = malformed_retries, joint, dry_run, repeat
        spent = cache.spent(run) if run else 0.0
        limits = settings.prices, settings.max_cost, spent, settings.currency
        self.budget = Budget(settings.model, *limits, section, part)
        self._endpoint = Endpoint(settings, self.budget, log, section)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="judge", daemon=True).start()
        self._disk = ThreadPoolExecutor(1, "verdicts")
        self._committer = Committer(cache, self._disk, run)
        self._tally: collections.Counter[str] = collections.Counter()
        if check and not dry_run:
            self._run(self._endpoint.check())

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict | Missing]:
        """Scores every request.

        Raises:
          BudgetSpent: the work costs more than `max_cost` leaves; nothing that was received is lost.
          EndpointDown: the endpoint failed for too long; nothing that was received is lost.
          SystemExit: with code 0, after a dry run.
        """
        if self._run_name:  # the run may have other judges
            self.budget.begin(self.cache.spent(self._run_name))
        results: list[Verdict | Missing | None] = [None] * len(requests)
        for i, request in enumerate(requests):
            if not request.candidate.strip():
                results[i] = Verdict(0.0, "empty")
        units = self._units(requests, {i for i, result in enumerate(results) if result is None})
        waiting = self._known(units, results)
        self._tally["verdicts"] += len(requests)
        self._tally["from cache"] += sum(result is not None and result.reason != "empty" for result in results)
        if waiting:
            self._announce(waiting)
            self._run(self._ask_all(waiting, results))
        self._tally["missing"] += sum(isinstance(result, Missing) for result in results)
        return [result if result is not None else Missing("not asked") for result in results]

    def report(self) -> dict[str, Any]:
        """What was asked and paid so far; for logs and reports."""
        counts, verdicts = self._endpoint.counts, self._tally["verdicts"]
        return {
            "verdicts": verdicts,
            "from_cache": self._tally["from cache"],
            "hit_rate": self._tally["from cache"] / verdicts if verdicts else 0.0,
            "missing": self._tally["missing"],
            "malformed": self._tally["malformed"],
            "calls": counts.requests,
            "attempts": counts.attempts,
            "failures": dict(counts.failures),
            "pauses": self._endpoint.breaker.trips,
            "input_tokens": counts.input_tokens,
            "output_tokens": counts.output_tokens,
            "cost": self.budget.spent,
            "currency": self.budget.currency,
        }

    @property
    def description(self) -> dict[str, Any]:
        """What the verdicts depend on; never the key."""
        return {
            "kind": self.name,
            "model": self.settings.model,
            "prompts": self._prompts.version,
            "prompts_digest": self._prompts.digest,
            "language": self._prompts.language,
            "joint": self._joint,
            "sampling": self.settings.sampling,
        }

    def close(self) -> None:
        """Closes connections and threads; the cache stays open."""
        self._loop.call_soon_threadsafe(self._endpoint.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._disk.shutdown()

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _key(self, requests: Sequence[JudgeRequest]) -> str:
        first = requests[0]
        return cache_module.key(
            prompts=[self._prompts.version, self._prompts.digest],
            model=[self.settings.base_url, self.settings.model],
            sampling=self.settings.sampling,
            repeat=self._repeat,
            question=first.question,
            evidence=[[grammar.format_line(event) for event in first.events], first.clues],
            reference=first.reference,
            candidate=[[request.aspect, request.candidate] for request in requests],
        )

    def _unit(self, fields: dict[str, JudgeRequest], places: dict[str, list[int]]) -> _Unit:
        return _Unit(fields, places, self._key(list(fields.values())))

    def _units(self, requests: Sequence[JudgeRequest], places: set[int]) -> list[_Unit]:
        """The calls for the requests at these places; equal requests share one."""
        pairs, single = _pairs(requests) if self._joint else ([], range(len(requests)))
        single = [i for i in [*single, *(i for p in pairs if not places.issuperset(p) for i in p)] if i in places]
        pairs = [pair for pair in pairs if places.issuperset(pair)]
        units: dict[str, _Unit] = {}
        for group in [*({"answer": a, "trace": t} for a, t in pairs), *({"score": i} for i in single)]:
            fields = {name: requests[i] for name, i in group.items()}
            unit = self._unit(fields, {name: [] for name in group})
            unit = units.setdefault(unit.key, unit)
            for name, i in group.items():
                unit.places[name].append(i)
        return list(units.values())

    def _known(self, units: Sequence[_Unit], results: list[Verdict | Missing | None]) -> list[_Unit]:
        """Puts the cached verdicts into `results`; the units that lack one."""
        cached = self.cache.get(unit.key for unit in units)
        waiting = []
        for unit in units:
            found = {field: cached.get((unit.key, field)) for field in unit.requests}
            if all(found.values()):
                _place(unit, found, results)
            else:
                waiting.append(unit)
        return waiting

    def _announce(self, units: Sequence[_Unit]) -> None:
        """Tells the work and its cost, and refuses it when it is too much; shows it and leaves in a dry run."""
        sample = [unit.render(self._prompts) for unit in units[:SHOWN_IN_DRY_RUN]] if self._dry_run else []
        for number, rendered in enumerate(sample, 1):
            self._log(f"--- request {number}\n[system]\n{rendered.system}\n[user]\n{rendered.user}")
        prompts = [message_tokens(unit.render(self._prompts).messages) for unit in units]
        estimate = self.budget.estimate(prompts, self.settings.max_tokens)
        if self._dry_run:
            self._log(f"dry run, nothing was sent; the work would take {estimate.line(self.budget.currency)}")
            raise SystemExit(0)
        # A training step asks for a few calls; a line each time would drown the log.
        if not self._tally["announced"] or len(units) >= self._tally["announced"] * 2:
            self._tally["announced"] = len(units)
            self._log(f"judge {self.settings.model}: {estimate.line(self.budget.currency)}")
        self.budget.admit(estimate, self._section)

    async def _ask_all(self, units: Sequence[_Unit], results: list[Verdict | Missing | None]) -> None:
        """Asks for all units with bounded concurrency; when one must stop, the ones under way are finished first."""
        queue = collections.deque(units)
        failure: list[BaseException] = []

        async def worker() -> None:
            while queue and not failure:
                unit = queue.popleft()
                try:
                    _place(unit, await self._ask(unit), results)
                except Exception as error:
                    failure.append(error)

        # More workers than slots: those that wait for a second attempt hold no slot.
        count = min(4 * self.settings.concurrency, len(units))
        await asyncio.gather(*(worker() for _ in range(count)))
        if failure:
            raise failure[0]

    async def _ask(self, unit: _Unit) -> dict[str, Verdict | Missing]:
        """The verdicts of one unit, from this process's asking or from another's."""
        on_disk = asyncio.get_running_loop().run_in_executor
        while not await on_disk(self._disk, self.cache.claim, unit.key):
            await asyncio.sleep(_POLL)
        known = await on_disk(self._disk, self.cache.get, [unit.key])
        got: dict[str, Verdict | Missing] = {f: known.get((unit.key, f), Missing("not asked")) for f in unit.requests}
        try:
            if any(isinstance(verdict, Missing) for verdict in got.values()):
                got = await self._converse(unit, got)
        except BaseException:
            self.cache.release(unit.key)
            raise
        await on_disk(self._disk, self.cache.release, unit.key)
        return got

    async def _converse(self, unit: _Unit, known: Mapping[str, Verdict | Missing]) -> dict[str, Verdict | Missing]:
        """Asks until every field has a verdict or the attempts are used up; verdicts that are known stay.

        A verdict is on the disk with its payment, whatever becomes of the other field.
        """
        complaint, cost, got = "", 0.0, dict(known)
        for _ in range(self._malformed_retries + 1):
            rendered = unit.render(self._prompts, complaint)
            reply = await self._endpoint.complete(rendered.messages)
            if isinstance(reply, NoReply):
                got |= {field: Missing(reply.reason) for field, old in got.items() if isinstance(old, Missing)}
                break
            cost += reply.cost
            said = unit.parse(reply.text, rendered.nonce, reply.finished)
            said = {field: said[field] for field, old in got.items() if isinstance(old, Missing)}
            got |= said
            problems = [verdict.reason for verdict in got.values() if isinstance(verdict, Missing)]
            payment = Payment(
                self.settings.model, reply.input_tokens, reply.output_tokens, reply.cost, (problems or ["verdict"])[0]
            )
            entries = [
                Entry(
                    unit.key,
                    field,
                    dataclasses.replace(verdict, cost=cost / len(got)),
                    f"{self.settings.model} {unit.requests[field].video}",
                )
                for field, verdict in said.items()
                if isinstance(verdict, Verdict)
            ]
            await self._committer.put(entries, [payment])
            if not problems:
                break
            self._tally["malformed"] += 1
            complaint = problems[0].partition(":")[0]  # what follows the colon may be the reply's own words
        return {field: dataclasses.replace(verdict, cost=cost / len(got)) for field, verdict in got.items()}


def _pairs(requests: Sequence[JudgeRequest]) -> tuple[list[tuple[int, int]], list[int]]:
    """The places of answers and traces of the same completions, and those that have no partner.

    A request does not name its completion: the k-th answer to a question belongs to the k-th trace, where there are as
    many of the one as of the other.
    """
    groups: dict[tuple, dict[str, list[int]]] = {}
    for i, r in enumerate(requests):
        group = groups.setdefault((r.video, r.question, r.reference, r.clues, r.events), {"answer": [], "trace": []})
        group[r.aspect].append(i)
    pairs: list[tuple[int, int]] = []
    single: list[int] = []
    for group in groups.values():
        if len(group["answer"]) == len(group["trace"]):
            pairs += zip(group["answer"], group["trace"], strict=True)
        else:
            single += sorted(group["answer"] + group["trace"])
    return pairs, single


def _place(unit: _Unit, verdicts: dict[str, Any], results: list[Verdict | Missing | None]) -> None:
    """Gives a unit's verdicts to all who asked; its cost is counted once."""
    for field, places in unit.places.items():
        for number, i in enumerate(places):
            verdict = verdicts[field]
            results[i] = verdict if number == 0 else dataclasses.replace(verdict, cost=0.0)


def from_config(
    config: ConfigDict,
    language: str,
    workdir: Path | None = None,
    log: Callable[[str], None] = print,
    repeat: int = 0,
    section: str = "judge",
) -> OpenAIJudge:
    """The judge that a config section asks for; of several processes each has its part of the run's limits.

    They must make their judges at the same point.

    Args:
      config: the section.
      language: "zh" or "en".
      workdir: the run's folder; its name is what `max_cost` is counted under over restarts.
      log: told what is about to be done.
      repeat: number of the repetition; each has verdicts of its own.
      section: what the section is called, for messages.
    """
    import jax  # not before it is needed

    from evads_jax import processes
    from evads_jax.judge import divided

    count, run = jax.process_count(), str(storage.address(workdir.resolve())) if workdir else ""

    def opened() -> tuple[EndpointSettings, VerdictCache]:
        settings = EndpointSettings.from_config(config, section).shared(count)
        return settings, VerdictCache(config.get("cache") or cache_module.default_path(workdir), tells=count > 1)

    settings, cache = processes.together(opened, "open its verdicts", section)
    divided.catch_up(cache, run)

    def made() -> OpenAIJudge:
        return OpenAIJudge(
            settings,
            cache=cache,
            language=language,
            prompts=config.get("prompts", "v1"),
            malformed_retries=config.get("malformed_retries", 2),
            joint=config.get("joint", False),
            dry_run=config.get("dry_run", False),
            repeat=repeat,
            section=section,
            run=run,
            part=1.0 / count,
            log=log,
        )

    return processes.together(made, "use its judge", section)
