"""Which paths lie in a bucket, and where on this machine their mirrors and copies are."""

import hashlib
import os
import re
from pathlib import Path

from evads_jax.errors import UserError


def url_of(path: str | Path | None) -> str | None:
    """`gs://BUCKET/folder` of a path in a bucket, also of one that `Path` has shortened to `gs:/…`; None of others.

    Raises:
      UserError: it names a bucket and no folder in it.
    """
    found = re.fullmatch(r"gs:/+(.*?)/*", str(path)) if path else None
    if found is None:
        return None
    bucket, _, folder = re.sub("/+", "/", found[1]).partition("/")
    if not bucket or not folder:
        raise UserError("no folder in the bucket", str(path), "name one, e.g. gs://BUCKET/run")
    return f"gs://{bucket}/{folder}"


def local_folder(url: str) -> Path:
    """Where the mirror of `url` is: under `EVADS_LOCAL`, by default `~/.cache/evads_jax/runs`."""
    return _root() / f"{url.rpartition('/')[2]}-{_digest(url)}"


def copy_folder(url: str) -> Path:
    """Where the copy of `url` is that is only read; it is called as the folder in the bucket is."""
    return _root() / "copies" / _digest(url) / url.rpartition("/")[2]


def _root() -> Path:
    return Path(os.environ.get("EVADS_LOCAL") or Path.home() / ".cache" / "evads_jax" / "runs").resolve()


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:12]
