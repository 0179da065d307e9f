"""Grain over a source of records: shuffled, transformed, batched; its position can be saved and restored exactly.

The loader knows neither tokenizer nor model: `transform` turns a record into an item, `collate` a list of items into a
batch. Where `random` is asked for, `transform` also gets a generator that depends on the seed and on the unit's place
in the (endless) order alone, so that what it draws differs from epoch to epoch and is the same after a restart.
"""

import bisect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import grain
import numpy as np
from absl import flags

from evads_jax.data.shards import RecordSource

Item = TypeVar("Item")
Batch = TypeVar("Batch")
Unit = Literal["video", "question"]

# Reading is a JPEG decode and some tokenising under the interpreter's lock: more threads only queue.
_READING = grain.ReadOptions(num_threads=2, prefetch_buffer_size=16)


class _Units:
    """(record number, question number | None) of each unit, as a Grain source that reads nothing."""

    def __init__(self, source: RecordSource, unit: Unit):
        self._source, self._unit = source, unit
        self._starts = list(itertools.accumulate(source.questions, initial=0))

    def __len__(self) -> int:
        return len(self._source) if self._unit == "video" else self._starts[-1]

    def __getitem__(self, index: int) -> tuple[Any, int | None]:
        if self._unit == "video":
            return self._source[index], None
        record = bisect.bisect_right(self._starts, index) - 1
        return self._source[record], index - self._starts[record]

    def __repr__(self) -> str:
        return f"{self._unit}s of {self._source!r}"


class _Apply:
    """A transform with the unit's two values as its arguments; a class, because Grain workers pickle it."""

    def __init__(self, transform: Callable[..., Any]):
        self._transform = transform

    def __call__(self, unit: tuple[Any, int | None], *generator: np.random.Generator) -> Any:
        return self._transform(*unit, *generator)


def make_loader(
    source: RecordSource,
    transform: Callable[..., Item | None],
    collate: Callable[[Sequence[Item]], Batch],
    *,
    batch: int,
    unit: Unit = "video",
    seed: int = 0,
    shuffle: bool = True,
    epochs: int | None = None,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    drop_remainder: bool = True,
    random: bool = False,
) -> grain.DatasetIterator[Batch]:
    """An iterator over batches.

    Args:
      source: the records.
      transform: (record, number of the question or None for the whole video) → item, or None to leave it out;
        deterministic, and picklable where `workers` > 0. With `random`, its third argument is a generator.
      collate: items → batch.
      batch: items per batch of this process.
      unit: what an item is made of: a whole record (a video with all its questions), or a single question.
      seed: of the shuffling; every epoch has its own order.
      shuffle: False keeps the source's order.
      epochs: passes over the source; None goes on forever.
      workers: Grain worker processes; a saved state fits only the same number.
      process_index: this process's number; it takes every `process_count`-th unit of the shuffled order.
      process_count: number of processes.
      drop_remainder: whether a last, smaller batch is dropped.
      random: whether `transform` draws.

    Returns:
      The iterator; `get_state()` and `set_state(state)` save and restore its position exactly.
    """
    units = grain.MapDataset.source(_Units(source, unit)).seed(seed)
    if shuffle:
        units = units.shuffle()
    units = units.repeat(epochs)
    if process_count > 1:
        units = units[process_index::process_count]
    apply = _Apply(transform)
    items = (units.random_map(apply) if random else units.map(apply)).to_iter_dataset(_READING)  # drops what is None
    batches = items.batch(batch, drop_remainder=drop_remainder, batch_fn=collate)
    if workers:
        if not flags.FLAGS.is_parsed():  # Grain reads absl's flags, also where no absl app parsed them
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(batches)
