"""The local folder of a run whose home is in a bucket.

`fetch` makes the folder what the bucket holds; what was here and had not gone up is lost, as with a machine that was
taken away. `push` takes up what has changed since, in an order by which nobody meets a mark of work whose work is not
there, or a protocol beside logs of another one:

    marks that no longer hold are deleted → logs → what is gone here is deleted → other files → marks

Checkpoints are not mirrored: they are written to the bucket as they come (`train.checkpoint`).
"""

import contextlib
import json
import os
import sqlite3
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from evads_jax import whole
from evads_jax.errors import UserError
from evads_jax.storage.parts import Log, log_of
from evads_jax.storage.store import Object, Store, same

MARKS = ("finished.json", "summary.json", "manifest.json")  # say that what lies beside them is complete
APART = "checkpoints"  # a folder of this name, at any depth, is left alone
HERE = ".bucket.json"  # local: which bucket a folder mirrors
OWNER = ".owner"  # in the bucket: the folder that writes there
_UNFINISHED = (".tmp", "-wal", "-shm", "-journal")
_DATABASE = ".sqlite"

Signature = tuple[int, ...]


class Mirror:
    """A folder of a bucket and its copy on this machine.

    Args:
      store: the folder in the bucket.
      url: its name, `gs://BUCKET/folder`.
      folder: the copy; made when absent.
      writes: whether this process writes to the bucket; one process of a run does.
    """

    def __init__(self, store: Store, url: str, folder: Path, writes: bool = True):
        self.store, self.url, self.folder, self.writes = store, url, folder, writes
        self._lock = threading.Lock()
        self._id = ""
        self._logs: dict[str, Log] = {}
        self._held: dict[str, Signature] = {}  # what the bucket holds → the state of the file that was the same

    def fetch(self, wanted: Sequence[str] = ()) -> bool:
        """Makes the folder what the bucket holds, and this process the one that writes there, if it is to write.

        Args:
          wanted: names of files and folders; all others are left as they are; none for everything.

        Returns:
          Whether the bucket holds any of it.

        Raises:
          UserError: the folder mirrors another bucket or cannot be written, or the bucket cannot be used.
        """
        try:
            self._id = self._claim_folder()
            held = self.store.get(OWNER)
            ours = held is not None and held.decode() == self._id
            if self.writes and not ours:
                self.store.put(OWNER, self._id.encode())
            objects = {name: about for name, about in self.store.list().items() if _mirrored(name, wanted)}
            self._held = {}
            self._logs = self._fetch_logs(objects)
            for name, about in objects.items():
                if log_of(name) is None:
                    self._fetch_file(name, about, ours)
            for name, path in self._files():
                kept = name in self._held or not _mirrored(name, wanted) or (ours and name.endswith(_DATABASE))
                if not kept:
                    path.unlink(missing_ok=True)
            return bool(objects)
        except OSError as error:
            what = f"cannot write the mirror of {self.url}: {error.strerror or error}"
            raise UserError(what, str(self.folder), "make room, or set EVADS_LOCAL to another folder") from error

    def push(self) -> None:
        """Takes up what has changed here since the last time; nothing in a process that does not write.

        Raises:
          UserError: the bucket cannot be used, or another machine has taken over; what went up is in order.
        """
        if not self.writes:
            return
        with self._lock:
            if (held := self.store.get(OWNER)) is None or held.decode() != self._id:
                what = "another machine has taken over this run"
                raise UserError(what, self.url, "let it go on there, or start the same command again here")
            here = dict(self._files())
            states = {name: state for name, path in here.items() if (state := _state(path)) is not None}
            changed = [name for name, state in states.items() if self._held.get(name) != state]
            gone = [name for name in self._held if name not in states]
            self._delete(name for name in (*changed, *gone) if _is_mark(name))
            for kind in (_is_log, _is_plain, _is_mark):
                if kind is _is_plain:
                    self._delete(name for name in gone if not _is_mark(name))
                for name in filter(kind, changed):
                    with contextlib.suppress(FileNotFoundError):  # gone since it was listed: told by the next push
                        self._put(name, here[name])
                        self._held[name] = states[name]

    def _claim_folder(self) -> str:
        """The folder's own name, by which the bucket knows who writes."""
        path = self.folder / HERE
        self.folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            marked = json.loads(path.read_text(encoding="utf-8"))
            if marked["url"] != self.url:
                what = f"this folder mirrors {marked['url']}, not {self.url}"
                raise UserError(what, str(self.folder), "set EVADS_LOCAL to another folder")
            return marked["folder"]
        if any(self.folder.iterdir()):
            what = f"this folder is not empty and no mirror of {self.url}"
            raise UserError(what, str(self.folder), "set EVADS_LOCAL to another folder")
        marked = {"url": self.url, "folder": uuid.uuid4().hex}
        whole.write(path, json.dumps(marked).encode())
        return marked["folder"]

    def _fetch_logs(self, objects: Iterable[str]) -> dict[str, Log]:
        parts: dict[str, list[str]] = {}
        for part in objects:
            if (name := log_of(part)) is not None:
                parts.setdefault(name, []).append(part)
        logs = {name: Log(self.store, name, held) for name, held in parts.items()}
        for name, log in logs.items():
            path, content = self.folder / name, log.read()
            if not path.is_file() or path.read_bytes() != content:
                whole.write(path, content)
            self._held[name] = _state(path) or ()
        return logs

    def _fetch_file(self, name: str, about: Object, ours: bool) -> None:
        path = self.folder / name
        if name.endswith(_DATABASE) and path.exists():
            # What was paid for here since the last push stays, and goes up with the next.
            self._held[name] = ()
            if ours:
                return
            with tempfile.TemporaryDirectory() as folder:
                self._get(name, about, there := Path(folder, "there"))
                if _unite(path, there):
                    return
        if not path.is_file() or not same(path, about):
            with whole.replacing(path) as temporary:
                self._get(name, about, temporary)
                for ending in _UNFINISHED:  # what belonged to the file that is replaced
                    path.with_name(path.name + ending).unlink(missing_ok=True)
        self._held[name] = _state(path) or ()

    def _get(self, name: str, about: Object, path: Path) -> None:
        """Brings a file, and looks whether it is what was listed."""
        try:
            self.store.get_file(name, path)
            arrived = same(path, about) is not False
        except FileNotFoundError:
            arrived = False
        if not arrived:
            what = "a file changed while it was fetched, or did not arrive whole"
            raise UserError(what, f"{self.url}/{name}", "start the same command again")

    def _files(self) -> Iterator[tuple[str, Path]]:
        """Everything here that is mirrored, by its name in the bucket."""
        for parent, folders, names in os.walk(self.folder):
            folders[:] = sorted(folder for folder in folders if folder != APART)
            for name in sorted(names):
                path = Path(parent, name)
                if name != HERE and not name.endswith(_UNFINISHED):
                    yield path.relative_to(self.folder).as_posix(), path

    def _put(self, name: str, path: Path) -> None:
        if _is_log(name):
            self._logs.setdefault(name, Log(self.store, name)).write(path.read_bytes())
        elif name.endswith(_DATABASE):
            with tempfile.TemporaryDirectory() as folder:
                self.store.put(name, _snapshot(path, Path(folder, "snapshot")))
        else:
            self.store.put(name, path)

    def _delete(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._held:
                if _is_log(name):
                    self._logs[name].delete()
                    del self._logs[name]
                else:
                    self.store.delete(name)
                del self._held[name]


def _is_log(name: str) -> bool:
    return name.endswith(".jsonl")


def _is_mark(name: str) -> bool:
    return PurePosixPath(name).name in MARKS


def _is_plain(name: str) -> bool:
    return not _is_log(name) and not _is_mark(name)


def _mirrored(name: str, wanted: Sequence[str]) -> bool:
    if name == OWNER or APART in PurePosixPath(name).parent.parts:
        return False
    file = log_of(name) or name
    return not wanted or any(file == want or file.startswith(want + "/") for want in wanted)


def _state(path: Path) -> Signature | None:
    """What changes when a file does; None where it has just gone."""
    try:
        stats = [path.stat()]
    except FileNotFoundError:
        return None
    if path.name.endswith(_DATABASE):
        with contextlib.suppress(FileNotFoundError):
            stats.append(path.with_name(path.name + "-wal").stat())
    return tuple(number for stat in stats for number in (stat.st_ino, stat.st_size, stat.st_mtime_ns))


def _unite(path: Path, other: Path) -> bool:
    """Adds the rows of another copy of a database that are not in it; False where one of them is no such database.

    Rows are known by their keys, which say all of what they are about (judge/cache.py): neither copy is ever wrong.
    """
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as live:
            live.execute("ATTACH ? AS there", (str(other),))
            with live:
                for (table,) in live.execute("SELECT name FROM there.sqlite_master WHERE type = 'table'").fetchall():
                    live.execute(f'INSERT OR IGNORE INTO main."{table}" SELECT * FROM there."{table}"')
    except sqlite3.Error:
        return False
    return True


def _snapshot(path: Path, to: Path) -> Path:
    """A consistent copy of a database that others may be writing to, without what only this machine means by it."""
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as live, contextlib.closing(sqlite3.connect(to)) as copy:
        live.backup(copy)
        if copy.execute("SELECT 1 FROM sqlite_master WHERE name = 'claims'").fetchone():
            copy.execute("DELETE FROM claims")  # see judge/cache.py: held by processes of this machine
            copy.commit()
    return to
