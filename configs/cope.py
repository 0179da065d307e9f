"""COPE: one embedding space for a product's pages, short videos and live clips.

    python -m evads_jax.main --config=configs/cope.py --workdir=runs/cope

Draws products, trains the paper's form from fresh parameters and evaluates retrieval in six directions and one-shot
classification, before training and after, on validation and test products. Two quiet cores: about four minutes
(estimate from 1.1 core-seconds a step). JAX_COMPILATION_CACHE_DIR=DIR saves the next run most of its compiling.
Variants follow a colon, joined with a plus (configs/cope.py:released+text):

    smoke                      a few steps: shows that the parts fit, teaches nothing
    visual, text, per_domain   the baselines: one modality; encoders of its own for every domain
    released                   the authors' later code: pages fused, video and live visual only
    rope                       ROPE's files and the published sizes, from downloaded weights; see docs/cope.md
    search                     nearest products of a clip, as a page (another job)
    study                      the models over three seeds, and the loss weights swept (65 minutes on one core)

The search and the study:

    python -m evads_jax.main --config=configs/cope.py:search --config.run=runs/cope --config.clip=test-00000/live0 \
        --workdir=runs/cope_search
    python -m evads_jax.main --config=configs/cope.py:study --workdir=runs/cope_study

Fields marked «not given in the paper» are our choice.
"""

import ml_collections
from ml_collections import config_dict

from evads_jax.errors import UserError

placeholder = config_dict.placeholder
PAIRS = (
    *("page_visual_video", "page_visual_live", "video_live", "page_fused_video"),
    *("page_fused_live", "page_text_video", "page_text_live"),
)


def get_config(variant: str = "rendered") -> ml_collections.ConfigDict:
    names = variant.split("+")
    for name in names:
        if name not in VARIANTS:
            known = ", ".join(sorted(VARIANTS))
            raise UserError(f"unknown variant {name!r}", "configs/cope.py", f"one of {known}, or several with a +")
    if "search" in names:
        return _search()
    config = _rendered()
    for name in (name for name in names if name != "study"):
        VARIANTS[name](config)
    return _study(config) if "study" in names else config


def _rendered() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.job = "cope"

    run = config.run = ml_collections.ConfigDict()
    run.language = "en"  # zh | en: of drawn titles, speech and chat
    run.seed = 0  # everything random in the run derives from it, the drawn products too

    data = config.data = ml_collections.ConfigDict()
    data.source = "render"  # render | rope
    data.shards = placeholder(str)  # a folder of prepared products; default W/products
    data.products_train = 600  # products per split; for ROPE: a cap, 0 for all
    data.products_validation = 120
    data.products_test = 180
    data.pages, data.videos, data.lives = 3, 3, 3  # drawn clips of each product
    data.rope = placeholder(str)  # folder of ROPE's text files
    data.pictures = placeholder(str)  # folder of the pictures that they name
    data.separator = "\t"  # between id and value in ROPE's lines: not published
    data.pair_columns = ("clip", "product")  # of ROPE's pair files, or the other way round: not published
    data.clips_per_domain = 0  # clips kept of each ROPE product and domain; 0 for all
    data.held_out = 0.02  # share of ROPE's training products held back for validation
    data.on_bad = "skip"  # skip | refuse: pictures that are missing or corrupt, products without any pair
    data.empty_text = "keep"  # keep | refuse: texts of zero tokens; kept, they read as a learned «nothing said»
    data.max_bad_share = 0.02  # the job fails above this share of products without a pair
    data.records_per_shard = 100
    data.workers = 0  # Grain worker processes

    tokenizer = config.tokenizer = ml_collections.ConfigDict()
    tokenizer.kind = "sentencepiece"  # sentencepiece (trained on the texts) | bert (a folder with vocab.txt)
    tokenizer.path = placeholder(str)
    tokenizer.vocabulary = 1024
    tokenizer.longest_piece = 16

    model = config.model = ml_collections.ConfigDict()
    model.form = "paper"  # paper | released
    model.shared = True  # False: encoders of its own for every domain
    model.modality = "both"  # both | visual | text
    model.frame_size = 48
    model.frames = 3  # released code: 8
    model.text_tokens = 48  # released code: 32
    model.embedding = 128
    model.visual_width, model.visual_layers, model.visual_heads = 64, 3, 4
    model.visual_mlp_width = 192
    model.visual_patch = 8
    model.visual_activation = "quick_gelu"  # quick_gelu | gelu
    model.mit_width, model.mit_layers, model.mit_heads = 64, 1, 4
    model.text_width, model.text_layers, model.text_heads = 64, 3, 4  # three layers as in the paper
    model.text_mlp_width = 192
    model.fusion_layers = 1  # not given in the paper; 0: the released code's linear map
    model.fusion_width, model.fusion_heads = 64, 4
    model.dtype = "float32"  # activations; parameters are always float32
    model.scan_layers = False
    model.remat = False

    start = config.start = ml_collections.ConfigDict()
    start.visual = placeholder(str)  # folder of a CLIP-class ViT or X-CLIP to start from
    start.text = placeholder(str)  # folder of a BERT (Chinese RoBERTa) to start from

    mesh = config.mesh = ml_collections.ConfigDict()
    mesh.data, mesh.fsdp, mesh.tp = 1, 1, 1

    loss = config.loss = ml_collections.ConfigDict()
    loss.pairs = ml_collections.ConfigDict(dict.fromkeys(PAIRS, 1.0))  # not given in the paper
    loss.classification = 0.1  # not given in the paper; of the mean over the domains (released code: of the sum)
    loss.temperature = 0.05
    loss.smoothing = 0.1
    loss.scale, loss.margin = 64.0, 0.4
    loss.chunk = placeholder(int)  # anchors whose similarities exist at one time; None: all

    cope = config.cope = ml_collections.ConfigDict()
    cope.batch_products = 64
    cope.max_steps = 300
    cope.optimizer = "muon"  # adamw | muon; released code: adamw
    cope.learning_rate = 3e-3
    cope.adam_learning_rate = 1e-3  # with muon: of tables, norms and biases
    cope.visual_rate, cope.text_rate = 1.0, 1.0  # times the rate, for the encoders
    cope.warmup_steps = 30
    cope.weight_decay = 0.01
    cope.clip_norm = 5.0
    cope.decay = "cosine"  # none | cosine
    cope.validate_every = 0  # steps between looks at validation products; 0 for never
    cope.patience = 0  # validations without a higher R@1 before training ends; 0: it does not end early

    evaluation = config.eval = ml_collections.ConfigDict()
    evaluation.splits = ("validation", "test")
    evaluation.floor = True  # evaluate before training too
    evaluation.batch_clips = 64
    evaluation.draws = 100  # of the examples of the one-shot classification
    evaluation.bootstrap = 2000
    evaluation.export = "npz"  # npz | safetensors | "": embeddings of all evaluated clips

    checkpoint = config.checkpoint = ml_collections.ConfigDict()
    checkpoint.every = 100
    checkpoint.keep = 1

    log = config.log = ml_collections.ConfigDict()
    log.every = 20
    return config


def _smoke(config: ml_collections.ConfigDict) -> None:
    """Everything with a few products and steps."""
    config.data.products_train, config.data.products_validation, config.data.products_test = 24, 9, 9
    config.data.pages, config.data.videos, config.data.lives = 2, 1, 1
    config.model.frame_size, config.model.frames = 32, 2
    config.tokenizer.vocabulary = 512
    config.cope.batch_products, config.cope.max_steps, config.cope.warmup_steps = 8, 4, 2
    config.cope.validate_every, config.checkpoint.every = 2, 2
    config.eval.batch_clips, config.eval.bootstrap, config.eval.draws = 16, 100, 5


def _visual(config: ml_collections.ConfigDict) -> None:
    config.model.modality = "visual"


def _text(config: ml_collections.ConfigDict) -> None:
    config.model.modality = "text"


def _per_domain(config: ml_collections.ConfigDict) -> None:
    config.model.shared = False


def _released(config: ml_collections.ConfigDict) -> None:
    config.model.form = "released"
    config.model.fusion_layers = 0
    config.loss.classification = 3.0  # times the mean: the sum over the domains


def _rope(config: ml_collections.ConfigDict) -> None:
    """The published sizes and the released code's optimizer; needs an accelerator. Unmeasured here.

    Name data.rope, data.pictures, start.visual (an X-CLIP B/16 folder), start.text and tokenizer.path (a Chinese
    RoBERTa folder of three layers or more).
    """
    config.run.language = "zh"
    data, model, cope = config.data, config.model, config.cope
    data.source = "rope"
    data.products_train = data.products_validation = data.products_test = 0
    data.clips_per_domain = 4
    config.tokenizer.kind = "bert"
    model.frame_size, model.frames, model.text_tokens = 224, 8, 32
    model.visual_width, model.visual_layers, model.visual_heads, model.visual_mlp_width = 768, 12, 12, 3072
    model.visual_patch = 16
    model.mit_width, model.mit_layers, model.mit_heads = 512, 4, 8
    model.text_width, model.text_layers, model.text_heads, model.text_mlp_width = 768, 3, 12, 3072
    model.fusion_layers, model.fusion_width, model.fusion_heads = 0, 512, 8
    model.dtype, model.scan_layers, model.remat = "bfloat16", True, True
    config.loss.classification = 3.0  # times the mean: the sum over the domains
    config.loss.chunk = 128
    cope.batch_products, cope.max_steps, cope.warmup_steps = 128, 50_000, 1_000
    cope.optimizer, cope.learning_rate, cope.visual_rate, cope.text_rate = "adamw", 5e-3, 2e-3, 1e-3
    data.workers = 8
    config.checkpoint.every = 2_000


def _search() -> ml_collections.ConfigDict:
    """Nearest products of a clip of the run's own data, or of a picture and a text from outside."""
    config = ml_collections.ConfigDict()
    config.job = "cope_search"
    config.run = placeholder(str)  # folder of a finished run of this file
    config.split = "test"  # the products that are searched
    config.gallery = "page"  # page | video | live: the clips that are searched
    config.clip = placeholder(str)  # id of a clip of the split
    config.picture = placeholder(str)  # or a picture file
    config.text = placeholder(str)  # or (with it) a text
    config.domain = "page"  # what a picture and a text from outside are read as
    config.count = 10  # products shown
    return config


def _study(base: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Three seeds of COPE and its baselines on the same products, and other loss weights on the first seed."""
    config = ml_collections.ConfigDict()
    config.job = "cope_study"
    config.seeds = (11, 12, 13)
    config.models = ("cope", "visual", "text", "per_domain")
    config.only = ()  # of the runs seed<s>/<model>, sweep/<setting>: what this process makes; (): all, and the tables
    config.experiment = base
    sweep = config.sweep = ml_collections.ConfigDict()  # name → fields of `loss` that differ from the experiment's
    sweep.no_classification = ml_collections.ConfigDict({"classification": 0.0})
    sweep.classification_1 = ml_collections.ConfigDict({"classification": 1.0})
    fused = ml_collections.ConfigDict({name: float("visual" not in name and "text" not in name) for name in PAIRS})
    sweep.fused_pairs_only = ml_collections.ConfigDict({"pairs": fused})
    halves = ml_collections.ConfigDict({name: 0.3 if "visual" in name or "text" in name else 1.0 for name in PAIRS})
    sweep.single_kinds_03 = ml_collections.ConfigDict({"pairs": halves})
    return config


VARIANTS = {
    "rendered": lambda config: None,
    "smoke": _smoke,
    "visual": _visual,
    "text": _text,
    "per_domain": _per_domain,
    "released": _released,
    "rope": _rope,
    "search": lambda config: None,
    "study": lambda config: None,
}
