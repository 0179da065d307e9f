"""How records become the bytes of a shard: one `Packing` per type of record."""

import dataclasses
from collections.abc import Callable
from typing import Generic, TypeVar

from evads_jax.data import serial
from evads_jax.data.records import VideoRecord

Record = TypeVar("Record")


@dataclasses.dataclass(frozen=True)
class Packing(Generic[Record]):
    """How records of one type become bytes and come back; plain functions, since worker processes pickle it.

    Attributes:
      pack: record → bytes; the same record gives the same bytes.
      unpack: bytes → record; raises `ValueError` for what is none.
      units: record → how many units of its own it holds (questions of a video, clips of a product).
    """

    pack: Callable[[Record], bytes]
    unpack: Callable[[bytes], Record]
    units: Callable[[Record], int]


def _count_questions(record: VideoRecord) -> int:
    return len(record.questions)


VIDEOS = Packing(serial.pack, serial.unpack, _count_questions)
