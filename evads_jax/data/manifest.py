"""What is known of a folder of shards: its manifest, and whether the files are still what it says."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evads_jax import whole
from evads_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Broken:
    """An item that gave no record: its video, the kind of failure and the detail."""

    video: str
    kind: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Shard:
    """A finished shard.

    Attributes:
      name: file name.
      size: bytes.
      sha256: of the file.
      questions: number of questions of each record (`Packing.units`); its length is the number of records.
      broken: the items that gave no record.
    """

    name: str
    size: int
    sha256: str
    questions: tuple[int, ...]
    broken: tuple[Broken, ...] = ()


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a folder of shards holds.

    Attributes:
      split: name of the split.
      recipe: what the shards were made from; shards of an equal recipe are equal.
      shards: in order.
    """

    split: str
    recipe: Mapping[str, Any]
    shards: tuple[Shard, ...]

    @property
    def records(self) -> int:
        """Number of records."""
        return sum(len(shard.questions) for shard in self.shards)

    @property
    def broken(self) -> tuple[Broken, ...]:
        """All items that gave no record."""
        return tuple(itertools.chain.from_iterable(shard.broken for shard in self.shards))


def problem(folder: Path, shard: Shard) -> str | None:
    """What is wrong with a shard's file; None where it is what the manifest says."""
    path = folder / shard.name
    if not path.is_file():
        return "it is missing"
    if (size := path.stat().st_size) != shard.size:
        return f"it has {size} bytes, the manifest says {shard.size}"
    return None if sha256(path) == shard.sha256 else "its hash is not the manifest's"


def sha256(path: Path) -> str:
    """The hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Replaces a JSON file as a whole."""
    whole.write(path, json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n")


def shard_of(fields: Mapping[str, Any]) -> Shard:
    """A shard from its JSON."""
    broken = tuple(Broken(**item) for item in fields["broken"])
    return Shard(**{**fields, "questions": tuple(fields["questions"]), "broken": broken})


def manifest_of(fields: Mapping[str, Any]) -> Manifest:
    """A manifest from its JSON."""
    return Manifest(fields["split"], fields["recipe"], tuple(shard_of(shard) for shard in fields["shards"]))


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where there is none.

    Raises:
      UserError: it cannot be read.
    """
    try:
        return manifest_of(json.loads((folder / "manifest.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError("unreadable manifest", str(folder / "manifest.json"), "remove the folder") from error
