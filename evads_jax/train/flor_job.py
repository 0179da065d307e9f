"""The job `flor`: image sets → base training → every target by episodes → tables, in one work directory.

Started again it goes on where it stopped. The step is chosen on validation classes (`train.flor.EpisodeValidation`);
targets are looked at once, with its parameters.

    W/images/<set>                    the image sets, unless `data.images` names another folder
    W/checkpoints/base                the base training
    W/evaluation/<set>                accuracies by episode, summary
    W/tables/flor.*                   the tables
"""

import contextlib
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console

from evads_jax.benchmark import tables
from evads_jax.benchmark.fewshot import evaluation
from evads_jax.benchmark.fewshot.evaluation import Protocol
from evads_jax.benchmark.fewshot.tables import flor as flor_tables
from evads_jax.data.fewshot.prepare import check as check_sets
from evads_jax.data.fewshot.prepare import prepare
from evads_jax.data.fewshot.sets import ImageSet, file_name
from evads_jax.errors import UserError
from evads_jax.events import EventLog
from evads_jax.models import flor, partitioning
from evads_jax.models.division import place
from evads_jax.models.flor import Augmentation, FlorConfig
from evads_jax.train import optimizer
from evads_jax.train.checkpoint import load_params
from evads_jax.train.flor import EpisodeValidation, FlorLearner, ImageBatches
from evads_jax.train.loop import fit
from evads_jax.train.opening import open_run
from evads_jax.train.stage import Result, Stage, data_seed

STAGE = "base"
Params = dict[str, Any]


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs what is left of the training and evaluation that `config` describes.

    Args:
      config: see configs/flor.py.
      workdir: the run's folder.

    Raises:
      UserError: bad config or data; nothing that was done is lost.
    """
    protocol = check(config)
    log, console, say = open_run(config, workdir)
    sets = prepare(config.data, _set_names(config), config.model.image_size, images_folder(config, workdir), say)
    targets = [sets[name] for name in config.data.targets]
    evaluation.check(protocol, targets)
    model = FlorConfig.from_config(config.model, len(sets[config.data.train].classes))
    result = _train(config, workdir, model, sets, log, console)
    about = {"stage": STAGE, "step": result.best_step, "seed": config.run.seed}
    for images in targets:
        folder = evaluation_folder(workdir, images.name)
        summary = evaluation.evaluate(
            result.params, model, images, protocol, folder, about, say, config.train.validation_batch
        )
        means = {name: figure["mean"] for name, figure in summary["figures"].items()}
        log.write_once("evaluation", set=images.name, **means)
        say(f"{images.name}: " + ", ".join(f"{name} {100 * mean:.1f} %" for name, mean in means.items()))
    if jax.process_index() == 0:
        paths = tables.write(workdir / "tables", "flor", flor_tables([workdir]))
        say(f"tables: {paths[0]}, and csv, tex and html beside it")


def check(config: ConfigDict) -> Protocol:
    """Refuses what cannot work before anything is made, and takes over the sizes of the weights that are named.

    Returns:
      How targets are asked.

    Raises:
      UserError: naming the field.
    """
    if config.model.weights:
        if config.model.network != "vit":
            raise UserError("weights are for the network vit", "config.model.weights", "leave them out, or take vit")
        with config.unlocked():
            config.model.update(flor.vit_sizes(config.model.weights))
    FlorConfig.from_config(config.model, 2)
    _augmentation(config)
    optimizer.check(config.train, "config.train")
    if config.data.validation in config.data.targets:
        what = f"{config.data.validation} cannot choose the step and be a target"
        raise UserError(what, "config.data.validation", "take other classes")
    if config.data.train in (config.data.validation, *config.data.targets):
        what = f"{config.data.train} cannot be trained on and asked about"
        raise UserError(what, "config.data.train", "take other classes")
    check_sets(config.data, _set_names(config))
    return Protocol.from_config(config.eval)


def images_folder(config: ConfigDict, workdir: Path) -> Path:
    """Where the image sets of a run are kept."""
    return Path(config.data.images) if config.data.images else workdir / "images"


def evaluation_folder(workdir: Path, name: str) -> Path:
    """Where the results on a set are kept."""
    return workdir / "evaluation" / file_name(name)


def trained(config: ConfigDict, workdir: Path, classes: int) -> tuple[FlorConfig, Params]:
    """The network that a finished run ended with.

    Raises:
      UserError: it is not finished.
    """
    model = FlorConfig.from_config(config.model, classes)
    return model, load_params(workdir, STAGE, flor.abstract(model))


def _set_names(config: ConfigDict) -> list[str]:
    return [config.data.train, config.data.validation, *config.data.targets]


def _augmentation(config: ConfigDict) -> Augmentation:
    return Augmentation(**{**config.augmentation, "area": tuple(config.augmentation.area)})


def _train(
    config: ConfigDict,
    workdir: Path,
    model: FlorConfig,
    sets: Mapping[str, ImageSet],
    log: EventLog,
    console: Console,
) -> Result:
    """The base training, or its result."""
    section, seed = config.train, config.run.seed
    mesh = partitioning.mesh_of(config.mesh)
    training, validation = sets[config.data.train], sets[config.data.validation]
    try:
        episodes = evaluation.sample(
            validation.labels, validation.classes, ways=section.validation_ways, shots=section.validation_shots,
            queries=section.validation_queries, count=section.validation_episodes, seed=seed,
        )  # fmt: skip
    except UserError as error:
        what = f"{validation.name}: {error.what}"
        raise UserError(what, "config.train.validation_*", "ask for less, or take another set") from error
    stage = Stage.of(
        config,
        STAGE,
        max_steps=section.max_steps,
        validate_every=section.validate_every,
        patience=section.patience,
    )
    matrices = optimizer.matrices(flor.abstract(model), flor.axes(model), flor.fan_in(model))
    learner = FlorLearner(
        _start(config, model, mesh),
        model,
        optimizer.make(section, flor.decay_mask(model), section.max_steps, matrices),
        _augmentation(config),
        EpisodeValidation(model, validation, episodes, section.validation_batch),
        _placer(mesh),
    )
    batches = ImageBatches(training, section.batch, data_seed(seed, STAGE))
    about = {"images": len(training), "classes": len(training.classes), "norm": model.norm, "network": model.network}
    with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
        return fit(learner, batches, stage, workdir, log, console, about)


def _start(config: ConfigDict, model: FlorConfig, mesh: jax.sharding.Mesh | None) -> Params:
    """Fresh parameters, or those of the weights that the config names."""
    key = jax.random.fold_in(jax.random.key(config.run.seed), zlib.crc32(b"init"))
    params = flor.load_vit(config.model.weights, model, key) if config.model.weights else flor.init(model, key)
    return params if mesh is None else jax.device_put(params, partitioning.shardings(flor.axes(model), mesh, params))


def _placer(mesh: jax.sharding.Mesh | None) -> Callable[[Any], Any]:
    return lambda batch: place(batch, mesh)
