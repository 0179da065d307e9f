"""A log in a bucket: numbered parts that together are the file.

Object `<name>.parts/<sequence>-<offset>` says: from `offset` on, the file is what I hold. In the order of sequence,

    whole ← whole[:offset] + part

so a file that was cut and went on is right as well. A part with offset 0 makes those before it superfluous; now and
then one is written for that, and the others are deleted. A kill at any moment leaves the file as it was or as it
should be.
"""

import hashlib
import re
from collections.abc import Callable, Iterable

from evads_jax.errors import UserError
from evads_jax.storage.store import Store

COMPACT = 64  # parts, after which a whole is written

_PART = re.compile(r"(.+)\.parts/(\d+)-(\d+)")


def log_of(part: str) -> str | None:
    """The name of the log that an object is a part of; None where it is no part."""
    found = _PART.fullmatch(part)
    return found[1] if found else None


def put_together(parts: Iterable[str], get: Callable[[str], bytes | None]) -> tuple[bytes, list[int]]:
    """A log from its parts, and where each part that still counts ends in it.

    Args:
      parts: their names.
      get: a part's bytes; None where it is not there.

    Raises:
      UserError: a part is missing.
    """
    parts = sorted(parts, key=_place)
    base = max((i for i, part in enumerate(parts) if _place(part)[1] == 0), default=0)
    whole, ends = b"", [0]
    for part in parts[base:]:
        data, offset = get(part), _place(part)[1]
        if data is None or offset > len(whole):
            raise UserError("a part of a log is missing in the bucket", part, "restore it, or start another run")
        whole = whole[:offset] + data
        ends = [end for end in ends if end <= offset] + [len(whole)]
    return whole, ends


class Log:
    """What of a log is in a bucket.

    Args:
      store: the bucket.
      name: the log's name.
      parts: the names of its parts there.
    """

    def __init__(self, store: Store, name: str, parts: Iterable[str] = ()):
        self.name, self._store = name, store
        self._parts = sorted(parts, key=_place)
        self._sequence = _place(self._parts[-1])[0] if self._parts else 0
        self._digests: dict[int, bytes] = {}  # where a part ends → the digest of everything up to there
        self._sure = True  # that the last part arrived, and so what its end is

    def read(self) -> bytes:
        """The file.

        Raises:
          UserError: a part is missing.
        """
        whole, ends = put_together(self._parts, self._store.get)
        self._digests = _digests(whole, ends)
        return whole

    def write(self, content: bytes) -> None:
        """Makes the file `content`, by a part that holds what differs; nothing where it is that already."""
        ours = _digests(content, [*self._digests, len(content)])
        kept = max((end for end, digest in self._digests.items() if ours.get(end) == digest), default=0)
        if self._sure and self._parts and kept == len(content) == max(self._digests):
            return
        superfluous = len(self._parts) if len(self._parts) >= COMPACT else 0
        if superfluous:
            kept = 0
        # A put that fails may still arrive: its number is not given again, and what is behind its offset is not known.
        self._sequence += 1
        self._parts.append(part := f"{self.name}.parts/{self._sequence:08d}-{kept}")
        self._digests = {end: digest for end, digest in ours.items() if end <= kept}
        self._sure = False
        self._store.put(part, content[kept:], new=True)
        self._digests[len(content)] = ours[len(content)]
        self._sure = True
        for _ in range(superfluous):
            self._store.delete(self._parts[0])
            del self._parts[0]

    def delete(self) -> None:
        """Deletes the log, its end first: what a kill leaves is a beginning of it."""
        self._sure, self._digests = False, {}
        while self._parts:
            self._store.delete(self._parts[-1])
            del self._parts[-1]


def _place(part: str) -> tuple[int, int]:
    """Sequence and offset."""
    found = _PART.fullmatch(part)
    assert found is not None
    return int(found[2]), int(found[3])


def _digests(content: bytes, ends: Iterable[int]) -> dict[int, bytes]:
    """The digest of each beginning of `content` that ends at one of `ends`."""
    found, digest, at = {}, hashlib.sha256(), 0
    for end in sorted(set(ends)):
        if end <= len(content):
            digest.update(memoryview(content)[at:end])
            found[end], at = digest.digest(), end
    return found
