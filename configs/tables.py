"""Tables from the folders of finished runs, in seconds.

    python -m evads_jax.main --config=configs/tables.py:main --config.runs=runs/mg_grpo --workdir=runs/tables

`:main` takes one run or several, of mg_grpo or evaluate: stages or models × tasks; `:differences` their paired
differences to the first; `:learning` one run per seed (--config.runs='runs/study/seed*/mg'), and `:learning_summary`
the same in short; `:reward_ablation` one run per seed and grain (--config.runs='runs/study/seed*/*'); `:data_scale` one
run per seed and number of training videos (--config.data.videos_sft, videos_rl); `:density` runs of configs/density.py,
beside the published corpora; `:flor` runs of configs/flor.py (--config.runs='runs/flor_study/runs/*/*').

Prints the table and writes W/tables/<name>.{md,csv,tex,html}. Runs that were asked or judged differently are refused.
"""

import ml_collections
from ml_collections import config_dict

VARIANTS = ("main", "differences", "learning", "learning_summary", "reward_ablation", "data_scale", "density", "flor")


def get_config(variant: str = "main") -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.job = "density_table" if variant == "density" else "tables"
    config.table = variant  # one of VARIANTS
    config.runs = config_dict.placeholder(str)  # folders or patterns, separated by commas; also gs://…
    return config
