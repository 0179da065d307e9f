"""Tables from the folders of finished runs, in seconds.

    python -m evads_jax.main --config=configs/tables.py:main --config.runs=runs/mg_grpo --workdir=runs/tables

`:main` takes one run or several; `:learning` one run per seed (--config.runs='runs/study/seed*/mg');
`:reward_ablation` one run per seed and grain (--config.runs='runs/study/seed*/*').

Prints the table and writes W/tables/<name>.{md,csv,tex}. Runs that were asked or judged differently are refused.
"""

import ml_collections
from ml_collections import config_dict


def get_config(variant: str = "main") -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.job = "tables"
    config.table = variant  # main | learning | reward_ablation
    config.runs = config_dict.placeholder(str)  # folders or patterns, separated by commas
    return config
