"""Supervised fine-tuning alone: prepare → base → SFT → both evaluated → tables and report.

    python -m evads_jax.main --config=configs/sft.py --workdir=runs/sft

The same fields and variants as configs/mg_grpo.py, joined with a plus in the same way; the default is its experiment
on drawn ads without the second half (about half of its time). From a downloaded checkpoint, on one GPU with 24 GB:

    python -m evads_jax.main --config=configs/sft.py:evads+qwen3_vl_2b_lora --workdir=runs/sft_2b \
        --config.data.annotations=DIR --config.data.videos=DIR

configs/variants/qwen.py tells for every such variant which weights to download, and its disk, memory and hours. To go
on with MG-GRPO from the result: configs/mg_grpo.py with the same variant, --config.run.sft_from=runs/sft_2b and
--config.run.stages="('mg_grpo',)".
"""

import runpy
from pathlib import Path

import ml_collections

_EXPERIMENT = runpy.run_path(str(Path(__file__).with_name("mg_grpo.py")))
VARIANTS = _EXPERIMENT["VARIANTS"]


def get_config(variant: str = "rendered") -> ml_collections.ConfigDict:
    config = _EXPERIMENT["get_config"](variant)
    config.run.stages = ("base", "sft")
    config.eval.blank_too = ()
    return config
