"""One model on one benchmark: predictions, verdicts, R5, R3 and R2; start it again and it goes on.

    python -m evads_jax.main --config=configs/evaluate.py --config.policy.run=runs/mg_grpo --workdir=runs/eval

evaluates the last stage of a run on the run's own test videos (200 drawn ads: an estimated two minutes on two cores).
Any model behind an OpenAI-compatible endpoint, on the published test layout, judged by another one:

    python -m evads_jax.main --config=configs/evaluate.py:endpoint --workdir=runs/eval_model \
        --config.policy.base_url=https://host/v1 --config.policy.model=NAME \
        --config.data.parquet=EVAds_Test.parquet --config.data.videos=DIR \
        --config.judge.kind=openai --config.judge.base_url=https://host/v1 --config.judge.model=JUDGE

Variants: run (default) | checkpoint (a Qwen folder in policy.path) | endpoint. docs/evaluate.md has more commands.
Fields that are None are the run's own for a run of ours, else the paper's, as the comments say.
"""

import ml_collections
from ml_collections import config_dict

from evads_jax.errors import UserError

placeholder = config_dict.placeholder
VARIANTS = ("run", "checkpoint", "endpoint")


def get_config(variant: str = "run") -> ml_collections.ConfigDict:
    if variant not in VARIANTS:
        raise UserError(f"unknown variant {variant!r}", "configs/evaluate.py", "one of " + ", ".join(VARIANTS))
    config = ml_collections.ConfigDict()
    config.job = "evaluate"
    config.name = placeholder(str)  # of the folder in W/evaluation; default: the stage's or model's

    run = config.run = ml_collections.ConfigDict()
    run.language = placeholder(str)  # zh | en: of the judge's prompts; default: the run's or the shards', else zh
    run.seed = 0  # of sampling and bootstrap

    policy = config.policy = ml_collections.ConfigDict()
    policy.kind = variant  # run | checkpoint | endpoint
    policy.run = placeholder(str)  # run: its folder, also gs://BUCKET/run
    policy.stage = placeholder(str)  # run: sft, control or mg_grpo; default: the last that is finished
    policy.path = placeholder(str)  # checkpoint: a Qwen2.5-VL or Qwen3-VL folder in the Hugging Face layout
    policy.dtype = "bfloat16"  # checkpoint: of activations
    _endpoint(policy)
    policy.concurrency, policy.timeout = 4, 180.0  # a request holds all frames of a video

    data = config.data = ml_collections.ConfigDict()
    # One of three; none: the test shards of policy.run.
    data.shards = placeholder(str)  # a folder of prepared shards with the split test
    data.parquet = placeholder(str)  # the published test layout
    data.jsonl = placeholder(str)  # one's own questions, JSONL or CSV: docs/your_data.md
    data.videos = placeholder(str)  # the folder of their videos
    data.limit = 0  # the first so many videos; 0 for all
    data.max_bad_share = 0.0  # of malformed rows; above it nothing is evaluated
    data.frame_rate = placeholder(float)  # frames per second; not given in the paper, here 2
    data.max_frames = placeholder(int)  # the paper: 768
    data.frame_size = placeholder(int)  # pixels of the longer side; not given in the paper, here 448
    data.prompt_tokens = placeholder(int)  # bucket of our models; default: the longest video and 8,192 tokens of text
    data.format_eval = placeholder(str)  # the paper: eval_released (speech and question, no overlay text)

    evaluation = config.eval = ml_collections.ConfigDict()
    evaluation.protocol = "paper"  # paper (T 1, seeded) | greedy
    evaluation.samples = 1  # k completions per question, averaged; not given in the paper
    evaluation.max_new_tokens = placeholder(int)  # the paper: 1,524
    evaluation.batch_prompts = 16  # of our models
    evaluation.blank_frames = False  # grey frames in place of the video's; our models only
    evaluation.shuffled = False  # also judge answers dealt out among videos: up to 16 further verdicts a question
    evaluation.bootstrap = 2000

    judge = config.judge = ml_collections.ConfigDict()
    judge.kind = "lexical"  # lexical | openai | local: docs/judges.md
    judge.repeats = 1  # how often each answer is judged; from 2 on the judge's agreement with itself is told
    _judge(judge)
    second = config.second_judge = ml_collections.ConfigDict()
    second.kind = placeholder(str)  # as judge.kind: judges the same answers, and the agreement of the two is told
    _judge(second)
    return config


def _judge(judge: ml_collections.ConfigDict) -> None:
    judge.path = placeholder(str)  # local: the folder of a trained judge
    _endpoint(judge)
    judge.prompts = "v1"
    judge.temperature = 0.0
    judge.max_tokens = 512
    judge.malformed_retries = 2
    judge.cache = placeholder(str)  # default ~/.cache/evads_jax/verdicts.sqlite


def _endpoint(section: ml_collections.ConfigDict) -> None:
    """The fields of any model behind an endpoint; see the variant openai of configs/mg_grpo.py."""
    section.base_url, section.model = placeholder(str), placeholder(str)
    section.key_env = "OPENAI_API_KEY"
    section.body = ""  # JSON put over a request's body
    section.concurrency = 16
    section.requests_per_minute, section.tokens_per_minute = 0.0, 0.0
    section.timeout, section.retries, section.patience = 60.0, 6, 1800.0
    section.prices = ()  # (("model", price of a million tokens in, out), …)
    section.max_cost = placeholder(float)  # over restarts; all judges of a run share one account
    section.currency = "USD"
    section.dry_run = False  # show the first requests and stop
