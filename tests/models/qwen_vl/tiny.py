"""A tiny model and batches for it, non-degenerate: K > 1, N/K > 1, H ≠ D/N, DeepStack twice, ragged everything."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from evads_jax.models.qwen_vl import PromptBatch, QwenVLConfig, SuffixBatch, VideoInputs, VisionConfig, init, mrope

CONFIG = QwenVLConfig(
    vocabulary=40,
    width=16,
    layers=3,
    heads=4,
    kv_heads=2,
    head_width=12,
    mlp_width=20,
    mrope_sections=(2, 2, 2),
    rope_theta=100.0,
    scan_layers=False,
    vision=VisionConfig(
        width=16, layers=2, heads=2, mlp_width=12, patch=2, temporal_patch=2, merge=2, position_grid=3, deepstack=(0, 1)
    ),
)
# Grids in patches of the temporal units of each prompt: two units of unlike grids, one unit, no video.
GRIDS = (((2, 6), (4, 2)), ((4, 6),), ())
LENGTHS, T = (17, 13, 5), 20
SUFFIX_LENGTHS, S = ((4, 6), (0, 5), (6, 0)), 7
UNITS, P = 2, 28


def params(seed=0, config=CONFIG):
    """Parameters at a scale at which every part matters, norms and biases included."""
    drawn = init(config, jax.random.key(seed))
    leaves, tree = jax.tree.flatten(drawn)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    return tree.unflatten([x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)])


@dataclasses.dataclass
class Sequence:
    """One prompt without padding."""

    ids: np.ndarray
    positions: np.ndarray
    next_position: int
    spans: list
    units: list


def sequences(seed=0):
    """The prompts of `GRIDS` and `LENGTHS`."""
    rng = np.random.default_rng(seed)
    out = []
    for grids, length in zip(GRIDS, LENGTHS, strict=True):
        merged = [(h // 2, w // 2) for h, w in grids]
        spans, start = [], 2
        for h, w in merged:
            spans.append((start, h * w))
            start += h * w + 2
        positions, after = mrope.token_positions(length, spans, merged)
        units = [rng.integers(0, 256, (h * w, CONFIG.vision.patch_values)).astype(np.uint8) for h, w in grids]
        out.append(Sequence(rng.integers(0, 40, length), positions, after, spans, units))
    return out


def batch(seed=0, garbage=None, pad_tokens=0, pad_units=0):
    """The prompts and suffixes as padded batches.

    Args:
      seed: of the contents.
      garbage: a NumPy generator whose draws fill every padded place; None fills with zeros.
      pad_tokens: more padding in T and S.
      pad_units: more padded units per prompt.
    """
    prompts, width, units = sequences(seed), T + pad_tokens, UNITS + pad_units
    B, G, S_ = len(prompts), len(SUFFIX_LENGTHS[0]), S + pad_tokens

    def noise(low, high, shape):
        return garbage.integers(low, high, shape) if garbage else np.zeros(shape, int)

    far = 2**31 - 1
    tokens = noise(-far, far, (B, width)).astype(np.int32)
    positions = noise(-far, far, (B, width, 3)).astype(np.int32)
    video_index = noise(-far, far, (B, width)).astype(np.int32) if garbage else np.full((B, width), -1, np.int32)
    patches = noise(0, 256, (B * units, P, CONFIG.vision.patch_values)).astype(np.uint8)
    grid = np.zeros((B * units, 2), np.int32)
    for b, (prompt, grids) in enumerate(zip(prompts, GRIDS, strict=True)):
        n = len(prompt.ids)
        tokens[b, :n], positions[b, :n], video_index[b, :n] = prompt.ids, prompt.positions, -1
        for u, (unit, (start, length)) in enumerate(zip(prompt.units, prompt.spans, strict=True)):
            row = b * units + u
            patches[row, : len(unit)], grid[row] = unit, grids[u]
            video_index[b, start : start + length] = row * (P // 4) + np.arange(length)
    lengths = np.asarray(SUFFIX_LENGTHS)
    real = np.arange(S_) < lengths[..., None]
    suffix = np.where(
        real,
        np.pad(np.random.default_rng(seed + 9).integers(0, 40, (B, G, S)), ((0, 0), (0, 0), (0, S_ - S))),
        noise(-far, far, (B, G, S_)),
    )
    mask = real & (np.arange(S_) >= 1) if not garbage else real & (np.arange(S_) >= 1) | ~real
    prompt = PromptBatch(
        jnp.asarray(tokens),
        jnp.asarray(LENGTHS),
        jnp.asarray(positions),
        jnp.asarray(video_index),
        jnp.asarray([p.next_position for p in prompts]),
        VideoInputs(jnp.asarray(patches), jnp.asarray(grid)),
    )
    return prompt, SuffixBatch(jnp.asarray(suffix.astype(np.int32)), jnp.asarray(lengths), jnp.asarray(mask))
