"""Verdicts on disk: never asked, and never paid for, twice.

An SQLite file that several processes, training and evaluation among them, use at the same time. A verdict is found by
what it depends on (`key`): prompt version and digest, model, sampling, question, evidence, reference, candidate. It is
on the disk before `put` returns. Missing verdicts are not kept, so that the next run asks again.

Two processes that want the same verdict do not both ask: the first one claims it, the other waits for it. The claim of
a process that died on this machine is void at once, another machine's after `LEASE` seconds.

SQLite's write-ahead log needs a local disk; on a network file system the file works in the slower rollback mode.
"""

import dataclasses
import hashlib
import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

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

    Raises:
      UserError: the file cannot be opened, or is none of these.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
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
        with self._lock, _Transaction(self._db):
            self._db.executemany(
                "INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        e.key,
                        e.field,
                        e.verdict.score,
                        e.verdict.reason,
                        _text(e.verdict.raw),
                        e.verdict.cost,
                        e.about,
                        now,
                    )
                    for e in entries
                ],
            )
            self._db.executemany(
                "INSERT INTO spending (run, model, input_tokens, output_tokens, cost, outcome, time) VALUES "
                "(?, ?, ?, ?, ?, ?, ?)",
                [(run, p.model, p.input_tokens, p.output_tokens, p.cost, p.outcome, now) for p in payments],
            )

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
