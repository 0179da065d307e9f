"""A COPE model that is small but not degenerate, parameters that all matter, and clips."""

import dataclasses

import jax
import numpy as np

from evads_jax.models import cope

CONFIG = cope.CopeConfig(
    vocabulary=30, classes=8, frame_size=16, frames=3, text_tokens=5, embedding=8,
    visual_width=12, visual_layers=2, visual_heads=2, visual_mlp_width=16, visual_patch=8,
    mit_width=8, mit_layers=2, mit_heads=2, text_width=12, text_layers=2, text_heads=3, text_mlp_width=20,
    fusion_layers=1, fusion_width=8, fusion_heads=2,
)  # fmt: skip
FORMS = {
    "paper": CONFIG,
    "released": dataclasses.replace(CONFIG, form="released", fusion_layers=0),
    "per_domain": dataclasses.replace(CONFIG, shared=False),
    "visual": dataclasses.replace(CONFIG, modality="visual"),
    "text": dataclasses.replace(CONFIG, modality="text"),
}


def params(config=CONFIG, seed=0):
    """Parameters that all weigh about the same, biases, norms and tables too; by NumPy, so that nothing is compiled."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        return (0.3 * rng.normal(size=leaf.shape) + (path[-1].key == "scale")).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, cope.abstract(config))


def clips(B=4, F=3, T=5, seed=0, empty=()):
    """Clips with any counts; rows in `empty` have neither picture nor text."""
    rng = np.random.default_rng(seed)
    real = ~np.isin(np.arange(B), empty)
    return cope.ClipBatch(
        rng.integers(0, 256, (B, F, 16, 16, 3)).astype(np.uint8),
        (rng.integers(1, F + 1, B) * real).astype(np.int32),
        rng.integers(0, 30, (B, T)).astype(np.int32),
        (rng.integers(1, T + 1, B) * real).astype(np.int32),
    )
