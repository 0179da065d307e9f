"""The program by which a worker reaches the bucket, against a server that speaks the service's own language."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.storage.fake_gcs import FakeGCS
from tpu import objects, plan

URL = "gs://shelf/run/.launch/a b%.tgz"


@pytest.fixture
def bucket():
    with FakeGCS() as made:
        yield made


def call(bucket, *arguments):
    """One call, by a Python that has nothing installed."""
    environment = {"PATH": "/usr/bin:/bin", "EVADS_PAUSE": "0.01", **bucket.environment()}
    command = [sys.executable, "-I", "-S", plan.ROOT / "tpu" / "objects.py", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_what_was_put_comes_back_byte_by_byte(bucket, tmp_path):
    content = bytes(range(256)) * 1000
    (tmp_path / "here").write_bytes(content)
    assert call(bucket, "put", tmp_path / "here", URL).returncode == 0
    assert bucket.objects["run/.launch/a b%.tgz"].data == content
    assert call(bucket, "get", URL, tmp_path / "there").returncode == 0
    assert (tmp_path / "there").read_bytes() == content


def test_an_object_that_is_there_is_left_to_who_was_first(bucket, tmp_path):
    for text in ("first", "second"):
        (tmp_path / "here").write_text(text)
        assert call(bucket, "put-new", tmp_path / "here", URL).returncode == 0
    assert bucket.objects["run/.launch/a b%.tgz"].data == b"first"


def test_a_failure_that_passes_is_tried_again_and_one_that_lasts_is_one_line(bucket, tmp_path):
    (tmp_path / "here").write_text("x")
    bucket.hiccups = objects.TRIES - 1
    assert call(bucket, "put", tmp_path / "here", URL).returncode == 0
    bucket.hiccups = objects.TRIES
    lasting = call(bucket, "get", URL, tmp_path / "there")
    assert (lasting.returncode, lasting.stderr.count("\n")) == (1, 1)
    assert "HTTP Error 503" in lasting.stderr
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("get", "gs://shelf/none", "there"), "HTTP Error 404"),
        (("get", "gs://nowhere/none", "there"), "HTTP Error 404"),
        (("put", "nothing", URL), "No such file"),
        (("get", "gs://shelf", "there"), "no object: gs://shelf"),
        (("move", "a", "b"), "KeyError"),
        (("get", URL), "missing 1 required"),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line(bucket, arguments, told):
    done = call(bucket, *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert told in done.stderr
    assert done.stderr.startswith(f"objects: {' '.join(arguments)}: ")


def test_a_request_bears_the_token_of_the_machines_service_account(monkeypatch, tmp_path):
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers.get("Metadata-Flavor"), self.headers.get("Authorization")))
            body = json.dumps({"access_token": "t0"}).encode() if "token" in self.path else b"content"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
        monkeypatch.setattr(objects, "SERVICE", f"http://127.0.0.1:{server.server_port}")
        objects.get("gs://shelf/x", str(tmp_path / "x"))
        server.shutdown()
    assert seen == [
        ("/computeMetadata/v1/instance/service-accounts/default/token", "Google", None),
        ("/storage/v1/b/shelf/o/x?alt=media", None, "Bearer t0"),
    ]
    assert (tmp_path / "x").read_bytes() == b"content"
