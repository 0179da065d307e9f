"""What paid judging costs: told before it is spent, and never more than allowed."""

import dataclasses
import math
import re
from collections.abc import Sequence

from evads_jax.errors import UserError

_WIDE = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
IMAGE_TOKENS = 800  # a frame of at most 512 px; endpoints count differently, most count less
_MESSAGE_TOKENS = 8


class BudgetSpent(UserError):
    """The next paid call could cost more than `max_cost` leaves; what was received is kept."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a number of calls will take.

    Attributes:
      calls: how many.
      input_tokens: tokens sent.
      output_tokens: tokens received, as far as can be foreseen.
      cost: None where the price is unknown.
    """

    calls: int
    input_tokens: int
    output_tokens: int
    cost: float | None

    def line(self, currency: str) -> str:
        """One line for people."""
        cost = "price unknown" if self.cost is None else f"about {self.cost:.4f} {currency}"
        return f"{self.calls:,} calls, about {self.input_tokens:,} tokens in and {self.output_tokens:,} out, {cost}"


def tokens(text: str) -> int:
    """An estimate of a text's tokens, rather too high: one per Chinese character, one per four others."""
    wide = len(_WIDE.findall(text))
    return wide + -(-(len(text) - wide) // 4)


def message_tokens(messages: Sequence[dict]) -> int:
    """An estimate of the tokens of chat messages, images included."""
    total = 0
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        total += _MESSAGE_TOKENS
        total += sum(tokens(part["text"]) if part["type"] == "text" else IMAGE_TOKENS for part in parts)
    return total


class Budget:
    """Counts what is spent.

    Args:
      model: the model that is asked.
      prices: (model, price of a million input tokens, of a million output tokens), …; the longest entry that the
        model's name begins with counts.
      max_cost: the most that may be spent; None for no limit.
      spent: what the run has spent before.
      currency: of all prices, for the messages.
      section: the config section of prices and limit, for the messages.
      part: of what is left when this begins, the part that may be spent here: several processes pay for one run.

    Raises:
      UserError: there is a limit, and no price for the model.
    """

    def __init__(
        self,
        model: str,
        prices: Sequence[tuple[str, float, float]],
        max_cost: float | None = None,
        spent: float = 0.0,
        currency: str = "USD",
        section: str = "judge",
        part: float = 1.0,
    ):
        rows = sorted((row for row in prices if model.startswith(row[0])), key=lambda row: len(row[0]))
        self._price = (rows[-1][1], rows[-1][2]) if rows else None
        if max_cost is not None and self._price is None:
            raise UserError(
                f"{section}.max_cost needs the price of model {model!r}",
                f"{section}.prices",
                f"add ({model!r}, price per million input tokens, per million output tokens)",
            )
        self.max_cost, self.currency, self._section, self._part = max_cost, currency, section, part
        self.begin(spent)
        self._reserved = 0.0
        self._replies, self._output = 0, 0

    @property
    def left(self) -> float:
        """What may still be spent."""
        if self.max_cost is None:
            return math.inf
        others = (1.0 - self._part) * max(self.max_cost - self._before, 0.0)
        return self.max_cost - self.spent - self._reserved - others

    def begin(self, spent: float) -> None:
        """Takes note of what the run has spent so far, also elsewhere; what is left is divided anew."""
        self.spent = self._before = spent

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """The price of one reply; 0 where it is unknown."""
        if self._price is None:
            return 0.0
        return (input_tokens * self._price[0] + output_tokens * self._price[1]) / 1e6

    def estimate(self, prompts: Sequence[int], max_tokens: int) -> Estimate:
        """What calls with these numbers of input tokens will take.

        Args:
          prompts: input tokens of each call.
          max_tokens: the most that a reply may have; after 20 replies their mean length is taken instead.
        """
        each = self._output / self._replies if self._replies >= 20 else max_tokens
        output = round(each * len(prompts))
        cost = None if self._price is None else self.cost(sum(prompts), output)
        return Estimate(len(prompts), sum(prompts), output, cost)

    def admit(self, estimate: Estimate, where: str) -> None:
        """Refuses work that will cost more than is left.

        Raises:
          BudgetSpent: with the figures.
        """
        if estimate.cost is not None and estimate.cost > self.left:
            raise self._refusal(f"this work costs about {estimate.cost:.4f} {self.currency}", where)

    def crowded(self, input_tokens: int, max_tokens: int) -> bool:
        """Whether a call has to wait because of what is set aside for others, though it may yet fit."""
        most = self.cost(input_tokens, max_tokens)
        return self.left < most <= self.left + self._reserved

    def reserve(self, input_tokens: int, max_tokens: int) -> float:
        """Sets aside the most that a call can cost; `settle` gives it back.

        Raises:
          BudgetSpent: less than that is left.
        """
        most = self.cost(input_tokens, max_tokens)
        if most > self.left:
            raise self._refusal(f"the next call may cost {most:.4f} {self.currency}", self._section)
        self._reserved += most
        return most

    def settle(self, reserved: float, input_tokens: int = 0, output_tokens: int = 0) -> float:
        """Replaces a reservation by what the reply cost; without tokens, the call brought no reply."""
        self._reserved -= reserved
        cost = self.cost(input_tokens, output_tokens)
        self.spent += cost
        if output_tokens:
            self._replies, self._output = self._replies + 1, self._output + output_tokens
        return cost

    def _refusal(self, why: str, where: str) -> BudgetSpent:
        limit = f"{self._section}.max_cost={self.max_cost:g} {self.currency}"
        here = f", {self.left:.4f} are left for this process" if self._part < 1 else ""
        return BudgetSpent(
            f"{why}, and of {limit} {self.spent:.4f} are spent{here}",
            where,
            f"nothing received is lost; raise {self._section}.max_cost and start again to go on",
        )
