"""New questions about videos by five roles: draft, critique, revise, check, verify, choose.

    python -m evads_jax.main --config=configs/generate_qa.py --workdir=runs/qa --config.data.annotations=DIR

drafts from the events of the released RL videos with the embedded writer: a minute for all 196, no network. It prints
how many drafts each check rejected, per task. A model that takes images writes better ones:

    python -m evads_jax.main --config=configs/generate_qa.py:endpoint --workdir=runs/qa_model \
        --config.qa.base_url=https://host/v1 --config.qa.model=NAME \
        --config.data.annotations=DIR --config.data.videos=DIR

Variants: scripted (default) | endpoint | render (drawn ads, for a trial).
"""

import ml_collections
from ml_collections import config_dict

from evads_jax.errors import UserError

placeholder = config_dict.placeholder


def get_config(variant: str = "scripted") -> ml_collections.ConfigDict:
    if variant not in ("scripted", "endpoint", "render"):
        raise UserError(f"unknown variant {variant!r}", "configs/generate_qa.py", "one of scripted, endpoint, render")
    config = ml_collections.ConfigDict()
    config.job = "generate_qa"

    run = config.run = ml_collections.ConfigDict()
    run.language = "en" if variant == "render" else "zh"  # of prompts and questions
    run.seed = 0

    data = config.data = ml_collections.ConfigDict()
    data.source = "render" if variant == "render" else "annotations"  # annotations | manifest | render
    data.annotations = placeholder(str)  # folder with the E-VAds parquets
    data.splits = ("rl",)  # of sft, rl, test: whose videos
    data.manifest = placeholder(str)  # one's own: JSONL of video, duration[, category, events]
    data.videos = placeholder(str)  # folder of the mp4s; None: events alone
    data.limit = 20 if variant == "render" else 0  # the first so many videos; 0 for all

    qa = config.qa = ml_collections.ConfigDict()
    qa.writer = "endpoint" if variant == "endpoint" else "scripted"
    qa.prompts = "v1"  # a folder of evads_jax/benchmark/qa/prompts
    qa.frames, qa.frame_size = 12, 448  # frames per video that a writer sees, and their longer side in pixels
    qa.longest_answer = 100  # Chinese characters or words; the released answers have at most 88 characters
    qa.similarity = 0.8  # Jaccard similarity of two questions' pairs of tokens from which on one is dropped
    qa.videos_at_once = 4
    qa.dry_run = False  # show the first requests and stop
    # The endpoint; see the variant openai of configs/mg_grpo.py.
    qa.base_url, qa.model = placeholder(str), placeholder(str)
    qa.key_env = "OPENAI_API_KEY"
    qa.temperature = 0.7
    qa.max_tokens = 4096
    qa.body = ""
    qa.concurrency = 8
    qa.requests_per_minute, qa.tokens_per_minute = 0.0, 0.0
    qa.timeout, qa.retries, qa.patience = 180.0, 6, 1800.0
    qa.prices = ()  # (("model", price of a million tokens in, out), …)
    qa.max_cost = placeholder(float)
    qa.currency = "USD"
    return config
