"""Shards: ArrayRecord files of records with a manifest, written so that a kill at any moment costs one shard.

    DIR/manifest.json                         written last: a folder with a manifest is complete
    DIR/shard-00000.array_record  …           `group_size:1`, one packed record each
    DIR/shard-00000.json  …                   what is known of a finished shard, until the manifest holds it
    DIR/recipe.json                           what the shards are made from

Shard k holds the items k·R … (k+1)·R − 1, whatever became of other shards, so its bytes do not depend on
interruptions. It is written under a temporary name, reopened, compared record by record, hashed, and renamed. An item
that cannot be had is a `Broken`, listed in the manifest, and never replaced by another. Records are `VideoRecord`s
unless another `Packing` is given.

Of several processes of a run, those that share the folder divide its shards among them: each makes every n-th, and the
first writes the manifest. On machines with disks of their own each makes all.
"""

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Generic

from array_record.python import array_record_module

from evads_jax import whole
from evads_jax.data import bucket
from evads_jax.data.manifest import (
    Broken,
    Manifest,
    Shard,
    problem,
    read_manifest,
    sha256,
    shard_of,
    write_json,
)
from evads_jax.data.packing import VIDEOS, Packing, Record
from evads_jax.data.records import VideoRecord
from evads_jax.errors import UserError

FORMAT = 1
_OPTIONS = "group_size:1"
_LOW_DISK = 1 << 20  # bytes; a write that fails with less than this free failed for want of space


Maker = Callable[[int], Record | Broken]


def write(records: Iterable[VideoRecord], folder: str | Path, *, split: str, per_shard: int = 100) -> Manifest:
    """Writes records that are at hand; `build` is for those that have yet to be made.

    Raises:
      UserError: the folder cannot be written or the disk is full.
    """
    made = list(records)
    digest = hashlib.sha256(b"".join(hashlib.sha256(VIDEOS.pack(record)).digest() for record in made)).hexdigest()
    return build(made.__getitem__, len(made), folder, split=split, recipe={"records": digest}, per_shard=per_shard)


def build(
    make: Maker,
    count: int,
    folder: str | Path,
    *,
    split: str,
    recipe: Mapping[str, Any],
    per_shard: int = 100,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    packing: Packing = VIDEOS,
) -> Manifest:
    """Makes the shards of a split, or what is missing of them; does nothing where they are complete.

    With several processes all must call it, with the same split.

    Args:
      make: item number → its record, or why there is none; picklable where `workers` > 0.
      count: number of items.
      folder: where the shards go. Shards of another recipe that lie there are removed.
      split: name of the split.
      recipe: plain data that decides every byte of the shards.
      per_shard: items per shard.
      workers: processes that make shards; 0 makes them here.
      progress: called with (items done, items) after each shard; of several processes with its own part.
      packing: how records become bytes.

    Raises:
      UserError: the folder cannot be written or the disk is full, here or on another process; no half-written shard
        bears a final name.
    """
    import jax  # not before it is needed: the processes that make shards do without

    from evads_jax import processes

    folder = Path(folder)
    # Through JSON, as it comes back from a file.
    recipe = json.loads(json.dumps({**recipe, "format": FORMAT, "count": count, "per_shard": per_shard}))
    ranges = [range(start, min(start + per_shard, count)) for start in range(0, count, per_shard)]
    sharing, me = processes.beside(folder), jax.process_index()
    first, mine = me == sharing[0], range(sharing.index(me), len(ranges), len(sharing))

    def step(work: Callable[[], Any]) -> Any:
        """Work on this process; when it returns, all have done theirs."""
        return processes.together(lambda: _on_disk(work, folder), "make its part of the shards", str(folder))

    known = step(lambda: _begin(folder, recipe) if first else None)
    complete = processes.values(known is not None)[sharing[0]]
    missing = {} if complete else {number: ranges[number] for number in mine}
    made = step(lambda: _make_missing(make, missing, folder, workers, progress, packing))
    manifest = step(lambda: (known or _end(folder, split, recipe, made, len(ranges))) if first else None)
    return manifest or _on_disk(lambda: read_manifest(folder), folder)


def _on_disk(work: Callable[[], Any], folder: Path) -> Any:
    try:
        return work()
    except OSError as error:
        raise _disk_error(error, folder) from error


def _begin(folder: Path, recipe: Mapping[str, Any]) -> Manifest | None:
    """Claims the folder; its manifest, where it is complete."""
    _claim(folder, recipe)
    known = read_manifest(folder)
    if known and known.recipe == recipe and not any(problem(folder, shard) for shard in known.shards):
        return known
    return None


def _end(folder: Path, split: str, recipe: Mapping[str, Any], made: Mapping[int, Shard], count: int) -> Manifest:
    """Writes the manifest; what this process has not made stands beside the shards."""
    shards = tuple(made[number] if number in made else _noted(folder, number) for number in range(count))
    manifest = Manifest(split, recipe, shards)
    write_json(folder / "manifest.json", dataclasses.asdict(manifest))
    for sidecar in folder.glob("shard-*.json"):
        sidecar.unlink()
    return manifest


def _claim(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Makes the folder one of this recipe: what was made from another is removed, and so are temporary files."""
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / "recipe.json"
    if known.exists() and json.loads(known.read_text(encoding="utf-8")) != recipe:
        for path in [folder / "manifest.json", *folder.glob("shard-*"), known]:
            path.unlink(missing_ok=True)
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
    if not known.exists():
        write_json(known, recipe)


def _make_missing(
    make: Maker,
    ranges: Mapping[int, range],
    folder: Path,
    workers: int,
    progress: Callable[[int, int], None],
    packing: Packing,
) -> dict[int, Shard]:
    """Number → shard, of those that `ranges` names."""
    shards: dict[int, Shard] = {}
    for number in ranges:
        if (shard := _finished(folder, number)) is not None:
            shards[number] = shard
    total, done = sum(map(len, ranges.values())), sum(len(ranges[number]) for number in shards)
    missing = {number: items for number, items in ranges.items() if number not in shards}
    for number, shard in _run(make, missing, folder, min(workers, len(missing)), packing):
        shards[number] = shard
        done += len(ranges[number])
        progress(done, total)
    return shards


def _run(
    make: Maker, ranges: Mapping[int, range], folder: Path, workers: int, packing: Packing
) -> Iterator[tuple[int, Shard]]:
    if workers < 1:
        for number, items in ranges.items():
            yield number, make_shard(make, items, folder, number, packing)
        return
    # Spawned: a process that runs JAX must not be forked.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    try:
        jobs: dict[Future[Shard], int] = {
            pool.submit(make_shard, make, items, folder, number, packing): number for number, items in ranges.items()
        }
        for job in as_completed(jobs):
            yield jobs[job], job.result()
    except BrokenProcessPool as error:
        raise UserError("a worker process died", str(folder), "is there enough memory? start the job again") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Makes a worker end when the process that started it is killed: it would wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def make_shard(make: Maker, items: Iterable[int], folder: Path, number: int, packing: Packing = VIDEOS) -> Shard:
    """Makes one shard: temporary name → reopen → compare → hash → rename.

    Raises:
      UserError: it could not be written whole.
    """
    name = f"shard-{number:05d}.array_record"
    digests, questions, broken = [], [], []
    try:
        with whole.replacing(folder / name) as temporary:
            with _writing(temporary) as append:
                for item in items:
                    record = make(item)
                    if isinstance(record, Broken):
                        broken.append(record)
                        continue
                    data = packing.pack(record)
                    append(data)
                    digests.append(hashlib.sha256(data).digest())
                    questions.append(packing.units(record))
            _compare(temporary, digests)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            shard = Shard(name, temporary.stat().st_size, sha256(temporary), tuple(questions), tuple(broken))
        write_json(folder / f"shard-{number:05d}.json", dataclasses.asdict(shard))
        return shard
    except OSError as error:
        raise _disk_error(error, folder / name) from error


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[Callable[[bytes], None]]:
    """An ArrayRecord writer's `write`; what goes wrong in the writer, and only that, becomes an `OSError`."""

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (RuntimeError, ValueError) as error:  # what the C++ writer raises for a failed write
            raise OSError(f"{error}") from error

    writer = call(array_record_module.ArrayRecordWriter, str(path), _OPTIONS)
    try:
        yield lambda data: call(writer.write, data)
    finally:
        call(writer.close)


def _compare(path: Path, digests: Sequence[bytes]) -> None:
    """Raises `OSError` unless a file holds just these records."""
    try:
        reader = array_record_module.ArrayRecordReader(str(path))
        # A truncated file opens without an error, with no records.
        found = [hashlib.sha256(data).digest() for data in reader.read_all()] if reader.num_records() else []
        reader.close()
    except (RuntimeError, ValueError) as error:
        raise OSError(f"what was written cannot be read: {error}") from error
    if found != list(digests):
        raise OSError(errno.EIO, "what was written does not read back")


def _disk_error(error: Exception, where: Path) -> UserError:
    reason = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
    room = os.statvfs(existing).f_bavail * os.statvfs(existing).f_frsize if (existing := _existing(where)) else None
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or (room is not None and room < _LOW_DISK):
        return UserError("the disk is full", str(where), "make room and start the job again; finished shards are kept")
    return UserError(f"cannot write shards ({reason})", str(where), "check the folder and its permissions")


def _existing(path: Path) -> Path | None:
    return next((parent for parent in (path, *path.parents) if parent.exists()), None)


def _finished(folder: Path, number: int) -> Shard | None:
    """What is known of a shard that was finished before, if its file is still what it was."""
    try:
        shard = _noted(folder, number)
        return shard if problem(folder, shard) is None else None
    except (OSError, ValueError, TypeError):
        return None


def _noted(folder: Path, number: int) -> Shard:
    return shard_of(json.loads((folder / f"shard-{number:05d}.json").read_text(encoding="utf-8")))


class RecordSource(Generic[Record]):
    """Random access to the records of a folder of shards; what Grain calls a data source.

    Args:
      folder: the folder.
      split: the split its manifest must name; None for any.
      packing: how its records became bytes.

    Raises:
      UserError: no manifest, another split, or a shard that is missing or whose size, hash or count is not the
        manifest's.
    """

    def __init__(self, folder: str | Path, split: str | None = None, packing: Packing[Record] = VIDEOS):  # type: ignore[assignment]
        self.folder, self._packing = Path(folder), packing
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise UserError("no finished shards", str(folder), "prepare them first")
        if split is not None and manifest.split != split:
            raise UserError(f"these are shards of {manifest.split!r}, not of {split!r}", str(folder))
        self.manifest = manifest
        self.questions = tuple(itertools.chain.from_iterable(shard.questions for shard in manifest.shards))
        self._places = [(s, i) for s, shard in enumerate(manifest.shards) for i in range(len(shard.questions))]
        self._readers: dict[int, Any] = {}
        for number, shard in enumerate(manifest.shards):
            trouble = problem(self.folder, shard)
            if trouble is None and (held := self._reader(number).num_records()) != len(shard.questions):
                trouble = f"it holds {held} records, the manifest says {len(shard.questions)}"
            if trouble:
                raise self._refused(number, trouble)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Record:
        """The `index`-th record.

        Raises:
          UserError: its shard has been damaged since it was opened.
        """
        shard, position = self._places[index]
        try:
            return self._packing.unpack(self._reader(shard).read([position])[0])
        except (RuntimeError, ValueError, IndexError) as error:
            raise self._refused(shard, f"record {position} cannot be read ({' '.join(str(error).split())})") from error

    def __repr__(self) -> str:
        # Grain compares and logs sources by this.
        return f"RecordSource({str(self.folder)!r}, {len(self)} records)"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_readers": {}}

    def _reader(self, number: int) -> Any:
        if number not in self._readers:
            path = str(self.folder / self.manifest.shards[number].name)
            self._readers[number] = array_record_module.ArrayRecordReader(path)
        return self._readers[number]

    def _refused(self, number: int, trouble: str) -> UserError:
        where = self.folder / self.manifest.shards[number].name
        return UserError(f"damaged shard: {trouble}", str(where), "remove the split's folder and prepare it again")


def open(folder: str | Path, split: str, packing: Packing = VIDEOS) -> RecordSource:  # read as `shards.open`
    """The records of split `split` under a folder of splits (`folder/split/manifest.json`); see `RecordSource`.

    Of a folder in a bucket (`gs://…`), what of the split is not on this machine is fetched first.
    """
    return RecordSource(bucket.fetched(folder, (split,)) / split, split, packing)
