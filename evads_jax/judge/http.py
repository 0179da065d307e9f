"""A small HTTP/1.1 client on asyncio: persistent connections, one deadline for a whole exchange, typed failures.

The protocol itself is `h11`'s; sockets, TLS and timeouts are asyncio's.
"""

import asyncio
import dataclasses
import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import h11

from evads_jax.errors import UserError

CONNECT_TIMEOUT = 10.0  # seconds
LARGEST_REPLY = 16 << 20  # bytes
_CHUNK = 1 << 16


class TransportError(Exception):
    """An exchange that brought no whole reply; the message says why, without any of what was sent."""


@dataclasses.dataclass(frozen=True)
class HttpReply:
    """A whole reply.

    Attributes:
      status: the status code.
      headers: by lower-case name.
      body: its bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Connection:
    """A socket with its protocol state."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer
        self.state = h11.Connection(h11.CLIENT)

    @property
    def usable(self) -> bool:
        return self.state.our_state is h11.IDLE and not self.reader.at_eof() and not self.writer.is_closing()

    async def exchange(self, request: h11.Request, body: bytes) -> HttpReply:
        send = self.state.send
        out = [send(request), send(h11.Data(data=body)) if body else b"", send(h11.EndOfMessage())]
        self.writer.write(b"".join(part for part in out if part))
        await self.writer.drain()
        response, chunks, size = None, [], 0
        while True:
            event = self.state.next_event()
            if event is h11.NEED_DATA:
                self.state.receive_data(await self.reader.read(_CHUNK))
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                chunks.append(bytes(event.data))
                if (size := size + len(event.data)) > LARGEST_REPLY:
                    raise TransportError(f"reply of more than {LARGEST_REPLY >> 20} MiB")
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise TransportError("connection closed before the reply was whole")
        if response is None:
            raise TransportError("no reply")
        if self.state.our_state is h11.DONE and self.state.their_state is h11.DONE:
            self.state.start_next_cycle()
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        return HttpReply(response.status_code, headers, b"".join(chunks))


class HttpClient:
    """Exchanges with one host; to be used from one event loop.

    Args:
      base_url: `http(s)://host[:port][/path]`; the paths of requests are put behind it.
      headers: sent with every request.
      field: the config field that holds the URL, for messages.

    Raises:
      UserError: the URL is none of these.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str], field: str = "judge.base_url"):
        try:
            url = urlsplit(base_url)
            self.host, self.port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        except ValueError:
            raise UserError("not a URL", field, "e.g. https://host/v1") from None
        if (
            url.scheme not in ("http", "https")
            or not self.host
            or url.username
            or url.query
            or url.fragment
            or not base_url.isascii()
        ):
            raise UserError("not a base URL", field, "e.g. https://host/v1, without key, query or fragment")
        self._path = url.path.rstrip("/")
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self._headers = [("Host", url.netloc), ("Accept", "application/json"), *headers.items()]
        self._idle: list[_Connection] = []

    async def request(self, method: str, path: str, payload: Any = None, timeout: float = 60.0) -> HttpReply:
        """One exchange.

        Args:
          method: "GET" or "POST".
          path: behind the base URL's.
          payload: sent as JSON; None for no body.
          timeout: seconds for connecting, sending and the whole reply.

        Raises:
          TransportError: no whole reply came in time.
        """
        body = b"" if payload is None else json.dumps(payload, ensure_ascii=False).encode("utf-8", "replace")
        headers = [*self._headers, ("Content-Length", str(len(body)))]
        if body:
            headers.append(("Content-Type", "application/json"))
        request = h11.Request(method=method, target=self._path + path, headers=headers)
        connection = None
        try:
            async with asyncio.timeout(timeout):
                connection = await self._connection()
                reply = await connection.exchange(request, body)
        except TimeoutError:
            raise TransportError(f"no whole reply within {timeout:g} s") from None
        except h11.RemoteProtocolError as error:
            raise TransportError(f"malformed HTTP ({str(error)[:60]})") from None
        except (OSError, asyncio.IncompleteReadError) as error:
            raise TransportError(f"connection failed ({type(error).__name__})") from None
        else:
            if connection.usable:
                self._idle.append(connection)
                connection = None
            return reply
        finally:
            if connection is not None:
                connection.writer.close()

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.writer.close()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return _Connection(*await asyncio.open_connection(self.host, self.port, ssl=self._tls))
        except TimeoutError:
            raise TransportError(f"cannot connect to {self.host}:{self.port} (no answer)") from None
        except ssl.SSLError as error:
            raise TransportError(f"no TLS with {self.host}:{self.port} ({error.reason})") from None
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise TransportError(f"cannot connect to {self.host}:{self.port} ({why})") from None

    def close(self) -> None:
        """Closes the idle connections."""
        for connection in self._idle:
            connection.writer.close()
        self._idle.clear()
