"""A bucket on loopback: the part of the Cloud Storage JSON API that gcsfs, tensorstore and Google's client use.

Objects are put whole, listed, read (with ranges), and deleted. As in the real one there is no append and no rename, an
object changes at one instant, and every change gives it a new generation. All changes can be refused from one on.
"""

import base64
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import re
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

BUCKET = "shelf"


@dataclasses.dataclass
class Stored:
    """An object: its bytes and the number of the change that made it."""

    data: bytes
    generation: int


class Refused(Exception):
    """What a request is answered with, other than success."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class FakeGCS:
    """The server, in threads of its own; a context manager.

    Attributes:
      objects: name → object of the one bucket.
      puts: names of the objects that were put, in order.
      deletes: names of the objects that were deleted, in order.
      reads: names of the objects whose bytes were read, in order.
      composite: names of objects of which it knows no MD5, as if they had been uploaded in parts side by side.
      hiccups: how many of the next requests are answered «try again».
      dies_at: from the put of an object on that has this in its name, nothing can be changed; None for never.
    """

    def __init__(self):
        self.objects: dict[str, Stored] = {}
        self.puts: list[str] = []
        self.deletes: list[str] = []
        self.reads: list[str] = []
        self.composite: set[str] = set()
        self.hiccups = 0
        self.dies_at: str | None = None
        self.dead = False
        self.sessions: dict[str, tuple[str, bytearray, dict[str, str]]] = {}
        self.lock = threading.Lock()
        self._generations = itertools.count(1)

    def __enter__(self) -> "FakeGCS":
        handler = type("Handler", (_Handler,), {"bucket": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self) -> dict[str, str]:
        """What makes the clients talk to this server, without looking for credentials."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            "FSSPEC_GCS_TOKEN": "anon",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it asks over gRPC what kind of bucket this is
        }

    def clear(self) -> None:
        """Empties the bucket, and lets every change succeed again."""
        with self.lock:
            self.objects.clear()
            self.puts.clear()
            self.deletes.clear()
            self.reads.clear()
            self.composite.clear()
            self.dies_at, self.dead = None, False

    def put(self, name: str, data: bytes, match: str | None = None) -> Stored:
        """Replaces an object at one instant; `match` is the generation that it must have before, "0" for none."""
        with self.lock:
            self.dead = self.dead or (self.dies_at is not None and self.dies_at in name)
            if self.dead:
                raise Refused(403, "no permission to write")
            self.puts.append(name)
            held = self.objects.get(name)
            if match is not None and match != str(held.generation if held else 0):
                raise Refused(412, "a condition does not hold")
            self.objects[name] = Stored(bytes(data), next(self._generations))
            return self.objects[name]

    def delete(self, name: str) -> None:
        """Removes an object."""
        with self.lock:
            if self.dead:
                raise Refused(403, "no permission to delete")
            if name not in self.objects:
                raise Refused(404, "no such object")
            self.deletes.append(name)
            del self.objects[name]

    def about(self, name: str, stored: Stored) -> dict[str, str]:
        """An object's metadata, as the API gives it."""
        import google_crc32c  # comes with the clients

        crc32c = google_crc32c.Checksum(stored.data).digest()
        md5 = {} if name in self.composite else {"md5Hash": hashlib.md5(stored.data).digest()}
        digests = {"crc32c": crc32c, **md5}
        return {
            "kind": "storage#object",
            "bucket": BUCKET,
            "name": name,
            "size": str(len(stored.data)),
            "generation": str(stored.generation),
            "metageneration": "1",
            **{kind: base64.b64encode(digest).decode() for kind, digest in digests.items()},
            "updated": "2026-01-01T00:00:00.000Z",
            "timeCreated": "2026-01-01T00:00:00.000Z",
        }


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    bucket: FakeGCS
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def handle(self) -> None:
        """See the base class; a client that goes away is no error."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        found = re.fullmatch(r"/(?:(upload|download)/)?storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?", url.path)
        try:
            if self.bucket.hiccups:
                self.bucket.hiccups -= 1
                raise Refused(503, "try again")
            if found is None:
                raise Refused(404, f"no such address {self.path}")
            if urllib.parse.unquote(found[2]) != BUCKET:
                raise Refused(404, "no such bucket")
            name = urllib.parse.unquote(found[3]) if found[3] else None
            if found[1] == "upload":
                self._upload(query, body)
            elif self.command == "DELETE":
                self.bucket.delete(str(name))
                self._answer(204, b"")
            elif name is not None:
                self._read(name, query, media=found[1] == "download" or query.get("alt") == "media")
            elif url.path.endswith("/o"):
                self._json(self._list(query))
            else:
                self._json({"kind": "storage#bucket", "name": BUCKET})
        except Refused as refused:
            error = {"error": {"code": refused.status, "message": str(refused)}}
            self._answer(refused.status, json.dumps(error).encode())

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _upload(self, query: dict[str, str], body: bytes) -> None:
        kind, match = query.get("uploadType"), query.get("ifGenerationMatch")
        if "upload_id" in query:
            self._continue(query["upload_id"], body)
        elif kind == "resumable":
            name = query.get("name") or json.loads(body)["name"]
            session = str(len(self.bucket.sessions))
            self.bucket.sessions[session] = (name, bytearray(), query)
            where = f"{self.bucket.url}/upload/storage/v1/b/{BUCKET}/o?uploadType=resumable&upload_id={session}"
            self._answer(200, b"", {"Location": where})
        elif kind == "multipart":
            boundary = b"--" + re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
            about, data = (part.lstrip(b"\r\n") for part in body.split(boundary, 2)[1:])
            about = json.loads(re.split(rb"\r?\n\r?\n", about, maxsplit=1)[1])
            data = re.split(rb"\r?\n\r?\n", data, maxsplit=1)[1]
            end = data.rindex(b"\n" + boundary + b"--")
            self._put(about["name"], data[: end - data[:end].endswith(b"\r")], match)
        else:
            self._put(query["name"], body, match)

    def _continue(self, session: str, body: bytes) -> None:
        """A piece of a resumable upload; the object is there with its last piece."""
        name, held, query = self.bucket.sessions[session]
        held += body
        total = self.headers.get("Content-Range", "*/*").rpartition("/")[2]
        if total != "*" and len(held) < int(total):
            self._answer(308, b"", {"Range": f"bytes=0-{len(held) - 1}"})
        else:
            self._put(name, bytes(held), query.get("ifGenerationMatch"))

    def _put(self, name: str, data: bytes, match: str | None) -> None:
        self._json(self.bucket.about(name, self.bucket.put(name, data, match)))

    def _read(self, name: str, query: dict[str, str], media: bool) -> None:
        held = self.bucket.objects.get(name)
        if held is None:
            raise Refused(404, "no such object")
        if query.get("ifGenerationNotMatch") == str(held.generation):
            raise Refused(304, "it is what you have")
        if query.get("ifGenerationMatch", str(held.generation)) != str(held.generation):
            raise Refused(412, "a condition does not hold")
        if not media:
            return self._json(self.bucket.about(name, held))
        self.bucket.reads.append(name)
        headers = {"x-goog-generation": str(held.generation)}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return self._answer(200, held.data, headers)
        size = len(held.data)
        start = int(asked[1]) if asked[1] else max(size - int(asked[2]), 0)
        end = min(int(asked[2]) + 1 if asked[1] and asked[2] else size, size)
        if start >= size:
            raise Refused(416, "outside of the object")
        return self._answer(206, held.data[start:end], headers | {"Content-Range": f"bytes {start}-{end - 1}/{size}"})

    def _list(self, query: dict[str, str]) -> dict[str, object]:
        """A page of objects, and of what looks like folders where a delimiter is given."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, folders = {}, set()
        with self.bucket.lock:
            held = sorted(self.bucket.objects.items())
        for name, stored in held:
            if not name.startswith(prefix) or not query.get("startOffset", "") <= name < query.get("endOffset", "\x7f"):
                continue
            head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            if found:
                folders.add(prefix + head + found)
            else:
                items[name] = self.bucket.about(name, stored)
        names = sorted(name for name in [*items, *folders] if name > query.get("pageToken", ""))
        page = names[: int(query.get("maxResults", 1000))]
        listed: dict[str, object] = {"kind": "storage#objects", "items": [items[n] for n in page if n in items]}
        listed["prefixes"] = [name for name in page if name in folders]
        return listed | ({"nextPageToken": page[-1]} if len(page) < len(names) else {})

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status not in (204, 304):
            self.wfile.write(body)


@contextlib.contextmanager
def fake_bucket():
    """A server that this process's clients talk to."""
    import fsspec  # whose settings were read from the environment when it was imported

    anonymous = mock.patch.dict(fsspec.config.conf, {"gcs": {"token": "anon"}})
    with FakeGCS() as made, mock.patch.dict(os.environ, made.environment()), anonymous:
        yield made
