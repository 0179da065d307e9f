"""What the stages learn, over several seeds, and the reward ablation: the figures of the README.

    python -m evads_jax.main --config=configs/study.py --workdir=runs/study

For each seed: fresh ads, base, SFT, MG-GRPO, the control (SFT continued for as long as MG-GRPO took), each evaluated on
the same test videos; the table `learning`, and in short `learning_summary`. Then, for each seed, GRPO again from its
SFT result under the other reward grains; the table `reward_ablation`. All are in W/tables. A killed study goes on where
it stopped.

About two hours on two cores: on one core of an AMD EPYC a seed took 45 to 53 minutes and another grain about 4. Two
seeds side by side, each on a core of its own, take less time than one after the other on both:
`config.only` names the runs of one process, and the call above, last, writes the tables.

    taskset -c 0 python -m evads_jax.main --config=configs/study.py --workdir=runs/study --config.only="('seed31/mg',)"
"""

import runpy
from pathlib import Path

import ml_collections


def get_config(variant: str = "rendered") -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.job = "study"
    config.seeds = (31, 32, 33)
    config.only = ()  # of the folders seed<s>/mg, seed<s>/<grain>: what this process runs; (): all, and the tables
    config.grains = ("strict", "r3", "r5")  # beside mg
    config.experiment = runpy.run_path(str(Path(__file__).with_name("mg_grpo.py")))["get_config"](variant)
    config.experiment.run.stages = ("base", "sft", "mg_grpo", "control")
    config.experiment.eval.blank_too = ("sft", "mg_grpo")
    # SFT until its validation loss stops falling: before that, more of it beats anything that takes as long.
    # That falls in stairs, one for each task, and a landing may be longer than two validations.
    config.experiment.sft.max_steps, config.experiment.sft.patience = 5000, 3
    config.experiment.rl.max_steps = 40
    return config
