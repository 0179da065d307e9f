r"""A trained model as a folder that transformers and vLLM open: safetensors, config, tokenizer and a model card.

    python -m evads_jax.main --config=configs/export.py --config.run=runs/mg_grpo --config.stage=mg_grpo \
        --config.out=exports/mg_grpo

A run that started from a checkpoint (model.path) is written like that checkpoint: the same names, types, shards and
config. Time: seconds for the small model (measured); for 8B about what reading and writing 16 GB takes (estimate).
docs/checkpoints.md says what is in the folder.
"""

import ml_collections
from ml_collections import config_dict

placeholder = config_dict.placeholder


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.job = "export"
    config.run = placeholder(str)  # the run's folder, also gs://BUCKET/run
    config.stage = placeholder(str)  # base | sft | control | mg_grpo; default: mg_grpo where it is finished
    config.out = placeholder(str)  # the folder to write
    config.dtype = "float32"  # float32 | bfloat16, of a model that did not start from a checkpoint; else that one's
    return config
