"""FLoR: base training on source classes, few-shot episodes on other domains, tables (CVPR 2024, arXiv 2403.00567).

    python -m evads_jax.main --config=configs/flor.py --workdir=runs/flor

trains a ResNet10 with FLoR's norm on rendered product photos and asks it about products in photos, line drawings and
thermal pictures and about patches of materials: at most five minutes on one core, half a minute more the first time,
when the images are drawn. Expect accuracies to fall from photos to textures in this order. Variants follow a colon,
several are joined with a plus and applied in turn, e.g. configs/flor.py:vit+layer:

    vit                                         the other network: a small ViT with FLoR's norm
    batch  instance  layer  fixed  flor         the norm (layer: ViT only)
    digits                                      handwritten digits as one more target (needs scikit-learn)
    finetuned                                   each target also by fine-tuning the mix on the support
    mini_imagenet                               the published sizes and data, for an accelerator (see the function)
    smoke                                       a few steps: it shows that the parts fit
    study                                       every network and norm over three seeds, the landscape, the tables:
                                                27 trainings, 97 core minutes at commit cc07467, and then the landscape
    landscape                                   the loss between two norms, of finished runs (--config.runs)

    python -m evads_jax.main --config=configs/flor.py:study --workdir=runs/flor_study
    python -m evads_jax.main --config=configs/flor.py:landscape --config.runs='runs/flor*' --workdir=runs/landscape

Fields marked «not given in the paper» are our choice; docs/flor.md says why.
"""

import ml_collections
from ml_collections import config_dict

from evads_jax.errors import UserError

placeholder = config_dict.placeholder


_VIT_TRAINING = {"optimizer": "muon", "learning_rate": 5e-3}


def get_config(variant: str = "resnet10") -> ml_collections.ConfigDict:
    config = _embedded()
    for name in variant.split("+"):
        if name not in VARIANTS:
            known = ", ".join(sorted(VARIANTS))
            raise UserError(f"unknown variant {name!r}", "configs/flor.py", f"one of {known}, or several with a +")
        config = VARIANTS[name](config) or config
    return config


def _embedded() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.job = "flor"  # which entry of evads_jax.main runs this config

    run = config.run = ml_collections.ConfigDict()
    run.seed = 0  # of parameters, batches, views and the norms' weights

    data = config.data = ml_collections.ConfigDict()
    data.train = "photos/train"  # names of image sets: evads_jax/data/fewshot/prepare.py lists them
    data.validation = "photos/validation"  # its classes choose the step
    data.targets = ("photos/novel", "lines/novel", "thermal/novel", "textures/novel")
    data.images = placeholder(str)  # where image sets are kept; default W/images
    data.rendered_per_class = 80
    data.at_most_per_class = 0  # of sets that are read: images a class, drawn by data.seed; 0 for all
    data.seed = 0  # of rendered images; not run.seed, so that all runs see the same ones
    data.bad_images = "skip"  # skip | refuse: images that cannot be read
    data.mini_imagenet = placeholder(str)  # folders of sets that are read
    data.isic = placeholder(str)
    data.chestx = placeholder(str)
    data.tfds = placeholder(str)  # TFDS's data_dir, prepared as array_record

    model = config.model = ml_collections.ConfigDict()
    model.network = "resnet10"  # resnet10 | vit
    model.norm = "flor"  # batch | instance | layer (vit) | fixed | flor
    model.beta = (0.01, 0.01)  # a, b; the paper has (.01, .026) for CropDiseases, EuroSAT, ISIC and ChestX
    model.image_size = 64
    model.widths = (32, 64, 128, 256)  # of the ResNet10's blocks; the paper's are twice these
    model.width, model.layers, model.heads, model.mlp_width, model.patch = 64, 4, 4, 256, 8  # of the ViT
    model.weights = placeholder(str)  # ViT: a folder of DINO weights to start from (they decide its sizes)

    train = config.train = ml_collections.ConfigDict()
    train.batch = 64
    train.max_steps = 600
    train.optimizer = "adamw"  # adamw | muon
    train.learning_rate = 1e-3
    train.adam_learning_rate = 1e-3  # with muon: of tables, norms, biases and the head
    train.warmup_steps = 1  # the paper's rate is constant
    train.weight_decay = 0.01
    train.clip_norm = 10.0  # not given in the paper
    train.decay = "none"
    train.validate_every = 50
    train.patience = (
        1000  # more than there are validations: the best step is kept, and every training has the same length
    )
    train.validation_ways, train.validation_shots, train.validation_queries = 5, 5, 15
    train.validation_episodes = 200
    train.validation_batch = 128  # images computed at one time, in evaluation too

    augmentation = config.augmentation = ml_collections.ConfigDict()
    augmentation.area = (0.3, 1.0)  # share of the image in a random crop; not given in the paper
    augmentation.ratio = 4 / 3
    augmentation.jitter = 0.4
    augmentation.flip = 0.5

    evaluation = config.eval = ml_collections.ConfigDict()
    evaluation.ways, evaluation.shots, evaluation.queries = 5, (1, 5), 15
    evaluation.episodes = 2000
    evaluation.seed = 0
    evaluation.too_small = "refuse"  # refuse | drop: a class with fewer than shots + queries images
    evaluation.rounds = (6, 1)  # of the transductive form, for each of shots; () leaves it out
    evaluation.finetuned_episodes = 0  # how many of the episodes are also fine-tuned on
    tuning = evaluation.finetuning = ml_collections.ConfigDict()
    tuning.what = "mix"  # mix (θ of every norm) | all
    tuning.steps = 20  # what fine-tuning minimises, and for how long, is not given in the paper
    tuning.learning_rate = 0.1
    tuning.network_learning_rate = 1e-4
    tuning.temperature = 10.0
    tuning.chunk = 1
    tuning.seed = 0
    tuning.augmentation = config.augmentation.copy_and_resolve_references()

    mesh = config.mesh = ml_collections.ConfigDict()
    mesh.data, mesh.fsdp, mesh.tp = 1, 1, 1

    checkpoint = config.checkpoint = ml_collections.ConfigDict()
    checkpoint.every = 100
    checkpoint.keep = 1

    log = config.log = ml_collections.ConfigDict()
    log.every = 50
    return config


def _norm(name: str):
    def apply(config: ml_collections.ConfigDict) -> None:
        config.model.norm = name

    return apply


def _vit(config: ml_collections.ConfigDict) -> None:
    """A ViT of the ResNet10's cost, trained from fresh parameters unless model.weights names DINO's.

    By Muon, not by the paper's AdamW, with which it hardly leaves the loss of guessing in so few steps (docs/flor.md).
    From DINO's weights take train.optimizer=adamw and train.learning_rate=.001 (`mini_imagenet` behind `vit` does).
    """
    config.model.network = "vit"
    config.train.update(_VIT_TRAINING)


def _digits(config: ml_collections.ConfigDict) -> None:
    config.data.targets = (*config.data.targets, "digits")


def _finetuned(config: ml_collections.ConfigDict) -> None:
    """About a second an episode of one shot, four of five shots, on two cores (an estimate)."""
    config.eval.finetuned_episodes = 100


def _mini_imagenet(config: ml_collections.ConfigDict) -> None:
    """The paper's base training and targets: miniImageNet, then CropDiseases, EuroSAT, ISIC and ChestX.

    Name the folders: data.mini_imagenet, data.isic, data.chestx, data.tfds. 400 epochs of 38,400 images at 224 pixels
    are 120,000 steps: days on one GPU (an estimate; it was not run). The image sets take about 25 GB of disk.
    """
    config.data.train, config.data.validation = "mini_imagenet/train", "mini_imagenet/validation"
    config.data.targets = ("plant_village", "eurosat", "isic", "chestx")
    config.model.image_size = 224
    config.model.widths = (64, 128, 256, 512)
    config.model.width, config.model.layers, config.model.heads = 384, 12, 6
    config.model.mlp_width, config.model.patch = 1536, 16
    config.model.beta = (0.01, 0.026)
    config.train.batch, config.train.max_steps, config.train.validate_every = 128, 120_000, 3000
    config.train.optimizer, config.train.learning_rate = "adamw", 1e-3
    config.augmentation.area = config.eval.finetuning.augmentation.area = (0.08, 1.0)
    config.eval.episodes = 16_000
    config.eval.too_small = "drop"
    config.checkpoint.every = 1000


def _smoke(config: ml_collections.ConfigDict) -> None:
    """A minute: it teaches nothing."""
    config.data.rendered_per_class = 20
    config.train.max_steps, config.train.validate_every, config.train.validation_episodes = 4, 2, 10
    config.checkpoint.every = 2
    config.eval.episodes = 20


def _study(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Each network with each norm over three seeds, same data, steps and episodes."""
    study = ml_collections.ConfigDict()
    study.job = "flor_study"
    study.seeds = (11, 12, 13)
    study.norms = ml_collections.ConfigDict()
    study.norms.resnet10 = ("batch", "instance", "fixed", "flor")
    study.norms.vit = ("batch", "instance", "layer", "fixed", "flor")
    study.training = ml_collections.ConfigDict({"resnet10": {}, "vit": _VIT_TRAINING})  # what differs in `train`
    study.only = ()  # of the runs <network>_<norm>/<seed>: what this process makes; (): all, tables and landscape
    study.finetuned = ()  # norms whose runs are also fine-tuned, e.g. ("fixed", "flor"): half as long again for each
    study.finetuned_episodes = min(50, config.eval.episodes // 10)
    _digits(config)
    study.experiment = config
    study.landscape = _landscape(config)
    return study


def _landscape(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The loss between the norm of the batch and that of one image, and along random changes of the representation."""
    landscape = ml_collections.ConfigDict()
    landscape.job = "flor_landscape"
    landscape.runs = placeholder(str)  # folders or patterns, separated by commas
    landscape.weights = tuple(i / 10 for i in range(11))  # w: 0 the norm of the batch, 1 that of one image
    landscape.lengths = tuple(i / 5 for i in range(11))  # of a change, in norms of the representation
    landscape.draws = 5  # directions
    landscape.images_per_class = 24  # at most
    landscape.ways, landscape.shots, landscape.queries = 5, 5, 15
    landscape.episodes = 200
    landscape.temperature = 10.0  # what scores are multiplied by before their cross-entropy; not given in the paper
    landscape.seed = 0
    landscape.batch = 128
    return landscape


VARIANTS = {
    "resnet10": lambda config: None,
    "vit": _vit,
    "batch": _norm("batch"),
    "instance": _norm("instance"),
    "layer": _norm("layer"),
    "fixed": _norm("fixed"),
    "flor": _norm("flor"),
    "digits": _digits,
    "finetuned": _finetuned,
    "mini_imagenet": _mini_imagenet,
    "smoke": _smoke,
    "study": _study,
    "landscape": _landscape,
}
