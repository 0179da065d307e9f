"""Verdicts on disk: never asked, and never paid for, twice.

An SQLite file that several processes, training and evaluation among them, use at the same time. A verdict is found by
what it depends on (`key`): prompt version and digest, model, sampling, question, evidence, reference, candidate. It is
on the disk before `put` returns. Missing verdicts are not kept, so that the next run asks again.

Two processes that want the same verdict do not both ask: the first one claims it, the other waits for it. The claim of
a process that died on this machine is void at once, another machine's after `LEASE` seconds.

Processes of one run that have a file each tell each other what they bought (`judge.divided`), so that each file holds
all of it. A payment is known by a random number: told twice, or to whom it is known, it counts once.

SQLite's write-ahead log needs a local disk; on a network file system the file works in the slower rollback mode.
"""

import asyncio
import dataclasses
import hashlib
import json
import os
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from evads_jax import storage
from evads_jax.errors import UserError
from evads_jax.judge.verdict import Verdict

LEASE = 900.0  # seconds
_FORMAT = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS verdicts (
    key TEXT NOT NULL, field TEXT NOT NULL, score REAL NOT NULL, reason TEXT NOT NULL, raw TEXT, cost REAL NOT NULL,
    about TEXT NOT NULL, created REAL NOT NULL, PRIMARY KEY (key, field)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL, since REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spending (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, model TEXT NOT NULL, input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, cost REAL NOT NULL, outcome TEXT NOT NULL, time REAL NOT NULL);
CREATE INDEX IF NOT EXISTS spending_run ON spending (run);
"""
_PUT = {
    "verdicts": "INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    "spending": "INSERT OR IGNORE INTO spending VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
}
_IN_ONE_QUERY = 500


@dataclasses.dataclass(frozen=True)
class Entry:
    """A verdict to be kept.

    Attributes:
      key: what it depends on, see `key`.
      field: which part of the reply it is: "score", or "answer" and "trace" of a joint one.
      verdict: the verdict.
      about: a few words for whoever looks into the file (model, video).
    """

    key: str
    field: str
    verdict: Verdict
    about: str = ""


@dataclasses.dataclass(frozen=True)
class Payment:
    """What one reply cost.

    Attributes:
      model: who was asked.
      input_tokens: tokens sent.
      output_tokens: tokens received.
      cost: in the currency of the price table.
      outcome: "verdict", or why the reply gave none.
    """

    model: str
    input_tokens: int
    output_tokens: int
    cost: float
    outcome: str


def key(**parts: object) -> str:
    """The digest of everything that a verdict depends on.

    Args:
      **parts: name → value; anything that JSON can hold.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def default_path(workdir: Path | None = None) -> Path:
    """The cache that all runs of a user share; of a run in a bucket, one that goes there with it.

    Args:
      workdir: the run's folder.
    """
    if workdir is not None and (mirror := storage.mirror_of(workdir)) is not None:
        return mirror.folder / "verdicts.sqlite"
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "evads_jax" / "verdicts.sqlite"


class VerdictCache:
    """The verdicts in one file; safe for several threads and processes.

    Args:
      path: the file; it and its folder are made when absent.
      tells: whether what is put is remembered for `bought`.

    Raises:
      UserError: the file cannot be opened, or is none of these.
    """

    def __init__(self, path: str | Path, tells: bool = False):
        self.path, self._tells = Path(path), tells
        self._untold: dict[str, list[tuple]] = {name: [] for name in _PUT}
        self._lock = threading.Lock()
        self.owner = f"{socket.gethostname()}/{os.getpid()}/{_started(os.getpid())}"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=60, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            # Claims end with their process and need not be on the disk.
            self._claims = sqlite3.connect(self.path, timeout=60, check_same_thread=False, isolation_level=None)
            self._claims.execute("PRAGMA synchronous=OFF")
            (found,) = self._db.execute("PRAGMA user_version").fetchone()
            if found not in (0, _FORMAT):
                raise UserError(f"verdict cache of format {found}", str(path), "use another judge.cache")
            self._db.executescript(_TABLES)
            self._db.execute(f"PRAGMA user_version={_FORMAT}")
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"cannot use the verdict cache: {error}", str(path), "use another judge.cache") from error

    def close(self) -> None:
        """Gives up this process's claims and closes the file."""
        with self._lock:
            self._db.execute("DELETE FROM claims WHERE owner = ?", (self.owner,))
            self._claims.close()
            self._db.close()

    def get(self, keys: Iterable[str]) -> dict[tuple[str, str], Verdict]:
        """The known verdicts by key and field; their cost is 0, because they cost nothing now."""
        wanted, found = list(dict.fromkeys(keys)), {}
        with self._lock:
            for start in range(0, len(wanted), _IN_ONE_QUERY):
                part = wanted[start : start + _IN_ONE_QUERY]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, field, score, reason, raw FROM verdicts WHERE key IN ({marks})"
                for name, field, score, reason, raw in self._db.execute(query, part):
                    found[name, field] = Verdict(score, reason, raw)
        return found

    def put(self, entries: Sequence[Entry], payments: Sequence[Payment] = (), run: str = "") -> None:
        """Keeps verdicts and payments; durable when it returns. A verdict that is there already stays as it is.

        The claim stays too: a part of what it is about may still be asked for.
        """
        now = time.time()
        rows: dict[str, list[tuple]] = {
            "verdicts": [
                (e.key, e.field, e.verdict.score, e.verdict.reason, _text(e.verdict.raw), e.verdict.cost, e.about, now)
                for e in entries
            ],
            "spending": [
                (secrets.randbits(62), run, p.model, p.input_tokens, p.output_tokens, p.cost, p.outcome, now)
                for p in payments
            ],
        }
        with self._lock:
            self._insert(rows)
            if self._tells:
                for name, new in rows.items():
                    self._untold[name] += new

    def bought(self) -> dict[str, list[tuple]]:
        """What this process has put since the last time, as JSON values."""
        with self._lock:
            told, self._untold = self._untold, {name: [] for name in _PUT}
        return told

    def of_run(self, run: str) -> dict[str, list[tuple]]:
        """All that a run has bought, and what else has come since it began to, as `bought` gives it."""
        since = "SELECT * FROM verdicts WHERE created >= (SELECT MIN(time) FROM spending WHERE run = ?)"
        with self._lock:
            return {
                "verdicts": self._db.execute(since, (run,)).fetchall(),
                "spending": self._db.execute("SELECT * FROM spending WHERE run = ?", (run,)).fetchall(),
            }

    def learn(self, bought: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        """Keeps what `bought` or `of_run` gave to another process; where all of it is here, nothing is written."""
        known = self.get(row[0] for row in bought["verdicts"])
        rows = {
            "verdicts": [tuple(row) for row in bought["verdicts"] if (row[0], row[1]) not in known],
            "spending": [tuple(row) for row in bought["spending"] if not self._paid(row[0])],
        }
        if any(rows.values()):
            with self._lock:
                self._insert(rows)

    def _insert(self, rows: Mapping[str, Sequence[tuple]]) -> None:
        with _Transaction(self._db):
            for name, new in rows.items():
                self._db.executemany(_PUT[name], new)

    def _paid(self, number: int) -> bool:
        with self._lock:
            return self._db.execute("SELECT 1 FROM spending WHERE id = ?", (number,)).fetchone() is not None

    def claim(self, name: str) -> bool:
        """Whether this process may ask for a verdict now; False while a living process is asking for it."""
        with self._lock, _Transaction(self._claims):
            row = self._claims.execute("SELECT owner, since FROM claims WHERE key = ?", (name,)).fetchone()
            if row and row[0] != self.owner and _alive(row[0], row[1]):
                return False
            self._claims.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", (name, self.owner, time.time()))
        return True

    def release(self, name: str) -> None:
        """Gives up a claim, with or without a verdict."""
        with self._lock, _Transaction(self._claims):
            self._claims.execute("DELETE FROM claims WHERE key = ? AND owner = ?", (name, self.owner))

    def spent(self, run: str) -> float:
        """What a run has paid so far, its earlier calls included."""
        with self._lock:
            (total,) = self._db.execute("SELECT TOTAL(cost) FROM spending WHERE run = ?", (run,)).fetchone()
        return total

    def __len__(self) -> int:
        with self._lock:
            return self._db.execute("SELECT COUNT(*) FROM verdicts").fetchone()[0]


class Committer:
    """Commits what many coroutines want to keep, all that has come together in one transaction.

    Args:
      cache: where it is kept.
      disk: the one thread that writes.
      run: the run that pays.
    """

    def __init__(self, cache: VerdictCache, disk: ThreadPoolExecutor, run: str):
        self._cache, self._disk, self._run = cache, disk, run
        self._entries: list[Entry] = []
        self._payments: list[Payment] = []
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def put(self, entries: Sequence[Entry], payments: Sequence[Payment]) -> None:
        """Keeps them; they are on the disk when it returns."""
        self._entries += entries
        self._payments += payments
        if self._next is None:
            self._next = asyncio.create_task(self._commit(self._running))
        await asyncio.shield(self._next)

    async def _commit(self, before: asyncio.Task[None] | None) -> None:
        """Waits for the commit that is running, then takes everything that has come by then."""
        if before is not None:
            await asyncio.wait([before])
        self._running, self._next = self._next, None
        entries, payments, self._entries, self._payments = self._entries, self._payments, [], []
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._disk, self._cache.put, entries, payments, self._run)


class _Transaction:
    """A write transaction, undone when its block fails."""

    def __init__(self, db: sqlite3.Connection):
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        self._db.execute("ROLLBACK" if kind else "COMMIT")


def _text(text: str | None) -> str | None:
    """A text that SQLite can hold: lone surrogates become question marks."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def _started(pid: int) -> str:
    """When a process of this machine began, so that another one with its number is told apart; "" where unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _alive(owner: str, since: float) -> bool:
    """Whether a claim still holds."""
    if time.time() - since > LEASE:
        return False
    host, pid, started = owner.rsplit("/", 2)
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(int(pid)) == started
