"""Safetensors files as they lie on disk: which tensors a folder holds, their bytes mapped, and files written in place.

A file is eight bytes with the length of its header, the header (JSON: name → type, shape, span of bytes) and the
tensors' bytes. Files are mapped into memory, so that a slice of a tensor reads its own pages only; and they are written
tensor by tensor, so that no file is ever held as a whole.
"""

import dataclasses
import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np

from evads_jax import whole
from evads_jax.errors import UserError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES: Mapping[str, np.dtype] = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16)}
SHARD_BYTES = 5 * 10**9  # as transformers has it

_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 100 << 20  # the format's own limit


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a file.

    Attributes:
      name: its name.
      dtype: its type in the format's terms, e.g. "BF16".
      shape: its shape.
      start: where its bytes begin, counted from the end of the header.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """Bytes; types other than `DTYPES` are not read and count 0."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize if self.dtype in DTYPES else 0


@dataclasses.dataclass(frozen=True)
class File:
    """The header of a file.

    Attributes:
      path: the file.
      header: the header's bytes.
      tensors: its tensors, in the order of their bytes.
    """

    path: Path
    header: bytes
    tensors: tuple[Tensor, ...]

    def arrays(self) -> dict[str, np.ndarray]:
        """Tensors by name, mapped: reading a slice reads its bytes only. Types other than `DTYPES` are left out."""
        data = np.memmap(self.path, np.uint8, "r", offset=_LENGTH.size + len(self.header))
        return {
            t.name: data[t.start : t.start + t.size].view(DTYPES[t.dtype]).reshape(t.shape)
            for t in self.tensors
            if t.dtype in DTYPES
        }


def read_files(folder: Path) -> list[File]:
    """The headers of a checkpoint's files: model.safetensors, or the shards that model.safetensors.index.json names.

    Raises:
      UserError: there are none, one is missing, truncated or not such a file, or a tensor is not where the index says.
    """
    if (folder / SINGLE).is_file():
        return [_read_file(folder / SINGLE)]
    if not (folder / INDEX).is_file():
        what = (
            f"no {SINGLE} and no {INDEX} in the checkpoint folder" if folder.is_dir() else "no such checkpoint folder"
        )
        raise UserError(what, str(folder), "give a folder with config.json and safetensors weights")
    try:
        where = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(where.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError("not an index of safetensors files", str(folder / INDEX)) from error
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UserError(f"files of the checkpoint are missing: {', '.join(missing)}", str(folder), "download them")
    files = [_read_file(folder / name) for name in names]
    held = {tensor.name: file.path.name for file in files for tensor in file.tensors}
    if astray := sorted(name for name in where.keys() | held.keys() if where.get(name) != held.get(name)):
        raise UserError(f"tensors are not in the files that the index names: {', '.join(astray)}", str(folder / INDEX))
    return files


def plan(folder: Path, tensors: Iterable[tuple[str, tuple[int, ...]]], dtype: str) -> list[File]:
    """The files that a checkpoint of these tensors will have: one, or several of `SHARD_BYTES` at most.

    Args:
      folder: where they will be.
      tensors: names and shapes, in the order in which they will be written.
      dtype: key of `DTYPES`.
    """
    shards: list[list[Tensor]] = [[]]
    end = 0
    for name, shape in tensors:
        tensor = Tensor(name, dtype, shape, end)
        if shards[-1] and end + tensor.size > SHARD_BYTES:
            shards.append([])
            tensor = dataclasses.replace(tensor, start=0)
        shards[-1].append(tensor)
        end = tensor.start + tensor.size
    names = [SINGLE]
    if len(shards) > 1:
        names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    return [File(folder / name, _header(shard), tuple(shard)) for name, shard in zip(names, shards, strict=True)]


def index(files: Sequence[File]) -> str:
    """The content of model.safetensors.index.json for several files."""
    tensors = [(tensor, file.path.name) for file in files for tensor in file.tensors]
    total = sum(tensor.size for tensor, _ in tensors)
    weight_map = {tensor.name: name for tensor, name in sorted(tensors, key=lambda pair: pair[0].name)}
    return json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2) + "\n"


def write_file(file: File, array: Callable[[Tensor], np.ndarray], writes: bool = True) -> None:
    """Writes a file, one tensor at a time; it is either whole or absent.

    Args:
      file: header and path.
      array: gives a tensor's values, in any type.
      writes: False asks for every tensor in the same order and writes nothing (processes other than the first).

    Raises:
      UserError: it cannot be written.
    """
    if not writes:
        for tensor in file.tensors:
            array(tensor)
        return
    try:
        with whole.replacing(file.path) as temporary, temporary.open("wb") as out:
            out.write(_LENGTH.pack(len(file.header)) + file.header)
            for tensor in file.tensors:
                values = np.ascontiguousarray(array(tensor), DTYPES[tensor.dtype])
                out.write(values.reshape(-1).view(np.uint8).data)
    except OSError as error:
        raise UserError(f"cannot write: {error.strerror}", str(file.path), "make room and start again") from error


def _read_file(path: Path) -> File:
    try:
        with path.open("rb") as opened:
            length = opened.seek(0, 2)
            opened.seek(0)
            prefix = opened.read(_LENGTH.size)
            (size,) = _LENGTH.unpack(prefix) if len(prefix) == _LENGTH.size else (0,)
            if not 2 <= size <= _LONGEST_HEADER or _LENGTH.size + size > length:
                raise UserError(
                    f"not a safetensors file, or cut in its header ({length} bytes)", str(path), "get it anew"
                )
            header = opened.read(size)
        spans = json.loads(header)
        spans.pop("__metadata__", None)
        tensors = [Tensor(name, s["dtype"], tuple(s["shape"]), s["data_offsets"][0]) for name, s in spans.items()]
        end = max((s["data_offsets"][1] for s in spans.values()), default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError("not a readable safetensors file", str(path), "get it anew") from error
    if missing := _LENGTH.size + size + end - length:
        what = f"{missing} bytes of it are missing" if missing > 0 else f"it has {-missing} bytes too many"
        raise UserError(f"a truncated or damaged safetensors file: {what}", str(path), "get it anew")
    for tensor in tensors:
        if tensor.size and tensor.size != spans[tensor.name]["data_offsets"][1] - tensor.start:
            raise UserError(f"the size of {tensor.name} does not fit its shape", str(path), "get it anew")
    return File(path, header, tuple(sorted(tensors, key=lambda t: t.start)))


def _header(tensors: Sequence[Tensor]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for t in tensors:
        entries[t.name] = {"dtype": t.dtype, "shape": list(t.shape), "data_offsets": [t.start, t.start + t.size]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % _LENGTH.size)  # the bytes after it stand aligned
