"""A judge of one's own: a small model trained on drawn ads to score answers and traces as their script does.

    python -m evads_jax.main --config=configs/judge.py --workdir=runs/judge

Trains from fresh parameters and measures on ads of other combinations: agreement with the script, controls, attacks
(docs/judges.md has the tables). About 40 minutes on one core, 3 GB; expect a kappa above .9. It then serves as

    python -m evads_jax.main --config=configs/mg_grpo.py:local --config.judge.path=runs/judge/judge \
        --workdir=runs/judged

A judge reads one language: --config.run.language=zh trains a Chinese one. Variants follow a colon:

    smoke    a few steps: shows that the parts fit, teaches nothing
"""

import ml_collections
from ml_collections.config_dict import placeholder

from evads_jax.errors import UserError


def get_config(variant: str = "rendered") -> ml_collections.ConfigDict:
    if variant not in VARIANTS:
        raise UserError(f"unknown variant {variant!r}", "configs/judge.py", "one of " + ", ".join(sorted(VARIANTS)))
    config = _rendered()
    VARIANTS[variant](config)
    return config


def _rendered() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.job = "train_judge"

    run = config.run = ml_collections.ConfigDict()
    run.language = "en"  # zh | en: of ads, prompts and the judge
    run.seed = 0  # everything random in the run derives from it

    data = config.data = ml_collections.ConfigDict()
    data.ads_train = 4000  # scripts; candidates are drawn anew at every step
    data.ads_validation = 200
    data.ads_test = 400
    data.prompts = "v1"  # a folder of evads_jax/judge/prompts
    data.prompt_tokens = 352  # of a whole prompt; a longer one loses event lines
    data.candidate_tokens = 104  # of them, for a candidate and what follows it; one that does not fit is drawn again
    data.attack_share = 0.35  # of the candidates that stand inside an attack or noise

    tokenizer = config.tokenizer = ml_collections.ConfigDict()
    tokenizer.vocabulary = 2048
    tokenizer.longest_piece = 16

    model = config.model = ml_collections.ConfigDict()
    model.width = 96
    model.layers = 7  # of the last one only the prompt's last token is computed when it judges
    model.heads = 4
    model.kv_heads = 2
    model.head_width = 32
    model.mlp_width = 256
    model.rope_theta = 10_000.0
    model.mrope_sections = (6, 5, 5)
    model.tie_embeddings = True
    # The smallest tower: a judge is shown no frames.
    model.vision_width = model.vision_mlp_width = 4
    model.vision_layers = model.vision_heads = 1
    model.vision_patch = model.vision_temporal_patch = model.vision_merge = model.vision_position_grid = 1
    model.dtype = "float32"
    model.scan_layers = False

    train = config.train = ml_collections.ConfigDict()
    train.groups = 5  # a batch: questions, each with …
    train.candidates = 8  # … so many candidates; ten groups hold every grid value equally often for both aspects
    # The stage `reading`: 0 for none. Without it the verdict's two tokens have to teach the words of the prompts too.
    train.reading_steps = 600
    train.reading_prompts = 16  # a step, each with all its text
    train.named_layer = 4  # layers that read, and after which a value's state says what the script has in its place
    train.compared_layer = 6  # layers after which it says whether that is the value
    # The stage `marks`: 0 for none. It learns these two alone, from values of which half are the script's.
    train.mark_steps = 500
    train.marks = 1.0  # weight of both, beside the verdict too; 0 leaves them out
    train.max_steps = 1000  # of the stage `judge`
    train.optimizer = "muon"  # adamw | muon
    train.learning_rate = 3e-3
    train.adam_learning_rate = 2e-3  # with muon: of tables and norms
    train.warmup_steps = 30
    train.weight_decay = 0.01
    train.clip_norm = 1.0
    train.decay = "cosine"  # none | cosine (to zero at the end of each stage)
    train.validate_every = 100
    train.validation_examples = 320
    train.patience = 3  # validations without a fall of the loss before it ends

    evaluation = config.eval = ml_collections.ConfigDict()
    # Of the test ads; None: run.seed. Changed after training, the judge that is there is measured on ads drawn anew.
    evaluation.seed = placeholder(int)
    evaluation.examples = 800  # honest candidates of held-out ads
    evaluation.attacked = 50  # of them, attacked in every way
    evaluation.batch = 32
    evaluation.bootstrap = 2000

    checkpoint = config.checkpoint = ml_collections.ConfigDict()
    checkpoint.every = 100
    checkpoint.keep = 1

    log = config.log = ml_collections.ConfigDict()
    log.every = 20
    return config


def _smoke(config: ml_collections.ConfigDict) -> None:
    """A few steps on a few ads."""
    config.data.ads_train, config.data.ads_validation, config.data.ads_test = 40, 10, 10
    config.train.reading_steps, config.train.reading_prompts, config.train.mark_steps = 2, 4, 2
    config.train.max_steps, config.train.validate_every, config.train.validation_examples = 4, 2, 20
    config.train.groups, config.checkpoint.every = 2, 2
    config.eval.examples, config.eval.attacked, config.eval.bootstrap = 20, 2, 100


VARIANTS = {"rendered": lambda config: None, "smoke": _smoke}
