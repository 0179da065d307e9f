"""Where an experiment's policy starts: drawn anew from `config.model`, or a checkpoint folder in `config.model.path`.

A checkpoint's sizes are written into `config.model` before anything is made, so that the run's config.json holds them
and everything that reads that section finds the sizes of the model that was trained.
"""

import dataclasses
import zlib
from typing import Any

import jax
from ml_collections import ConfigDict

from evads_jax import storage
from evads_jax.data.tokenizer import SentencePieceTokenizer, find_tokenizer, load_tokenizer
from evads_jax.errors import UserError
from evads_jax.models import partitioning, qwen_vl
from evads_jax.models.qwen_vl import QwenVLConfig, checkpoint
from evads_jax.train import trainable

# Fields of `config.model` that a checkpoint does not decide.
_OWN = ("path", *checkpoint.RUNNING)


def adopt(config: ConfigDict) -> None:
    """Writes the sizes and the tokenizer of `config.model.path` into the config; without a path, nothing.

    `config.tokenizer.path`, where it is set, stays.

    Raises:
      UserError: no such checkpoint, an unsupported one, one without a tokenizer, or one that knows fewer ids than its
        tokenizer has.
    """
    if not config.model.path:
        return
    folder = storage.fetched(config.model.path)
    model = checkpoint.read_config(folder)
    sizes = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    vision = sizes.pop("vision")
    sizes |= {f"vision_{field.name}": getattr(vision, field.name) for field in dataclasses.fields(vision)}
    with config.unlocked():
        config.model.update({name: value for name, value in sizes.items() if name not in _OWN})
        if not config.tokenizer.path:
            small = isinstance(find_tokenizer(folder), SentencePieceTokenizer)
            config.tokenizer.kind = "sentencepiece" if small else "huggingface"
            config.tokenizer.path = storage.name_of(folder)
    tokenizer = load_tokenizer(config.tokenizer.kind, config.tokenizer.path)
    if tokenizer.size > model.vocabulary:
        what = f"the tokenizer has {tokenizer.size} ids, the model knows {model.vocabulary}"
        raise UserError(what, str(config.tokenizer.path), "give the model's own tokenizer")


def parameters(config: ConfigDict, model: QwenVLConfig, mesh: jax.sharding.Mesh | None = None) -> Any:
    """The parameters that a run starts from, where the mesh wants them and as `trainable.prepare` keeps them.

    Args:
      config: the run's config, after `adopt`; its seed decides what is drawn where no checkpoint is named.
      model: its sizes.
      mesh: the devices; None for one.

    Raises:
      UserError: the checkpoint cannot be read, or holds other tensors than its config.json says.
    """
    placed = None
    if mesh is not None:
        placed = partitioning.shardings(qwen_vl.axes(model), mesh, qwen_vl.abstract(model))
    if config.model.path:
        return trainable.prepare(
            config, model, checkpoint.load_parameters(storage.fetched(config.model.path), model, placed)
        )
    seed = config.run.seed
    params = qwen_vl.init(model, jax.random.fold_in(jax.random.key(seed), zlib.crc32(f"{seed}/init".encode())))
    return trainable.prepare(config, model, params if placed is None else jax.device_put(params, placed))
