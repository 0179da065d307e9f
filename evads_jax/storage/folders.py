"""Which local folders stand for folders of a bucket: the mirrors that this process has open, and copies that are read.

A job writes to the mirror of its work directory. Whatever else a config names (another run, a tokenizer, weights) is
read from a copy: what is wanted of it is brought once, checked, and kept for the next time. Checkpoints are never
brought; who wants them reads them at `address`.
"""

import fnmatch
import itertools
import re
from pathlib import Path
from typing import Any

from evads_jax.errors import UserError
from evads_jax.storage.mirror import Mirror
from evads_jax.storage.place import copy_folder, url_of
from evads_jax.storage.store import Bucket

OPEN: dict[Path, Mirror] = {}

_COPIES: dict[Path, str] = {}  # copy → what it is a copy of
_BROUGHT: set[tuple[Path, tuple[str, ...]]] = set()


def fetched(path: str | Path, *wanted: str, required: bool = True) -> Path:
    """Where on this machine a folder is that is only read; of one in a bucket, what is wanted is brought here first.

    A file that is here already is brought again only if the bucket holds another one. A process asks once: what it
    reads does not change while it works.

    Args:
      path: what the user named, or a copy that this function made; a local folder is itself.
      *wanted: names of files and folders in it; none for everything but checkpoints.
      required: whether at least one of them must be there.

    Raises:
      UserError: the bucket cannot be used, or holds nothing that is wanted.
    """
    url = url_of(path) or _COPIES.get(Path(path))
    if url is None:
        return Path(path)
    if (here := inside(url)) is not None:
        return here
    copy = copy_folder(url)
    if (copy, wanted) not in _BROUGHT:
        if not Mirror(Bucket(url), url, copy, writes=False).fetch(wanted) and required:
            what = f"there is no {' or '.join(wanted)}" if wanted else "there is nothing"
            raise UserError(f"{what} in this folder of the bucket", url, "check its name")
        _BROUGHT.add((copy, wanted))
        _COPIES[copy] = url
    return copy


def matching(pattern: str) -> list[str]:
    """The folders of a bucket that a pattern names, as `gs://…`; one without wildcards is named as it stands.

    Args:
      pattern: `gs://BUCKET/…`, with `*`, `?` and `[…]` as a shell understands them.

    Raises:
      UserError: the bucket cannot be used.
    """
    url = url_of(pattern)
    assert url is not None
    parts = url.split("/")
    fixed = list(itertools.takewhile(lambda part: not re.search(r"[*?[]", part), parts))
    wild = parts[len(fixed) :]
    if not wild:
        return [url]
    names = (name.split("/") for name in Bucket("/".join(fixed)).list())
    folders = {tuple(name[: len(wild)]) for name in names if len(name) > len(wild)}
    return ["/".join([*fixed, *folder]) for folder in sorted(folders) if all(map(_matches, folder, wild))]


def inside(url: str) -> Path | None:
    """Where a folder of a bucket is in a mirror that is open; None where it is in none."""
    for folder, mirror in OPEN.items():
        if url == mirror.url or url.startswith(mirror.url + "/"):
            return folder / url[len(mirror.url) + 1 :]
    return None


def mirror_of(path: str | Path) -> Mirror | None:
    """The open mirror that a local path lies in; None where it lies in none."""
    path = Path(path)
    return next((mirror for folder, mirror in OPEN.items() if folder == path or folder in path.parents), None)


def name_of(path: str | Path) -> str:
    """What a path is called on every machine: `gs://…` of one in a bucket, mirror or copy, else what it is."""
    if (url := url_of(path)) is not None:
        return url
    path = Path(path)
    homes = {folder: mirror.url for folder, mirror in OPEN.items()} | _COPIES
    for folder, url in homes.items():
        if folder == path or folder in path.parents:
            return "/".join([url, *path.relative_to(folder).parts])
    return str(path)


def address(path: str | Path) -> Any:
    """Where a path really is: a local `Path`, or the bucket's `epath.Path` of one in a bucket, mirror or copy.

    Raises:
      UserError: it is in a bucket, and the extra `gcs` is not installed.
    """
    if (url := url_of(name_of(path))) is None:
        return Path(path).absolute()
    Bucket(url)  # tells of a missing client, and sets the one up that is used from here on
    from etils import epath

    return epath.Path(url)


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) and name.startswith(".") <= pattern.startswith(".")
