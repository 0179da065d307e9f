"""FLoR's networks (ResNet10, ViT), whose norm mixes the statistics of one image with those of the batch.

Parameters, running statistics among them, are one tree; `features` is a pure function of it in three modes: "train",
"test" and "finetune".
"""

from evads_jax.models.flor.augmentation import Augmentation, augment
from evads_jax.models.flor.config import NORMS, FlorConfig
from evads_jax.models.flor.model import features, initial_mix, logits
from evads_jax.models.flor.parameters import STATISTICS, abstract, axes, decay_mask, fan_in, init, parameter_count
from evads_jax.models.flor.weights import load_vit, vit_sizes

__all__ = [
    "NORMS",
    "STATISTICS",
    "Augmentation",
    "FlorConfig",
    "abstract",
    "augment",
    "axes",
    "decay_mask",
    "fan_in",
    "features",
    "init",
    "initial_mix",
    "load_vit",
    "logits",
    "parameter_count",
    "vit_sizes",
]
