"""The job `study`: one experiment per seed, the reward ablation from each seed's SFT result, and the tables over both.

W/seed<s>/mg         base, sft, mg_grpo, control
W/seed<s>/<grain>    mg_grpo under another reward grain, from the SFT result of W/seed<s>/mg
W/tables             learning, reward_ablation
"""

import copy
from pathlib import Path

from ml_collections import ConfigDict

from evads_jax import workdir as run_folder
from evads_jax.benchmark import tables
from evads_jax.benchmark.table import write_tables
from evads_jax.train import experiment


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs what is left of the study that `config` describes.

    Args:
      config: see configs/study.py; `experiment` is the config of one experiment.
      workdir: the study's folder.

    Raises:
      UserError: bad config or data; nothing that was done is lost.
    """
    run_folder.claim(workdir, config)
    for seed in config.seeds:
        experiment.run(_experiment(config, seed), workdir / f"seed{seed}" / "mg")
        for grain in config.grains:
            ablated = _experiment(config, seed)
            ablated.rl.reward = grain
            ablated.run.stages = ("mg_grpo",)
            ablated.run.sft_from = str(workdir / f"seed{seed}" / "mg")
            ablated.eval.blank_too = ()
            experiment.run(ablated, workdir / f"seed{seed}" / grain)
    mg = [workdir / f"seed{seed}" / "mg" for seed in config.seeds]
    grains = [workdir / f"seed{seed}" / grain for seed in config.seeds for grain in config.grains]
    write_tables(workdir / "tables", "learning", tables.learning(mg))
    if grains:
        write_tables(workdir / "tables", "reward_ablation", tables.reward_ablation(mg + grains))
    print((workdir / "tables" / "learning.md").read_text(encoding="utf-8"))


def _experiment(config: ConfigDict, seed: int) -> ConfigDict:
    made = copy.deepcopy(config.experiment)
    made.run.seed = seed
    return made
