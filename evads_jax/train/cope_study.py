"""The job `cope_study`: COPE and its baselines on the same products, seed by seed, the loss weights swept, the tables.

W/seed<s>/products       the products of a seed, shared by its models
W/seed<s>/<model>        a run of the job `cope`: cope, visual, text, per_domain
W/sweep/<setting>        COPE of the first seed under other loss weights, evaluated on validation products
W/tables                 retrieval (test), validation/retrieval, weights

Several processes may share it (`train.only`); a seed's products are to be complete before a second one begins on it.
"""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from ml_collections import ConfigDict

from evads_jax import storage
from evads_jax import workdir as run_folder
from evads_jax.benchmark.retrieval import tables
from evads_jax.benchmark.table import write_tables
from evads_jax.errors import UserError
from evads_jax.train import cope_run
from evads_jax.train.only import chosen


def _model_of(modality: str, *, shared: bool = True) -> Callable[[ConfigDict], None]:
    def change(config: ConfigDict) -> None:
        config.model.modality, config.model.shared = modality, shared
        if modality != "both":
            # One kind of embedding has three pairs instead of seven; classification keeps its part of the loss.
            config.loss.classification *= 3 / 7

    return change


MODELS: Mapping[str, Callable[[ConfigDict], None]] = MappingProxyType(
    {
        "cope": _model_of("both"),
        "visual": _model_of("visual"),
        "text": _model_of("text"),
        "per_domain": _model_of("both", shared=False),
    }
)


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs what is left of the study that `config` describes.

    Args:
      config: see configs/cope.py:study; `experiment` is the config of one training.
      workdir: the study's folder.

    Raises:
      UserError: bad config or data; nothing that was done is lost.
    """
    if unknown := [name for name in config.models if name not in MODELS]:
        raise UserError(f"unknown model {unknown[0]!r}", "config.models", "of " + ", ".join(MODELS))
    if lacking := [split for split in ("validation", "test") if split not in config.experiment.eval.splits]:
        raise UserError(f"the tables show {lacking[0]} products", "config.experiment.eval.splits", "name both splits")
    models = {
        f"seed{seed}/{name}": _model(config, workdir, seed, name) for seed in config.seeds for name in config.models
    }
    weighted = {f"sweep/{name}": _weighted(config, workdir, name) for name in config.sweep}
    experiments = {**models, **weighted}
    for experiment in experiments.values():
        cope_run.check(experiment)
    made = chosen(experiments, config.only)
    run_folder.claim(workdir, config)
    for name in made:
        cope_run.run(experiments[name], workdir / name)
    if config.only:
        return
    runs, sweep = ([workdir / name for name in names] for names in (models, weighted))
    if "cope" in config.models:
        sweep.insert(0, workdir / f"seed{config.seeds[0]}" / "cope")
    folder = workdir / "tables"
    write_tables(folder, "retrieval", tables.models(runs))
    write_tables(folder / "validation", "retrieval", tables.models(runs, "validation"))
    if sweep:
        write_tables(folder, "weights", [tables.weights(sweep)])
    print((folder / "retrieval.md").read_text(encoding="utf-8"))


def _model(config: ConfigDict, workdir: Path, seed: int, name: str) -> ConfigDict:
    """The experiment of a model of `MODELS`."""
    made = _experiment(config, workdir, seed)
    MODELS[name](made)
    return made


def _weighted(config: ConfigDict, workdir: Path, name: str) -> ConfigDict:
    """The experiment of a setting of the sweep.

    Raises:
      UserError: a field or pair that the loss does not have.
    """
    made = _experiment(config, workdir, config.seeds[0])
    try:
        made.loss.update(config.sweep[name])
    except (KeyError, TypeError) as error:
        raise UserError(f"no such loss: {error.args[0]}", f"config.sweep.{name}", "see `loss` in its run") from error
    made.eval.splits, made.eval.floor = ("validation",), False
    return made


def _experiment(config: ConfigDict, workdir: Path, seed: int) -> ConfigDict:
    """The experiment of a seed; its products are drawn once and shared."""
    made = copy.deepcopy(config.experiment)
    made.run.seed = seed
    if not made.data.shards:
        made.data.shards = storage.name_of(workdir / f"seed{seed}" / "products")
    return made
