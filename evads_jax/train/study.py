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
    whole = {seed: workdir / f"seed{seed}" / "mg" for seed in config.seeds}
    for seed, folder in whole.items():
        experiment.run(_experiment(config, seed), folder)
    write_tables(workdir / "tables", "learning", tables.learning([*whole.values()]))
    print((workdir / "tables" / "learning.md").read_text(encoding="utf-8"))
    grains = []
    for seed, folder in whole.items():
        for grain in config.grains:
            ablated = _experiment(config, seed)
            ablated.rl.reward = grain
            ablated.run.stages = ("mg_grpo",)
            ablated.run.sft_from = str(folder)
            ablated.eval.blank_too = ()
            grains.append(workdir / f"seed{seed}" / grain)
            experiment.run(ablated, grains[-1])
    if grains:
        write_tables(workdir / "tables", "reward_ablation", tables.reward_ablation([*whole.values(), *grains]))
        print((workdir / "tables" / "reward_ablation.md").read_text(encoding="utf-8"))


def _experiment(config: ConfigDict, seed: int) -> ConfigDict:
    made = copy.deepcopy(config.experiment)
    made.run.seed = seed
    return made
