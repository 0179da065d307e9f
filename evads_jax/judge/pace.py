"""How fast and how long an endpoint is asked: rates, back-off, a retry budget and a circuit breaker.

All clocks are the event loop's; nothing here is shared between loops.
"""

import asyncio
import email.utils
import random
import time
from collections.abc import Callable, Mapping

from evads_jax.errors import UserError

LONGEST_WAIT = 120.0  # seconds; of a back-off and of a Retry-After that is taken at its word


class EndpointDown(UserError):
    """The endpoint has not answered for longer than the run is willing to wait; what was received is kept."""


class Rate:
    """Spreads units evenly over time.

    Args:
      per_minute: units per minute; 0 for no limit.
    """

    def __init__(self, per_minute: float):
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0

    async def take(self, units: float = 1.0) -> None:
        """Waits until that many units may be used."""
        if not self._gap:
            return
        now = asyncio.get_running_loop().time()
        slot = max(now, self._next)
        self._next = slot + units * self._gap
        if slot > now:
            await asyncio.sleep(slot - now)


def back_off(attempt: int, retry_after: float | None, first: float, rng: random.Random) -> float:
    """Seconds until the next attempt.

    A random time up to `first · 2^attempt` (full jitter), and not before the endpoint said.

    Args:
      attempt: failed attempts before this one, from 0.
      retry_after: what the endpoint asked for.
      first: the scale of the first wait.
      rng: the source of the jitter.
    """
    jitter = rng.uniform(0.25, 1.0) * min(first * 2.0**attempt, LONGEST_WAIT)
    return max(jitter, min(retry_after or 0.0, LONGEST_WAIT))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a reply's `Retry-After` asks for, given as a number or a date; None where it asks for none."""
    value = headers.get("retry-after", "").strip()
    try:
        return max(float(value), 0.0) if value else None
    except ValueError:
        pass
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return None


class RetryBudget:
    """At most `share` retries per request, so that a sick endpoint is not asked ever more often.

    Args:
      share: retries that every request pays for.
      floor: retries that are there from the start.
    """

    def __init__(self, share: float, floor: float = 20.0):
        self._share, self._floor, self._left = share, floor, floor

    def deposit(self) -> None:
        """A request has begun."""
        self._left += self._share

    def take(self) -> bool:
        """Whether a retry may be made; counts it."""
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def refill(self) -> None:
        """Makes the floor available again, after a pause."""
        self._left = max(self._left, self._floor)


class Breaker:
    """Pauses everybody when the endpoint fails throughout; one request at a time tries whether it is back.

    Closed: requests pass. Open, after `failures` failures in a row or `trip`: all wait for the cool-down, then one
    passes as a probe. Its success closes the breaker, its failure doubles the cool-down.

    Args:
      failures: failures in a row that open it.
      cool_down: seconds of the first pause.
      patience: seconds without any success after which `EndpointDown` is raised.
      log: told when a pause begins and ends.
      section: the config section of the endpoint, for messages.
    """

    def __init__(
        self, failures: int, cool_down: float, patience: float, log: Callable[[str], None], section: str = "judge"
    ):
        self._limit, self._first, self._patience, self._log = failures, cool_down, patience, log
        self._section = section
        self._row, self._pause, self._until, self._since = 0, cool_down, 0.0, 0.0
        self._probing, self._reason = False, ""
        self._changed = asyncio.Event()
        self.is_open = False
        self.trips = 0

    async def wait(self) -> bool:
        """Waits until a request may be sent.

        Returns:
          Whether this request is the probe; its outcome must be reported by `success` or `failure`.

        Raises:
          EndpointDown: the endpoint has been down for longer than `patience`.
        """
        loop = asyncio.get_running_loop()
        while self.is_open:
            now = loop.time()
            if now - self._since > self._patience:
                raise EndpointDown(
                    f"the endpoint has failed for {self._patience / 60:.0f} minutes ({self._reason})",
                    self._section,
                    "nothing received is lost; start again to go on",
                )
            if now >= self._until and not self._probing:
                self._probing = True
                return True
            try:
                async with asyncio.timeout(max(self._until - now, 0.01) if not self._probing else None):
                    await self._changed.wait()
            except TimeoutError:
                pass
        return False

    def success(self) -> None:
        """The endpoint answered."""
        self._row = 0
        if self.is_open:
            self._log(f"{self._section}: the endpoint answers again after {self._now() - self._since:.0f} s")
            self.is_open, self._probing, self._pause = False, False, self._first
            self._wake()

    def failure(self, reason: str, probe: bool, asked: float | None = None) -> None:
        """The endpoint failed; `asked` is its Retry-After."""
        self._row += 1
        if probe:
            self._probing = False
            self._pause = min(self._pause * 2, LONGEST_WAIT)
            self._open(reason, asked)
        elif not self.is_open and self._row >= self._limit:
            self.trip(f"{self._row} failures in a row, the last one: {reason}", asked)

    def abandon(self) -> None:
        """A probe ended without telling anything about the endpoint."""
        self._probing = False
        self._wake()

    def trip(self, reason: str, asked: float | None = None) -> None:
        """Begins a pause."""
        if not self.is_open:
            self.is_open, self._since = True, self._now()
            self.trips += 1
            self._log(f"{self._section}: paused, the endpoint fails ({reason}); nothing is given up")
            self._open(reason, asked)

    def _open(self, reason: str, asked: float | None) -> None:
        self._reason = reason
        self._until = self._now() + max(self._pause, min(asked or 0.0, LONGEST_WAIT))
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
