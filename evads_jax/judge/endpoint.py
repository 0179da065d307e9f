"""One model behind an OpenAI-compatible chat-completions endpoint: a reply, or the reason why there is none.

Only what may pass by itself is tried again: failures of the transport, 408, 409, 425, 429, 5xx, and replies that are no
chat completion. What a reply says is the caller's concern. The key is read from the environment, goes into one header,
and is taken out of everything that is shown or kept.
"""

import asyncio
import dataclasses
import difflib
import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from evads_jax.errors import UserError
from evads_jax.judge.budget import Budget, message_tokens, tokens
from evads_jax.judge.http import HttpClient, HttpReply, TransportError
from evads_jax.judge.pace import Breaker, Rate, RetryBudget, back_off, retry_after

RETRIED = frozenset({408, 409, 425, 429, *range(500, 600)})
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SHORTEST_SECRET = 8  # characters
_FINISHED = {"stop": True, "length": False}  # what other reasons mean (`eos_token`, `COMPLETE`, …) is not known


@dataclasses.dataclass(frozen=True)
class EndpointSettings:
    """How an endpoint is asked.

    Attributes:
      base_url: up to and without `/chat/completions`.
      model: its name there.
      key_env: the environment variable that holds the key; "" for an endpoint without one.
      temperature: of the sampling.
      max_tokens: the most that a reply may have.
      seed: of the sampling; None sends none.
      body: JSON object put over the request's body; a null takes a field out.
      concurrency: requests under way at the same time.
      requests_per_minute, tokens_per_minute: 0 for no limit; tokens are estimated, the longest reply included.
      timeout: seconds for one exchange.
      retries: further attempts after failures of the transport.
      retry_share: further attempts that every request pays for, over all requests.
      back_off: seconds; the scale of the first wait.
      breaker_failures, breaker_pause: failures in a row that pause everything, and seconds of the first pause.
      patience: seconds of failing throughout after which the run ends.
      prices: (model, price of a million input tokens, of a million output tokens), …
      max_cost: the most that a run may spend; None for no limit.
      currency: of the prices.
    """

    base_url: str
    model: str
    key_env: str = "OPENAI_API_KEY"
    temperature: float = 0.0
    max_tokens: int = 512
    seed: int | None = None
    body: str = ""
    concurrency: int = 16
    requests_per_minute: float = 0.0
    tokens_per_minute: float = 0.0
    timeout: float = 60.0
    retries: int = 6
    retry_share: float = 1.0
    back_off: float = 1.0
    breaker_failures: int = 12
    breaker_pause: float = 5.0
    patience: float = 1800.0
    prices: tuple[tuple[str, float, float], ...] = ()
    max_cost: float | None = None
    currency: str = "USD"

    @classmethod
    def from_config(cls, config: ConfigDict, section: str) -> "EndpointSettings":
        """The settings in a config section; what it leaves out keeps its default.

        Raises:
          UserError: no endpoint or no model is named, or a value is impossible.
        """
        fields = {f.name: config[f.name] for f in dataclasses.fields(cls) if f.name in config}
        for name, example in (("base_url", "https://host/v1"), ("model", "the model's name at the endpoint")):
            if not fields.get(name):
                raise UserError(f"no {name}", f"{section}.{name}", f"set it: {example}")
        fields["prices"] = tuple((str(m), float(i), float(o)) for m, i, o in fields.get("prices") or ())
        settings = cls(**fields)
        if settings.concurrency < 1 or settings.timeout <= 0 or settings.max_tokens < 1:
            raise UserError("concurrency, timeout and max_tokens must be positive", section)
        settings.overrides(section)
        return settings

    def overrides(self, section: str = "judge") -> dict[str, Any]:
        """The parsed `body`.

        Raises:
          UserError: it is no JSON object.
        """
        try:
            parsed = json.loads(self.body or "{}")
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise UserError("not a JSON object", f"{section}.body", 'e.g. {"max_tokens": null}')
        return parsed

    def shared(self, count: int) -> "EndpointSettings":
        """Those of one of `count` processes that ask at the same time; `max_cost` stays the run's (`Budget`)."""
        return dataclasses.replace(
            self,
            requests_per_minute=self.requests_per_minute / count,  # 0 is no limit
            tokens_per_minute=self.tokens_per_minute / count,
            concurrency=max(self.concurrency // count, 1),
        )

    @property
    def sampling(self) -> dict[str, Any]:
        """What a reply depends on besides the messages."""
        return {"temperature": self.temperature, "max_tokens": self.max_tokens, "seed": self.seed, "body": self.body}


@dataclasses.dataclass(frozen=True)
class ChatReply:
    """A reply of the model.

    Attributes:
      text: its words.
      finished: whether it came to its end; None where the endpoint does not say so in words that are known.
      input_tokens, output_tokens: as counted by the endpoint, else estimated.
      cost: in the currency of the price table.
    """

    text: str
    finished: bool | None
    input_tokens: int
    output_tokens: int
    cost: float


@dataclasses.dataclass(frozen=True)
class NoReply:
    """The endpoint gave no reply to this request, and asking again would not help."""

    reason: str


@dataclasses.dataclass
class Counts:
    """What happened so far."""

    requests: int = 0
    attempts: int = 0
    retries: int = 0
    failures: dict[str, int] = dataclasses.field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0

    def failed(self, kind: str) -> None:
        """Counts a failure by its kind."""
        self.failures[kind] = self.failures.get(kind, 0) + 1


class Endpoint:
    """A model behind an endpoint; to be used from one event loop.

    Args:
      settings: where it is and how it is asked.
      budget: what may be spent.
      log: told about pauses.
      section: the config section, for messages.

    Raises:
      UserError: there is no key, or the URL is none.
    """

    def __init__(
        self, settings: EndpointSettings, budget: Budget, log: Callable[[str], None] = print, section: str = "judge"
    ):
        self.settings, self.budget, self.counts, self._section = settings, budget, Counts(), section
        self._key = os.environ.get(settings.key_env, "").strip() if settings.key_env else ""
        headers = {"User-Agent": "evads_jax", **({"Authorization": f"Bearer {self._key}"} if self._key else {})}
        if not self._key.isascii() or not self._key.isprintable():
            raise UserError("the key holds characters that no key has", settings.key_env)
        self._http = HttpClient(settings.base_url, headers, f"{section}.base_url")
        if settings.key_env and not self._key and self._http.host not in _LOOPBACK:
            raise UserError(
                "no key", settings.key_env, f"export it, or set {section}.key_env='' for an endpoint without one"
            )
        self._requests, self._tokens = Rate(settings.requests_per_minute), Rate(settings.tokens_per_minute)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._retry_budget = RetryBudget(settings.retry_share)
        self.breaker = Breaker(settings.breaker_failures, settings.breaker_pause, settings.patience, log, section)
        self._rng = random.Random()
        self._successes = 0

    async def check(self) -> None:
        """Finds out, without cost, whether the endpoint can be used.

        Raises:
          UserError: it cannot be reached, refuses the key, or does not know the model.
        """
        try:
            reply = await self._http.request("GET", "/models", timeout=min(self.settings.timeout, 20.0))
        except TransportError as error:
            raise UserError(f"the endpoint cannot be used: {error}", f"{self._section}.base_url") from None
        if reply.status == 404:  # it lists no models; what it says may well name the path
            return
        self._refuse_fatal(reply)
        known = _model_names(reply)
        if reply.status == 200 and known and self.settings.model not in known:
            near = difflib.get_close_matches(self.settings.model, known, n=3, cutoff=0.3) or sorted(known)[:3]
            raise UserError(
                f"the endpoint does not know the model {self.settings.model!r}",
                f"{self._section}.model",
                "it has " + ", ".join(near),
            )

    async def complete(self, messages: Sequence[dict], **body: Any) -> ChatReply | NoReply:
        """The model's reply to messages.

        Args:
          messages: as chat completions take them.
          **body: put over the request's body.

        Raises:
          BudgetSpent: the call could cost more than is left.
          EndpointDown: the endpoint failed for longer than `patience`.
          UserError: the endpoint refuses the key, the account or the model.
        """
        payload = self._payload(messages, body)
        expected = message_tokens(messages)
        self.counts.requests += 1
        self._retry_budget.deposit()
        attempt, successes_before = 0, self._successes
        while True:
            outcome, asked = await self._attempt(payload, expected)
            if not isinstance(outcome, str):
                return outcome
            if self.breaker.is_open:
                self._retry_budget.refill()
                continue  # an outage is nobody's own failure
            attempt += 1
            if attempt > self.settings.retries:
                if self._successes > successes_before:
                    return NoReply(f"{outcome} ({attempt} attempts)")
                self.breaker.trip(outcome, asked)
            elif not self._retry_budget.take():
                self.breaker.trip(f"too many retries, the last one for: {outcome}", asked)
            else:
                self.counts.retries += 1
                await asyncio.sleep(back_off(attempt - 1, asked, self.settings.back_off, self._rng))

    def redact(self, text: str) -> str:
        """The text without the key; what stands for none («-», «EMPTY») is no secret and may be a part of any word."""
        return text.replace(self._key, "[key]") if len(self._key) >= _SHORTEST_SECRET else text

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    async def _attempt(self, payload: dict, expected: int) -> tuple[ChatReply | NoReply | str, float | None]:
        """One exchange: a reply, no reply, or the reason to try again with the endpoint's Retry-After."""
        settings = self.settings
        async with self._slots:
            probe = await self.breaker.wait()
            told = False
            try:
                while self.budget.crowded(expected, settings.max_tokens):
                    await asyncio.sleep(0.05)
                reserved = self.budget.reserve(expected, settings.max_tokens)
                try:
                    await self._tokens.take(expected + settings.max_tokens)
                    await self._requests.take()
                    self.counts.attempts += 1
                    reply = await self._http.request("POST", "/chat/completions", payload, settings.timeout)
                except TransportError as error:
                    problem, asked = str(error), None
                else:
                    self._refuse_fatal(reply)
                    outcome = self._read(reply, payload, expected)
                    if not isinstance(outcome, str):
                        told = True
                        self.breaker.success()
                        self._successes += 1
                        return self._paid(outcome, reserved)
                    problem, asked = outcome, retry_after(reply.headers)
                self.budget.settle(reserved)
                self.counts.failed(problem.partition(" (")[0])
                told = True
                self.breaker.failure(problem, probe, asked)
                return problem, asked
            finally:
                if probe and not told:
                    self.breaker.abandon()

    def _paid(self, outcome: ChatReply | NoReply, reserved: float) -> tuple[ChatReply | NoReply, None]:
        if isinstance(outcome, NoReply):
            self.budget.settle(reserved)
            self.counts.failed(outcome.reason.partition(":")[0])
            return outcome, None
        cost = self.budget.settle(reserved, outcome.input_tokens, outcome.output_tokens)
        self.counts.input_tokens += outcome.input_tokens
        self.counts.output_tokens += outcome.output_tokens
        return dataclasses.replace(outcome, cost=cost), None

    def _payload(self, messages: Sequence[dict], body: Mapping[str, Any]) -> dict[str, Any]:
        settings = self.settings
        payload: dict[str, Any] = {
            "model": settings.model,
            "messages": list(messages),
            "temperature": settings.temperature,
            "max_tokens": settings.max_tokens,
            "seed": settings.seed,
        }
        payload |= {**body, **settings.overrides(self._section)}
        return {name: value for name, value in payload.items() if value is not None}

    def _refuse_fatal(self, reply: HttpReply) -> None:
        """Raises for replies that mean that no request will ever be answered."""
        status, where = reply.status, self._section
        if status in (401, 403):
            raise UserError(f"the endpoint refuses the key (HTTP {status})", self.settings.key_env or where)
        if status == 402 or (status == 429 and b"insufficient_quota" in reply.body):
            raise UserError("the account at the endpoint is spent", where, "nothing received is lost; top it up")
        if status == 404 and b"model" in reply.body.lower():
            raise UserError(f"the endpoint does not know the model {self.settings.model!r}", f"{where}.model")

    def _read(self, reply: HttpReply, payload: dict, expected: int) -> ChatReply | NoReply | str:
        """A completion from a reply; a text is the reason to try again."""
        if reply.status in RETRIED:
            return f"HTTP {reply.status}"
        if reply.status == 404:
            raise UserError(
                "the endpoint has no /chat/completions (HTTP 404)", f"{self._section}.base_url", "it often ends in /v1"
            )
        if reply.status != 200:
            said = " ".join(self.redact(reply.body[:400].decode("utf-8", "replace")).split())
            return NoReply(f"refused by the endpoint: HTTP {reply.status} {said[:200]}")
        try:
            data = json.loads(reply.body)
            choice = data["choices"][0]
            text = choice["message"]["content"]
        except (ValueError, TypeError, LookupError, RecursionError):
            return "not a chat completion"
        if not isinstance(text, str | None):
            return "not a chat completion"
        reason = choice.get("finish_reason")
        if reason == "content_filter":
            return NoReply("refused by the endpoint: content filter")
        usage = data.get("usage") if isinstance(data.get("usage"), dict) else {}
        text = self.redact(text or "")
        return ChatReply(
            text=text,
            finished=_FINISHED.get(str(reason)),
            input_tokens=_count(usage.get("prompt_tokens"), expected),
            output_tokens=_count(usage.get("completion_tokens"), tokens(text)),
            cost=0.0,
        )


def _count(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else otherwise


def _model_names(reply: HttpReply) -> set[str]:
    """The models that an endpoint lists; empty where it lists none that can be read."""
    try:
        return {str(entry["id"]) for entry in json.loads(reply.body)["data"]}
    except (ValueError, TypeError, LookupError):
        return set()
