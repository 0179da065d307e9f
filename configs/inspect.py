"""A run's completions as readable blocks: question, completion, verdicts, reference.

    python -m evads_jax.main --config=configs/inspect.py --config.run=runs/mg_grpo --config.task=CM --config.lowest=1

prints twenty in seconds. Only those without a score: --config.missing=True. Where two runs differ most:
--config.against=runs/other --config.difference=0.5 (or --config.against_stage=sft for two stages of one run). The
completions that MG-GRPO learned from: --config.source=training --config.step=20. No --workdir is needed.
"""

import ml_collections
from ml_collections import config_dict

placeholder = config_dict.placeholder


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.job = "inspect"
    config.run = placeholder(str)  # a folder of mg_grpo or evaluate, also gs://BUCKET/run
    config.source = "evaluation"  # evaluation | training
    config.stage = placeholder(str)  # a folder of W/evaluation, or a stage of training; default: the last
    config.step = placeholder(int)  # training: one step; default all that were kept
    config.against = placeholder(str)  # another run, evaluated on the same questions
    config.against_stage = placeholder(str)  # its evaluation; default the same name
    # Filters; all that are set must hold.
    config.task = placeholder(str)
    config.lowest, config.highest = placeholder(float), placeholder(float)  # of the score, inclusive
    config.missing = False  # without a score: missing verdicts, failed predictions, missing videos
    config.difference = placeholder(float)  # at least so far apart
    config.contains = placeholder(str)  # a text in question, video, id or completion
    config.limit = 20  # blocks shown; 0 for all
    config.jsonl = placeholder(str)  # a file for all that fit the filter
    config.html = placeholder(str)  # a file for those shown
    return config
