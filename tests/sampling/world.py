"""A tiny model and text prompts to sample from."""

import jax
import jax.numpy as jnp
import numpy as np

from evads_jax.models.qwen_vl import PromptBatch, QwenVLConfig, VideoInputs, VisionConfig, init

CONFIG = QwenVLConfig(
    vocabulary=24,
    width=16,
    layers=2,
    heads=4,
    kv_heads=2,
    head_width=12,
    mlp_width=20,
    mrope_sections=(2, 2, 2),
    scan_layers=False,
    vision=VisionConfig(width=16, layers=1, heads=2, mlp_width=8, patch=2, merge=2, position_grid=3, deepstack=(0,)),
)
PARAMS = jax.tree.map(lambda x: 1.5 * x, init(CONFIG, jax.random.key(0)))


def prompts(lengths, T, seed=0):
    """Prompts of the given lengths, each with one video unit; what prompt i holds depends on (seed, i) alone."""
    B = len(lengths)
    tokens, index = np.full((B, T), 23), np.full((B, T), -1)
    patches = np.zeros((B, 8, CONFIG.vision.patch_values), np.uint8)
    for b, length in enumerate(lengths):
        rng = np.random.default_rng((seed, b))
        tokens[b, :length] = rng.integers(0, 24, 50)[:length]
        patches[b, :4] = rng.integers(0, 256, patches[b, :4].shape)
        index[b, 1:2] = b * 2 if length else -1
    lengths = jnp.asarray(lengths)
    positions = jnp.tile(jnp.arange(T)[:, None], (B, 1, 3))
    video = VideoInputs(jnp.asarray(patches), jnp.full((B, 2), 2))
    return PromptBatch(jnp.asarray(tokens), lengths, positions, jnp.asarray(index), lengths + 2, video)
