"""A chat-completions server on loopback that answers as judges do and fails as networks do, by script.

The truth is in the candidate: «… worth 0.75» in its fence. What goes wrong is decided by the candidate and the number
of the attempt, so that a run can be repeated. A reply counts as delivered when it was sent whole and the client was
still there.
"""

import asyncio
import collections
import contextlib
import dataclasses
import json
import random
import re
import threading
from collections.abc import Callable

import h11

TRANSPORT = ("429", "500", "hang", "half", "reset", "wrong json", "no choices", "not json", "too slow")
CONTENT = ("empty", "cut off", "off grid", "changes its mind", "no verdict")
SLOW = ("slow",)
FAULTS = (*TRANSPORT, *CONTENT, *SLOW)
GOOD = (
    '{{"reason": "as the rubric says", "score": {}}}',
    "**Score:** {}.",
    "<think>maybe 1.0?</think>\n得分：{}",
    '```json\n{{"score": "{}"}}\n```',
)


@dataclasses.dataclass
class Script:
    """How the server behaves.

    Attributes:
      share: of attempts that go wrong.
      faults: what can go wrong.
      seed: of the choice.
      latency: seconds before a good reply.
      retry_after: sent with 429.
      hang: seconds that a hanging reply takes.
      down: while true, every request gets 503.
      key: the only key that is accepted; None for any.
      models: listed at /models; empty answers 404.
      answer: messages → the reply's text, instead of a judge's.
    """

    share: float = 0.0
    faults: tuple[str, ...] = FAULTS
    seed: int = 0
    latency: float = 0.0
    retry_after: float = 0.05
    hang: float = 30.0
    down: bool = False
    key: str | None = None
    models: tuple[str, ...] = ("judge-1",)
    answer: Callable[[list], str] | None = None


class Server:
    """The server, in a thread of its own; a context manager."""

    def __init__(self, script: Script):
        self.script = script
        self.attempts: collections.Counter[str] = collections.Counter()
        self.delivered: collections.Counter[str] = collections.Counter()
        self.faults: collections.Counter[str] = collections.Counter()
        self.payloads: list[dict] = []
        self.keep_payloads = True
        self.times: list[float] = []
        self.connections = 0
        self.under_way = self.most_under_way = 0
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task] = set()

    def __enter__(self) -> "Server":
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512), self._loop
        ).result()
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        async def stop() -> None:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(task := asyncio.current_task())
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.CancelledError, h11.RemoteProtocolError):
            connection = h11.Connection(h11.SERVER)
            while await self._exchange(connection, reader, writer):
                connection.start_next_cycle()
        writer.close()

    async def _exchange(self, connection, reader, writer) -> bool:
        request, body = None, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(1 << 16))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return await self._answer(connection, reader, writer, request, body)
        finally:
            self.under_way -= 1

    async def _answer(self, connection, reader, writer, request, body) -> bool:
        headers = {name.decode(): value.decode() for name, value in request.headers}
        if self.script.key is not None and headers.get("authorization") != f"Bearer {self.script.key}":
            said = f"Incorrect API key provided: {headers.get('authorization')}"
            return await self._send(connection, writer, 401, {"error": {"message": said}})
        if request.target == b"/v1/models":
            data = {"data": [{"id": name} for name in self.script.models]}
            return await self._send(connection, writer, 200 if self.script.models else 404, data)
        if request.target != b"/v1/chat/completions":
            return await self._send(connection, writer, 404, {"error": "no such path"})
        self.times.append(self._loop.time())
        payload = json.loads(body)
        if self.keep_payloads:
            self.payloads.append(payload)
        name, truth = subject(payload)
        attempt = self.attempts[name]
        self.attempts[name] += 1
        rng = random.Random(f"{self.script.seed} {name} {attempt}")
        fault = rng.choice(self.script.faults) if rng.random() < self.script.share else ""
        if self.script.down:
            fault = "503"
        if fault:
            self.faults[fault] += 1
        text = self.script.answer(payload["messages"]) if self.script.answer else rng.choice(GOOD).format(truth)
        return await self._deliver(connection, writer, name, fault, text, payload)

    async def _deliver(self, connection, writer, name, fault, text, payload) -> bool:
        if fault in ("429", "500", "503"):
            after = [("Retry-After", str(self.script.retry_after))] if fault == "429" else []
            return await self._send(connection, writer, int(fault), {"error": {"message": "later"}}, after)
        if fault == "hang":
            await asyncio.sleep(self.script.hang)
            return False
        if fault == "reset":
            writer.transport.abort()
            return False
        if fault == "wrong json":
            return await self._send(connection, writer, 200, b'{"choices": [{"message": {"content": "Sco')
        if fault == "no choices":
            return await self._send(connection, writer, 200, {"choices": [], "object": "chat.completion"})
        if fault == "not json":
            return await self._send(connection, writer, 200, b"<html>gateway</html>")
        finish = "length" if fault == "cut off" else "stop"
        text = {
            "empty": "",
            "cut off": '{"reason": "the answer is',
            "off grid": "Score: 0.8",
            "changes its mind": "Score: 0.25\n\nOn reflection:\nScore: 0.5",
            "no verdict": "I would rather not say.",
        }.get(fault, text)
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        data = {
            "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}],
            "usage": usage,
        }
        await asyncio.sleep(self.script.latency)
        pieces = {"half": -2, "slow": 5, "too slow": 40}.get(fault, 1)
        wait = 0.02 if fault == "slow" else self.script.hang / 40
        whole = await self._send(connection, writer, 200, data, pieces=pieces, wait=wait)
        if whole and fault not in CONTENT:
            self.delivered[name] += 1
        return whole

    async def _send(self, connection, writer, status, data, headers=(), pieces: int = 1, wait: float = 0.0) -> bool:
        body = data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()
        head = h11.Response(
            status_code=status,
            headers=[("Content-Length", str(len(body))), ("Content-Type", "application/json"), *headers],
        )
        writer.write(connection.send(head))
        if pieces < 0:
            writer.write(body[: len(body) // 2])
            await writer.drain()
            return False
        size = -(-len(body) // pieces)
        for start in range(0, len(body), size):
            writer.write(connection.send(h11.Data(data=body[start : start + size])))
            await writer.drain()
            if wait and pieces > 1:
                await asyncio.sleep(wait)
                if writer.is_closing():
                    return False
        connection.send(h11.EndOfMessage())
        await writer.drain()
        return connection.our_state is h11.DONE


def subject(payload: dict) -> tuple[str, str]:
    """The candidate that a request is about, and the score it is worth."""
    content = payload["messages"][-1]["content"]
    text = content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)
    found = re.search(r"\[BEGIN candidate \w+\]\n(.*?)\n\[END candidate", text, re.DOTALL)
    name = found[1] if found else text[:80]
    worth = re.search(r"worth ([\d.]+)", name)
    return name, worth[1] if worth else "0"
