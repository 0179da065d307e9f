"""Grain over a source of records: shuffled, transformed, batched; its position can be saved and restored exactly.

The loader knows neither tokenizer nor model: `transform` turns a record into an item, `collate` a list of items into a
batch. Where `random` is asked for, `transform` also gets a generator that depends on the seed and on the unit's place
in the (endless) order alone, so that what it draws differs from epoch to epoch and is the same after a restart.

Batch n consists of the units n·B … n·B + B − 1 of the order, whoever reads it: one of several processes reads only its
own rows of each batch. So the position is one number, of batches, and is that of any number of processes and workers.
"""

import bisect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

import grain
import numpy as np
from absl import flags

Item = TypeVar("Item")
Batch = TypeVar("Batch")
Unit = Literal["video", "question"]

# Reading is a JPEG decode and some tokenising under the interpreter's lock: more threads only queue. What is read ahead
# are whole batches.
_READING = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)


class Source(Protocol):
    """What a loader reads: `shards.RecordSource`, or what is like it."""

    @property
    def questions(self) -> Sequence[int]:
        """How many questions each record holds; what a loader of unit "video" reads may say 0."""

    def __len__(self) -> int:
        """How many records there are."""

    def __getitem__(self, index: int) -> Any:
        """A record; called by several threads."""


class _Units:
    """(record number, question number | None) of each unit; knows their number without reading any."""

    def __init__(self, source: Source, unit: Unit):
        self._source, self._unit = source, unit
        self._starts = list(itertools.accumulate(source.questions, initial=0))

    def __len__(self) -> int:
        return len(self._source) if self._unit == "video" else self._starts[-1]

    def __getitem__(self, index: int) -> tuple[Any, int | None]:
        if self._unit == "video":
            return self._source[index], None
        record = bisect.bisect_right(self._starts, index) - 1
        return self._source[record], index - self._starts[record]


class _Read:
    """Reads a process's rows of a batch and collates them; a class, because Grain workers pickle it.

    What it is called with are the batch's (number of the unit, seed | None).
    """

    def __init__(
        self,
        units: _Units,
        transform: Callable[..., Any],
        collate: Callable[[Sequence[Any]], Any],
        rows: Sequence[int] | None,
    ):
        self._units, self._transform, self._collate, self._rows = units, transform, collate, rows

    def __call__(self, batch: Sequence[tuple[int, int | None]]) -> Any:
        rows = range(len(batch)) if self._rows is None else [row for row in self._rows if row < len(batch)]
        return self._collate([self._item(*batch[row]) for row in rows])

    def _item(self, number: int, seed: int | None) -> Any:
        generator = () if seed is None else (np.random.default_rng(seed),)
        return self._transform(*self._units[number], *generator)


def _without_seed(number: int) -> tuple[int, None]:
    return int(number), None


def _with_seed(number: int, generator: np.random.Generator) -> tuple[int, int]:
    return int(number), int(generator.integers(1 << 63))


class Loader(Generic[Batch]):
    """An iterator over batches whose position can be saved and restored.

    Args:
      batches: all of them; nothing is read before it is asked for.
      workers: Grain worker processes that read; 0: threads of this one.
    """

    def __init__(self, batches: grain.MapDataset, workers: int):
        self._batches, self._workers = batches, workers
        self._drawn = 0
        self._iterator: grain.DatasetIterator | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        """The next batch."""
        if self._iterator is None:
            self._iterator = self._begin()
        batch = next(self._iterator)
        self._drawn += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """The position: batches drawn so far."""
        return {"batches": self._drawn}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a position."""
        if self._iterator is not None:
            self._iterator.close()
        self._drawn, self._iterator = state["batches"], None

    def _begin(self) -> grain.DatasetIterator:
        left = self._batches[self._drawn :].to_iter_dataset(_READING)
        if self._workers:
            if not flags.FLAGS.is_parsed():  # Grain reads absl's flags, also where no absl app parsed them
                flags.FLAGS.mark_as_parsed()
            left = left.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._workers))
        return iter(left)


def make_loader(
    source: Source,
    transform: Callable[..., Item],
    collate: Callable[[Sequence[Item]], Batch],
    *,
    batch: int,
    unit: Unit = "video",
    seed: int = 0,
    shuffle: bool = True,
    epochs: int | None = None,
    workers: int = 0,
    rows: Sequence[int] | None = None,
    drop_remainder: bool = True,
    random: bool = False,
) -> Loader[Batch]:
    """An iterator over batches.

    Args:
      source: the records.
      transform: (record, number of the question or None for the whole video) → item; deterministic, and picklable where
        `workers` > 0. With `random`, its third argument is a generator.
      collate: items → batch. It gets the items of this process's rows: fewer, or none, in a last, smaller batch.
      batch: B, items per batch of all processes together.
      unit: what an item is made of: a whole record (a video with all its questions), or a single question.
      seed: of the shuffling; every epoch has its own order.
      shuffle: False keeps the source's order.
      epochs: passes over the source; None goes on forever.
      workers: Grain worker processes.
      rows: which rows of each batch this process reads, of 0 … B − 1; None: all.
      drop_remainder: whether a last, smaller batch is dropped.
      random: whether `transform` draws.

    Returns:
      The iterator.
    """
    units = _Units(source, unit)
    order = grain.MapDataset.source(range(len(units))).seed(seed)
    if shuffle:
        order = order.shuffle()
    order = order.repeat(epochs)
    numbered = order.random_map(_with_seed) if random else order.map(_without_seed)
    batches = numbered.batch(batch, drop_remainder=drop_remainder, batch_fn=list)
    return Loader(batches.map(_Read(units, transform, collate, rows)), workers)
