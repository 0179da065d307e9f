"""Who writes: a model behind an endpoint, or the embedded script (`qa.scripted`)."""

import dataclasses
from typing import Any, Protocol

from evads_jax.benchmark.qa.prompting import Call
from evads_jax.judge.endpoint import Endpoint, NoReply


@dataclasses.dataclass(frozen=True)
class Written:
    """A writer's reply.

    Attributes:
      text: its words.
      problem: why there is none, in place of a text.
      input_tokens, output_tokens, cost: what it took.
    """

    text: str
    problem: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0


class Writer(Protocol):
    """Answers calls.

    Attributes:
      name: kept with every message.
      sees_frames: whether it is shown frames.
    """

    name: str
    sees_frames: bool

    async def reply(self, call: Call, messages: list[dict[str, Any]]) -> Written:
        """The reply to a call; `messages` is the call in words."""
        ...


class EndpointWriter:
    """A model that takes images, behind a chat-completions endpoint.

    Args:
      endpoint: the model.
    """

    sees_frames = True

    def __init__(self, endpoint: Endpoint):
        self._endpoint = endpoint
        self.name = endpoint.settings.model

    async def reply(self, call: Call, messages: list[dict[str, Any]]) -> Written:
        """See `Writer`."""
        reply = await self._endpoint.complete(messages)
        if isinstance(reply, NoReply):
            return Written("", reply.reason)
        problem = "cut off" if reply.finished is False else ""
        return Written(reply.text, problem, reply.input_tokens, reply.output_tokens, reply.cost)
