"""Qwen2.5-VL and Qwen3-VL checkpoints in the Hugging Face layout: folder → config and parameters, and back.

    config = read_config(folder)
    params = load_parameters(folder, config, partitioning.shardings(axes(config), mesh, abstract(config)))
    save_parameters(out, params, config, source=folder)

Reading goes straight into the sharded layout: each device's part is read from the mapped files, so that a host reads
what its own devices hold. Writing goes tensor by tensor. With a source folder the written files have its tensors'
names, shapes, types, order and division into shards; a folder that is loaded and saved unchanged is equal byte by byte.
"""

import dataclasses
import functools
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from evads_jax.data.qwen_processor import Processing
from evads_jax.data.tokenizer import Tokenizer
from evads_jax.errors import UserError
from evads_jax.models.qwen_vl import checkpoint_files as files
from evads_jax.models.qwen_vl import checkpoint_names as names
from evads_jax.models.qwen_vl.checkpoint_config import read_config
from evads_jax.models.qwen_vl.checkpoint_extras import write_extras
from evads_jax.models.qwen_vl.config import QwenVLConfig
from evads_jax.models.qwen_vl.parameters import Params

__all__ = ["load_parameters", "read_config", "save_parameters"]

DTYPES = {"float32": "F32", "bfloat16": "BF16"}
# What is carried from a source folder to an export beside weights: config, tokenizer, processor, template, licence.
_CARRIED = ("*.json", "*.jinja", "merges.txt", "tokenizer.model", "LICENSE*")
_THREADS = 8  # that transpose layers while parameters are read; each holds a copy of one
# Fields of a config that a checkpoint does not decide.
RUNNING = ("dtype", "attention", "scan_layers", "remat", "logit_chunk", "video_layout")


def load_parameters(folder: str | Path, config: QwenVLConfig, shardings: Any = None) -> Params:
    """Reads a checkpoint's parameters.

    Args:
      folder: holds safetensors files, one or several with an index; bfloat16 or float32.
      config: from `read_config`.
      shardings: the parameters' tree with a sharding per leaf (`partitioning.shardings`); None: the default device.

    Returns:
      The parameters in float32, as `qwen_vl.init` gives them.

    Raises:
      UserError: unreadable or truncated files; or tensors that are missing, left over, of another shape or of another
        type, all of them named in the one error.
    """
    folder = Path(folder)
    opened = files.read_files(folder)
    wanted = names.places(config)
    _check(folder, opened, wanted, config)
    arrays = {names.canonical(name): array for file in opened for name, array in file.arrays().items()}
    if config.tie_embeddings and names.HEAD in arrays:
        _check_tied(folder, arrays)
    if shardings is None:
        one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        where = [one] * len(wanted)
    else:
        where = jax.tree.leaves(shardings)
    tree: Params = {}
    for place, sharding in zip(wanted, where, strict=True):
        *parents, last = place.path
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        layers = [place.ours(arrays[name]) for name in place.names]
        node[last] = jax.make_array_from_callback(place.shape, sharding, functools.partial(_read, place, layers))
    return tree


def save_parameters(
    folder: str | Path,
    parameters: Params,
    config: QwenVLConfig,
    source: str | Path | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    dtype: str = "float32",
    video: Processing | None = None,
) -> None:
    """Writes parameters as a checkpoint that transformers opens.

    With several processes all of them call this; the first one writes.

    Args:
      folder: where to; files of the same names are replaced.
      parameters: the tree of `qwen_vl.init`, on the devices or as NumPy arrays.
      config: the model's sizes.
      source: the folder that the model was loaded from. Names, shapes, types and shards are as there, and its config,
        tokenizer and processor files are copied. None: names as in the family's release, and the files that
        transformers needs are made.
      tokenizer: without a source, the model's tokenizer; its files and ids are written too.
      dtype: without a source, the type of the stored tensors, "float32" or "bfloat16".
      video: without a source, how videos are processed; None: as transformers does by default.

    Raises:
      UserError: the source is this folder, or of another model; or the folder holds other weights or cannot be written.
    """
    folder, writes = Path(folder), jax.process_index() == 0
    wanted = names.places(config)
    if source is not None:
        source = Path(source)
        if source.resolve() == folder.resolve():
            raise UserError("a checkpoint cannot be exported over its source", str(folder), "name another folder")
        if (theirs := _decided(read_config(source))) != _decided(config):
            differing = [
                f.name for f in dataclasses.fields(config) if getattr(theirs, f.name) != getattr(config, f.name)
            ]
            differing = [name for name in differing if name not in RUNNING]
            raise UserError(f"the source is another model: it differs in {', '.join(differing)}", str(source))
        held = files.read_files(source)
        _check(source, held, wanted, config)
        planned = [dataclasses.replace(file, path=folder / file.path.name) for file in held]
    else:
        if tokenizer is None:
            raise UserError("an export without a source folder needs a tokenizer", str(folder))
        listed = [(names.released(name, config.family), place.tensor) for place in wanted for name in place.names]
        planned = files.plan(folder, listed, DTYPES[dtype])
    if stale := {path.name for path in folder.glob("*.safetensors")} - {file.path.name for file in planned}:
        raise UserError(f"the folder holds other weights: {', '.join(sorted(stale))}", str(folder), "name a new one")
    try:
        if writes:
            folder.mkdir(parents=True, exist_ok=True)
            if source is not None:
                _carry(source, folder)
            elif tokenizer is not None:
                write_extras(folder, config, tokenizer, dtype, video)
                if len(planned) > 1:
                    (folder / files.INDEX).write_text(files.index(planned), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write: {error.strerror}", str(folder), "make room and start again") from error
    find = {name: (place, i) for place in wanted for i, name in enumerate(place.names)}
    if config.tie_embeddings:
        find[names.HEAD] = find[names.EMBED]

    def values(tensor: files.Tensor) -> np.ndarray:
        place, i = find[names.canonical(tensor.name)]
        leaf = functools.reduce(lambda node, key: node[key], place.path, parameters)
        return place.theirs(_on_host(_layer(leaf, i) if place.stacked else leaf))

    for file in planned:
        files.write_file(file, values, writes)


def _read(place: names.Place, layers: list[np.ndarray], index: tuple[slice, ...]) -> np.ndarray:
    """The part of a parameter that one device holds, in float32."""
    if not place.stacked:
        return np.ascontiguousarray(layers[0][index], np.float32)
    chosen = [layer[index[1:]] for layer in layers[index[0]]]
    out = np.empty((len(chosen), *chosen[0].shape), np.float32)

    def fill(i: int) -> None:
        out[i] = chosen[i].astype(np.float32)  # first the type in the file's order, then the order: faster than at once

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(fill, range(len(chosen))))
    return out


def _check(folder: Path, opened: list[files.File], wanted: list[names.Place], config: QwenVLConfig) -> None:
    """Refuses a checkpoint whose tensors are not the model's, naming every one of them."""
    shapes = {name: place.tensor for place in wanted for name in place.names}
    allowed = dict(shapes)
    if config.tie_embeddings:
        allowed[names.HEAD] = shapes[names.EMBED]
    found = {names.canonical(tensor.name): tensor for file in opened for tensor in file.tensors}
    told = []
    if missing := [names.released(name, config.family) for name in shapes if name not in found]:
        told.append(f"missing are {', '.join(missing)}")
    if extra := [tensor.name for name, tensor in found.items() if name not in allowed]:
        told.append(f"not of this model are {', '.join(extra)}")
    both = [(tensor, allowed[name]) for name, tensor in found.items() if name in allowed]
    if wrong := [f"{t.name} {list(t.shape)}, not {list(shape)}" for t, shape in both if t.shape != shape]:
        told.append(f"of another shape are {', '.join(wrong)}")
    if typed := [f"{t.name} {t.dtype}" for t, _ in both if t.dtype not in files.DTYPES]:
        told.append(f"neither bfloat16 nor float32 are {', '.join(typed)}")
    if told:
        raise UserError("the tensors are not those of config.json: " + "; ".join(told), str(folder))


def _check_tied(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A tied head that is stored all the same must be the table."""
    head, table = arrays[names.HEAD], arrays[names.EMBED]
    rows = 4096
    parts = (slice(start, start + rows) for start in range(0, len(table), rows))
    if head.dtype != table.dtype or not all(np.array_equal(head[part], table[part]) for part in parts):
        what = "config.json ties the head to the table of tokens, the weights do not"
        raise UserError(what, str(folder), "set tie_word_embeddings to false in config.json")


def _decided(config: QwenVLConfig) -> QwenVLConfig:
    """A config with the defaults in place of what a checkpoint does not decide."""
    defaults: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(config) if f.name in RUNNING}
    return dataclasses.replace(config, **defaults)


def _carry(source: Path, folder: Path) -> None:
    for pattern in _CARRIED:
        for path in sorted(source.glob(pattern)):
            shutil.copyfile(path, folder / path.name)


def _layer(leaf: Any, index: int) -> Any:
    return leaf[index] if isinstance(leaf, np.ndarray) else _take(leaf, index)


@jax.jit
def _take(leaf: jax.Array, index: int) -> jax.Array:
    """One layer of a stack; compiled once per shape, whatever the layer."""
    return jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False)


def _on_host(array: Any) -> np.ndarray:
    """An array as a whole, gathered from all processes where they share it."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)
