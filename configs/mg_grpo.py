"""E-VAds-R1 in small: prepare → SFT → MG-GRPO → evaluate every stage → tables and report.

    python -m evads_jax.main --config=configs/mg_grpo.py --workdir=runs/mg_grpo

Ten minutes or so on two quiet cores, and 3 GB of memory; README.md has measured times and what comes out.

Variants follow a colon, several are joined with a plus and applied in turn: configs/mg_grpo.py:evads+openai. Those that
start from a downloaded Qwen-VL checkpoint, with what they need, are in configs/variants/qwen.py.

Fields marked «not given in the paper» are our choice; the comment says why.
"""

import runpy
from pathlib import Path

import ml_collections
from ml_collections import config_dict

from evads_jax.errors import UserError

placeholder = config_dict.placeholder


def get_config(variant: str = "rendered") -> ml_collections.ConfigDict:
    config = _rendered()
    for name in variant.split("+"):
        if name not in VARIANTS:
            known = ", ".join(sorted(VARIANTS))
            raise UserError(f"unknown variant {name!r}", "configs/mg_grpo.py", f"one of {known}, or several with a +")
        VARIANTS[name](config)
    return config


def _rendered() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.job = "experiment"  # which entry of evads_jax.main runs this config

    run = config.run = ml_collections.ConfigDict()
    run.language = "en"  # zh | en: prompt suffix, judge wording, the unit of «about 50 words»
    run.seed = 0  # everything random in the run derives from it
    run.stages = ("base", "sft", "mg_grpo")  # of base, sft, mg_grpo, control; each is trained and evaluated in turn
    run.sft_from = placeholder(str)  # another run's folder, also gs://…: its shards, tokenizer and sft are the start

    data = config.data = ml_collections.ConfigDict()
    data.source = "render"  # render | annotations | folder
    data.shards = placeholder(str)  # a folder of prepared shards; default W/shards
    data.annotations = placeholder(str)  # folder with the E-VAds parquets
    data.videos = placeholder(str)  # folder of their mp4s; None renders stand-ins
    data.jsonl = placeholder(str)  # one's own questions (JSONL or CSV)
    data.videos_sft = 1600  # videos per split; for real data: a cap, 0 for all
    data.videos_rl = 200
    data.videos_validation = 100
    data.videos_test = 200
    data.held_out = 0.1  # share of videos held out where the source has no test split
    data.max_bad_share = 0.02  # the job fails above this share of malformed rows or broken videos
    data.frame_rate = 1.0  # frames per second taken from a video
    data.max_frames = 6
    data.frame_size = 64  # frames are resized so that they fit this square, in multiples of patch·merge
    data.records_per_shard = 100
    data.workers = 0  # Grain worker processes
    data.prompt_tokens = 240  # bucket T: longer prompts lose event lines
    data.suffix_tokens = 104  # bucket S: question + completion (SFT)
    # sft_released | rl_released | eval_released | asr_ocr. The released formats are the defaults for released rows
    # (variant evads). A model of this size learns no second format from the few steps of RL, and a gain that is
    # only a matter of format would be none: here every stage has the same one.
    data.format_sft = "sft_released"
    data.format_rl = "sft_released"
    data.format_eval = "sft_released"

    tokenizer = config.tokenizer = ml_collections.ConfigDict()
    tokenizer.kind = "sentencepiece"  # sentencepiece (trained on the corpus) | huggingface (tokenizer.json)
    tokenizer.path = placeholder(str)
    tokenizer.vocabulary = 1024
    tokenizer.longest_piece = 16  # characters; short pieces keep Chinese attributes apart (text without spaces)

    model = config.model = ml_collections.ConfigDict()
    model.path = placeholder(str)  # a Qwen-VL checkpoint folder to start from; its sizes and tokenizer replace these
    model.family = "qwen3_vl"
    model.width = 128
    model.layers = 4
    model.heads = 4
    model.kv_heads = 2
    model.head_width = 32
    model.mlp_width = 384
    model.rope_theta = 10_000.0  # Qwen3-VL: 5e6
    model.mrope_sections = (6, 5, 5)  # half the head width, split time/height/width
    model.tie_embeddings = True
    model.vision_width = 96
    model.vision_layers = 3
    model.vision_heads = 4
    model.vision_mlp_width = 256
    model.vision_patch = 8
    model.vision_temporal_patch = 2
    model.vision_merge = 2
    model.vision_position_grid = 8  # side of the learned position table
    model.vision_deepstack = (0, 1)  # vision layers whose features are added to the first text layers
    model.dtype = "float32"  # activations; parameters are always float32
    model.attention = "auto"  # xla | splash (the fused kernel of TPUs) | auto: splash on a TPU
    model.scan_layers = False  # True keeps compile time flat with depth; a shallow model is faster unrolled

    mesh = config.mesh = ml_collections.ConfigDict()
    mesh.data, mesh.fsdp, mesh.tp = 1, 1, 1

    lora = config.lora = ml_collections.ConfigDict()
    lora.rank = 0  # r of the adapters that SFT and MG-GRPO train beside frozen matrices; 0: train these themselves
    lora.alpha = 32.0  # the adapters' product is scaled by alpha / rank
    lora.groups = ("text",)  # of text, merger, vision: whose linear layers get adapters

    train = config.train = ml_collections.ConfigDict()
    train.freeze_vision = False  # True: no gradients and no moments for the vision tower and its mergers

    sft = config.sft = ml_collections.ConfigDict()
    sft.batch_videos = 8
    sft.questions_per_video = 5
    sft.max_steps = 400  # its validation loss still falls then; configs/study.py has the time to wait for its end
    # adamw | muon. Not given in the paper. Muon brings this small model, which starts from nothing, to the same loss
    # in about half the steps; for a checkpoint that is to be tuned gently, adamw is the usual choice.
    sft.optimizer = "muon"
    sft.learning_rate = 3e-3  # not given in the paper
    sft.adam_learning_rate = 1e-3  # with muon: of tables, norms and biases
    sft.warmup_steps = 50
    sft.weight_decay = 0.01
    sft.clip_norm = 1.0
    sft.decay = "none"  # none | cosine (to zero at max_steps): a stage that stops early should not know its end
    sft.validate_every = 100
    sft.patience = 2  # validations without a fall of the loss before SFT ends

    control = config.control = ml_collections.ConfigDict()
    control.steps = placeholder(int)  # SFT continued for so many steps; None: as many as SFT does in MG-GRPO's time
    control.split = "sft"  # sft | rl: whose references it learns

    rl = config.rl = ml_collections.ConfigDict()
    rl.reward = "mg"  # mg | strict | r3 | r5: the grain of the judge's score
    rl.answer_weight, rl.trace_weight, rl.format_weight = 0.8, 0.2, 1.0  # the paper's 0.8 and 0.2; R_fmt in {0, 1}
    rl.loss = "grpo"  # grpo | bnpo | dapo | dr_grpo | gspo | cispo | rloo: docs/rl.md has formulas and sources
    rl.batch_prompts = 16  # B, not given in the paper
    rl.group = 8  # G, not given in the paper; 8 as in AdsQA ReAd-R
    rl.max_steps = 28
    rl.optimizer = "adamw"
    rl.learning_rate = 5e-5  # not given in the paper; 2e-4 breaks the SFT result before it mends it
    rl.warmup_steps = 5
    rl.weight_decay = 0.01
    rl.clip_norm = 1.0
    rl.decay = "none"
    rl.clip_low, rl.clip_high = 0.2, 0.28  # not given in the paper; clip-higher
    rl.dual_clip = placeholder(float)  # c > 1: with a negative advantage no token's loss is above c times it
    rl.cispo_cap = "verl"  # verl: clip(ratio, 1 - clip_low, 1 + clip_high) | trl: min(ratio, clip_high)
    rl.entropy_weight = 0.0  # of the entropy bonus
    rl.kl = "k3"  # none | k1 | k2 | k3 | k1_in_reward
    rl.kl_weight = 1e-2  # not given in the paper; ReAd-R
    rl.scale_advantage = "group"  # group | batch | none
    rl.temperature = 1.0
    rl.top_p = 1.0
    rl.max_new_tokens = 72
    # Smaller numbers of tokens, ascending, that completions are padded to where none is longer; None: always to that.
    rl.suffix_buckets = placeholder(tuple)
    # Numbers of samples, descending: where only so many of a rollout have not ended, they go on alone; None: never.
    rl.compact = placeholder(tuple)
    rl.mask_truncated = False  # True: completions that the limit cut off leave the loss
    rl.overlong_tokens = 0  # the last so many tokens before max_new_tokens cost up to overlong_weight; 0: none do
    rl.overlong_weight = 1.0
    rl.resample_flat = 0  # times that a group of equal rewards is sampled again, then dropped; 0: it stays, at zero
    rl.updates_per_rollout = 1
    rl.old_logps = "sampler"  # sampler | recomputed (by the trainer: one forward pass more)
    rl.importance_cap = placeholder(float)  # recomputed: weights min(recomputed / sampled, cap) on the surrogate
    rl.importance_level = "token"  # token | sequence: what such a weight is a ratio of
    rl.micro_groups = placeholder(int)  # groups worked on at one time in an update; None: all
    rl.micro_samples = placeholder(int)  # samples of each of these groups at one time; None: all
    rl.logit_chunk = placeholder(int)  # tokens whose logits exist at one time; None: the model's
    rl.update_hbm_mib = placeholder(int)  # on TPUs: MiB of a device that an update is compiled for; None: all
    rl.keep_completions_every = 1  # steps between two files in W/completions/mg_grpo; 0 for none

    judge = config.judge = ml_collections.ConfigDict()
    judge.kind = "lexical"

    evaluation = config.eval = ml_collections.ConfigDict()
    evaluation.protocol = "greedy"  # greedy | paper (seeded sampling at T 1)
    evaluation.batch_prompts = 64
    evaluation.max_new_tokens = 72
    evaluation.blank_frames = False  # grey frames in place of the video's, for every stage
    evaluation.blank_too = ()  # stages that are evaluated a second time, blanked
    evaluation.bootstrap = 2000

    checkpoint = config.checkpoint = ml_collections.ConfigDict()
    checkpoint.every = 50
    checkpoint.keep = 2

    log = config.log = ml_collections.ConfigDict()
    log.every = 10
    return config


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Every stage with a few steps: it shows that the parts fit, and teaches nothing."""
    config.run.stages = ("base", "sft", "mg_grpo", "control")
    config.data.videos_sft, config.data.videos_rl = 16, 16
    config.data.videos_validation, config.data.videos_test = 8, 8
    config.data.records_per_shard = 8
    config.sft.max_steps, config.sft.validate_every, config.rl.max_steps = 4, 2, 2
    config.control.steps = 2
    config.checkpoint.every = 2
    config.eval.blank_too = ("mg_grpo",)
    config.eval.bootstrap = 200


def _evads(config: ml_collections.ConfigDict) -> None:
    """The released annotations; name their folder in data.annotations, and their mp4s', if at hand, in data.videos.

    Every released video and row is used, in the three released prompt formats; a tenth of the videos is held out.
    For two cores, prompts are cut to 640 tokens and questions with their target to 256: what is lost is counted in the
    report. The small model learns the form of the data and little else; nothing is claimed beyond a falling loss.
    About 35 minutes on one core, 5 GB.
    """
    config.run.language = "zh"
    config.data.source = "annotations"
    for split in ("sft", "rl", "validation", "test"):
        config.data[f"videos_{split}"] = 0
    config.data.format_sft, config.data.format_rl = "sft_released", "rl_released"
    config.data.format_eval = "eval_released"
    config.data.max_frames = 8
    config.data.frame_rate = 0.2  # the median video has 33 seconds
    config.data.prompt_tokens, config.data.suffix_tokens = 640, 256
    config.tokenizer.vocabulary = 4096
    config.sft.batch_videos, config.sft.max_steps, config.sft.validate_every = 4, 600, 50
    config.sft.optimizer, config.sft.learning_rate = "adamw", 1e-3
    config.rl.batch_prompts, config.rl.max_steps = 8, 40
    config.rl.max_new_tokens = config.eval.max_new_tokens = 192


def _openai(config: ml_collections.ConfigDict) -> None:
    """A language model behind a chat-completions endpoint is the judge, in training and evaluation.

    Name it: --config.judge.base_url=https://host/v1 --config.judge.model=NAME, the key in $OPENAI_API_KEY.
    """
    judge = config.judge
    judge.kind = "openai"
    judge.base_url, judge.model = placeholder(str), placeholder(str)
    judge.key_env = "OPENAI_API_KEY"  # the variable that holds the key; "" for an endpoint without one
    judge.prompts = "v1"  # a folder of evads_jax/judge/prompts
    judge.joint = True  # answer and trace of a completion in one call: half the calls, other verdicts
    judge.temperature = 0.0
    judge.max_tokens = 512
    judge.body = ""  # JSON put over a request's body, e.g. '{"max_tokens": null, "max_completion_tokens": 512}'
    judge.concurrency = 16
    judge.requests_per_minute, judge.tokens_per_minute = 0.0, 0.0  # 0: no limit
    judge.timeout = 60.0  # seconds for one exchange
    judge.retries, judge.malformed_retries = 6, 2  # after failures of the transport; after unreadable replies
    judge.patience = 1800.0  # seconds of pause while the endpoint fails, before the run ends (start it again to go on)
    judge.prices = ()  # (("model", price of a million tokens in, out), …)
    judge.max_cost = placeholder(float)  # of the run, over its restarts; needs a price
    judge.currency = "USD"
    judge.cache = placeholder(str)  # default ~/.cache/evads_jax/verdicts.sqlite, shared by all runs
    judge.dry_run = False  # show ten requests and stop


def _local(config: ml_collections.ConfigDict) -> None:
    """A model trained as a judge (evads_jax.judge.local) is the judge; name its folder in judge.path."""
    config.judge.kind = "local"
    config.judge.path = placeholder(str)


VARIANTS = {
    "rendered": lambda config: None,
    "smoke": _smoke,
    "evads": _evads,
    "openai": _openai,
    "local": _local,
    **runpy.run_path(str(Path(__file__).parent / "variants" / "qwen.py"))["VARIANTS"],
}
