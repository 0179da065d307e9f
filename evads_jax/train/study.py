"""The job `study`: one experiment per seed, the reward ablation from each seed's SFT result, and the tables over both.

W/seed<s>/mg         base, sft, mg_grpo, control
W/seed<s>/<grain>    mg_grpo under another reward grain, from the SFT result of W/seed<s>/mg
W/tables             learning, learning_summary, reward_ablation

Several processes may share it (`train.only`).
"""

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from evads_jax import storage
from evads_jax import workdir as run_folder
from evads_jax.benchmark import tables
from evads_jax.benchmark.table import write_tables
from evads_jax.train import experiment
from evads_jax.train.only import chosen


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs what is left of the study that `config` describes.

    Args:
      config: see configs/study.py; `experiment` is the config of one experiment.
      workdir: the study's folder.

    Raises:
      UserError: bad config or data; nothing that was done is lost.
    """
    run_folder.claim(workdir, config)
    whole = {f"seed{seed}/mg": _experiment(config, seed) for seed in config.seeds}
    ablated = {
        f"seed{seed}/{grain}": _ablated(config, seed, grain, workdir)
        for seed in config.seeds
        for grain in config.grains
    }
    made = chosen((*whole, *ablated), config.only)
    _runs(whole, workdir, made)
    if not config.only:
        for table in ("learning", "learning_summary"):
            _write(workdir, table, whole)
    _runs(ablated, workdir, made)
    if ablated and not config.only:
        _write(workdir, "reward_ablation", (*whole, *ablated))


def _runs(experiments: dict[str, ConfigDict], workdir: Path, made: Sequence[str]) -> None:
    for name, config in experiments.items():
        if name in made:
            experiment.run(config, workdir / name)


def _write(workdir: Path, name: str, runs: Iterable[str]) -> None:
    write_tables(workdir / "tables", name, tables.TABLES[name]([workdir / run for run in runs]))
    print((workdir / "tables" / f"{name}.md").read_text(encoding="utf-8"))


def _experiment(config: ConfigDict, seed: int) -> ConfigDict:
    made = copy.deepcopy(config.experiment)
    made.run.seed = seed
    return made


def _ablated(config: ConfigDict, seed: int, grain: str, workdir: Path) -> ConfigDict:
    made = _experiment(config, seed)
    made.rl.reward = grain
    made.run.stages = ("mg_grpo",)
    made.run.sft_from = storage.name_of(workdir / f"seed{seed}" / "mg")
    made.eval.blank_too = ()
    return made
