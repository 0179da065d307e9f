"""Objects of a bucket, for the scripts of a worker:

    python3 tpu/objects.py get gs://BUCKET/NAME FILE
    python3 tpu/objects.py put FILE gs://BUCKET/NAME
    python3 tpu/objects.py put-new FILE gs://BUCKET/NAME    leaves an object that is there as it is

By itself and with any Python 3, since it runs before anything is installed and where there is no gcloud: a pod gets it
as text. Ends with 1 and one line where something cannot be had. Whoever it is, is the machine's service account.
"""

import json
import os
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

SERVICE = "https://storage.googleapis.com"
TRIES = 6
_PAUSE = float(os.environ.get("EVADS_PAUSE", "1"))  # seconds after the first failure; doubled after each further one
_PASSING = {408, 429, 500, 502, 503, 504}


def get(url: str, path: str) -> None:
    """Writes an object to a file, which is whole or not there."""
    bucket, name = _parts(url)
    with _answer(f"storage/v1/b/{bucket}/o/{name}?alt=media") as answer, open(path + ".tmp", "wb") as file:
        shutil.copyfileobj(answer, file)
    os.replace(path + ".tmp", path)


def put(path: str, url: str, new: bool = False) -> None:
    """Puts a file as an object; with `new`, only where there is none."""
    bucket, name = _parts(url)
    with open(path, "rb") as file:
        content = file.read()
    query = f"uploadType=media&name={name}" + "&ifGenerationMatch=0" * new
    try:
        _answer(f"upload/storage/v1/b/{bucket}/o?{query}", content).close()
    except urllib.error.HTTPError as error:
        if not (new and error.code == 412):
            raise


def _parts(url: str) -> "tuple[str, str]":
    """Bucket and object as they stand in an address."""
    bucket, _, name = url[len("gs://") :].partition("/")
    if not url.startswith("gs://") or not name:
        raise ValueError(f"no object: {url}")
    return bucket, urllib.parse.quote(name, safe="")


def _answer(path: str, content: "bytes | None" = None) -> Any:
    """What the service answers; a failure that may pass is tried again."""
    for attempt in range(TRIES):
        try:
            service = os.environ.get("STORAGE_EMULATOR_HOST")
            headers = {} if service else {"Authorization": "Bearer " + token()}
            if content is not None:
                headers["Content-Type"] = "application/octet-stream"
            request = urllib.request.Request(f"{service or SERVICE}/{path}", content, headers)
            return urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as error:
            if error.code not in _PASSING or attempt == TRIES - 1:
                raise
        except OSError:  # no name, no connection, no answer
            if attempt == TRIES - 1:
                raise
        time.sleep(_PAUSE * 2**attempt)


def token() -> str:
    """An access token of the machine's service account."""
    host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    where = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"
    request = urllib.request.Request(where, headers={"Metadata-Flavor": "Google"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["access_token"]


if __name__ == "__main__":
    try:
        verb, *paths = sys.argv[1:]
        deeds = {"get": get, "put": put, "put-new": lambda path, url: put(path, url, new=True)}
        deeds[verb](*paths)
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"objects: {' '.join(sys.argv[1:])}: {type(error).__name__}: {error}")
