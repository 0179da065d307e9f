"""COPE (arXiv 2308.05550): one embedding space for a product's pages, short videos and live clips."""

from evads_jax.models.cope.batch import ClipBatch, Embeddings
from evads_jax.models.cope.config import DOMAINS, KINDS, PAIRS, CopeConfig, pairs, standing
from evads_jax.models.cope.contrastive import pair_loss
from evads_jax.models.cope.cosface import cosface_loss
from evads_jax.models.cope.losses import LossSettings, cope_loss
from evads_jax.models.cope.model import embedding, encode
from evads_jax.models.cope.parameters import abstract, axes, decay_mask, fan_in, init, parameter_count

__all__ = [
    "DOMAINS",
    "KINDS",
    "PAIRS",
    "ClipBatch",
    "CopeConfig",
    "Embeddings",
    "LossSettings",
    "abstract",
    "axes",
    "cope_loss",
    "cosface_loss",
    "decay_mask",
    "embedding",
    "encode",
    "fan_in",
    "init",
    "pair_loss",
    "pairs",
    "parameter_count",
    "standing",
]
