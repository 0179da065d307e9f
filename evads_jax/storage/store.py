"""Objects under a prefix: listed, read, put whole and deleted. Names are relative to the prefix."""

import base64
import contextlib
import dataclasses
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from evads_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Object:
    """What a listing says of an object.

    Attributes:
      size: bytes.
      md5: of its bytes, in base64; None where the bucket does not know it: of what was uploaded in parts side by side.
      crc32c: likewise; None where the bucket does not say.
    """

    size: int
    md5: str | None
    crc32c: str | None = None


def same(path: Path, about: Object) -> bool | None:
    """Whether a file is what a listing says of an object; None where they have one size and no digest is known."""
    if path.stat().st_size != about.size:
        return False
    if about.md5 is not None:
        return about.md5 == _md5(path)
    return None if about.crc32c is None else about.crc32c == _crc32c(path)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return base64.b64encode(digest.digest()).decode()


def _crc32c(path: Path) -> str:
    import google_crc32c  # of the extra gcs

    digest = google_crc32c.Checksum()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return base64.b64encode(digest.digest()).decode()


class Store(Protocol):
    """What a mirror needs of a bucket; every change of one object happens at one instant, or not at all."""

    def list(self) -> dict[str, Object]:
        """All objects by name."""
        ...

    def get(self, name: str) -> bytes | None:
        """An object's bytes; None where there is none."""
        ...

    def get_file(self, name: str, path: Path) -> None:
        """Writes an object's bytes to a file; what is there while it does so is not whole.

        Raises:
          FileNotFoundError: there is no such object.
        """
        ...

    def put(self, name: str, data: bytes | Path, new: bool = False) -> None:
        """Puts an object, from bytes or from a file.

        Args:
          name: its name.
          data: what it holds from then on.
          new: refuse to replace an object that holds something else.

        Raises:
          FileNotFoundError: there is no such file.
        """
        ...

    def delete(self, name: str) -> None:
        """Deletes an object; nothing where there is none."""
        ...


class Bucket:
    """A folder of a bucket of Google Cloud Storage.

    Args:
      url: `gs://BUCKET/folder`.

    Raises:
      UserError: the extra `gcs` is not installed. All methods raise it where the bucket cannot be used.
    """

    def __init__(self, url: str):
        try:
            import fsspec
            import gcsfs  # noqa: F401
        except ImportError as error:
            what = "pip install 'evads_jax[gcs]', or name a local folder"
            raise UserError("the client for buckets is not installed", url, what) from error
        # Told here in one line; the library prints tracebacks.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        # Other processes write, too: a remembered listing would hide that. Also for the checkpoints' client.
        fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
        self.url = url
        self._files = fsspec.filesystem("gcs")

    def list(self) -> dict[str, Object]:
        """See `Store`."""
        with self._told():
            found = self._files.find(self.url, detail=True)
        root = self.url.removeprefix("gs://") + "/"
        return {
            path.removeprefix(root): Object(int(about["size"]), about.get("md5Hash"), about.get("crc32c"))
            for path, about in found.items()
            if path.startswith(root) and about["type"] == "file" and not path.endswith("/")
        }

    def get(self, name: str) -> bytes | None:
        """See `Store`."""
        with contextlib.suppress(FileNotFoundError), self._told(name, missing=True):
            return self._files.cat_file(f"{self.url}/{name}")
        return None

    def get_file(self, name: str, path: Path) -> None:
        """See `Store`."""
        with self._told(name, missing=True):
            self._files.get_file(f"{self.url}/{name}", str(path))

    def put(self, name: str, data: bytes | Path, new: bool = False) -> None:
        """See `Store`."""
        where, mode = f"{self.url}/{name}", "create" if new else "overwrite"
        if isinstance(data, Path) and not data.exists():
            raise FileNotFoundError(data)
        with self._told(name):
            try:
                if isinstance(data, Path):
                    self._files.put_file(str(data), where, mode=mode)
                else:
                    self._files.pipe_file(where, data, mode=mode)
            except FileExistsError as error:
                # A put that is tried again after its answer was lost finds itself.
                held = self.get(name)
                if held != (data.read_bytes() if isinstance(data, Path) else data):
                    what = "another process writes to the same folder of the bucket"
                    raise UserError(what, where, "let one of them go on, and end the other") from error

    def delete(self, name: str) -> None:
        """See `Store`."""
        with contextlib.suppress(FileNotFoundError), self._told(name, missing=True):
            self._files.rm_file(f"{self.url}/{name}")

    @contextlib.contextmanager
    def _told(self, name: str = "", missing: bool = False) -> Iterator[None]:
        """Makes one line of what goes wrong; with `missing` the caller knows what an absent object means."""
        where = f"{self.url}/{name}".rstrip("/")
        try:
            yield
        except UserError:
            raise
        except FileNotFoundError as error:
            if missing:
                raise
            raise UserError("no such bucket", where, "make it first") from error
        except Exception as error:  # the clients for storage, HTTP and credentials have errors of their own
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            what = "check its name, your permissions and the network"
            raise UserError(f"cannot use the bucket: {reason}", where, what) from error
