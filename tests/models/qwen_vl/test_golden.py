"""The model against logits that transformers computed from the same weights (make_golden.py)."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evads_jax.models import qwen_vl
from evads_jax.models.qwen_vl import PromptBatch, QwenVLConfig, VideoInputs, VisionConfig, mrope, text

CONFIG = QwenVLConfig(
    vocabulary=64,
    width=24,
    layers=3,
    heads=4,
    kv_heads=2,
    head_width=12,
    mlp_width=40,
    mrope_sections=(2, 2, 2),
    rope_theta=1000.0,
    tie_embeddings=False,
    vision=VisionConfig(
        width=16, layers=3, heads=2, mlp_width=20, patch=4, temporal_patch=2, merge=2, position_grid=5, deepstack=(0, 2)
    ),
)
GRID, VIDEO = (6, 10), 1


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "golden" / "qwen3_vl.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def params(golden):
    return tree_of(golden)


def tree_of(arrays):
    """The parameters among the arrays, as the nested dicts that the model takes."""
    tree: dict = {}
    for name, value in arrays.items():
        if name.startswith("params/"):
            *parents, last = name.split("/")[1:]
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = jnp.asarray(value)
    return tree


def spans_of(ids):
    starts = [i for i in range(len(ids)) if ids[i] == VIDEO and ids[i - 1] != VIDEO]
    return [(start, GRID[0] * GRID[1] // 4) for start in starts]


def logits_after(params, config, ids, spans, patches, split, padding=3):
    """Logits from token `split` − 1 on, the tokens before it given as a padded prompt, the rest as a suffix."""
    positions, next_position = mrope.token_positions(split, spans, [(GRID[0] // 2, GRID[1] // 2)] * len(spans))
    video_index = np.full(split, -1)
    room = patches.shape[1] // 4
    for unit, (start, length) in enumerate(spans):
        video_index[start : start + length] = unit * room + np.arange(length)
    pad = (0, padding)
    grid = np.tile(GRID, (len(patches), 1)) if spans else np.zeros((len(patches), 2), int)
    prompt = PromptBatch(
        tokens=jnp.asarray(np.pad(ids[:split], pad)[None]),
        lengths=jnp.array([split]),
        positions=jnp.asarray(np.pad(positions, (pad, (0, 0)))[None]),
        video_index=jnp.asarray(np.pad(video_index, pad, constant_values=-1)[None]),
        next_position=jnp.array([next_position]),
        video=VideoInputs(jnp.asarray(patches), jnp.asarray(grid)),
    )

    @jax.jit
    def forward(params, prompt, suffix):
        prefix = qwen_vl.prefill(params, config, prompt, qwen_vl.encode_video(params, config, prompt.video))
        hidden = qwen_vl.extend(params, config, prefix, suffix)[0, 0]
        return text.head(params, config, jnp.concatenate([prefix.last, hidden]))

    return np.asarray(forward(params, prompt, jnp.asarray(ids[split:])[None, None]))


def difference(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def test_the_golden_weights_are_the_models(golden, params):
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda x: x.shape, qwen_vl.abstract(CONFIG))


def text_difference(params, golden, config=CONFIG):
    ours = logits_after(params, config, golden["text_ids"], [], np.zeros((1, 4, 96), np.uint8), split=1)
    return difference(ours, golden["text_logits"])


def video_difference(params, golden, config=CONFIG):
    ids, spans = golden["video_ids"], spans_of(golden["video_ids"])
    split = spans[-1][0] + spans[-1][1] + 1
    patches = np.pad(golden["patches"], ((0, 0), (0, 8), (0, 0)), constant_values=255)
    return difference(logits_after(params, config, ids, spans, patches, split), golden["video_logits"][split - 1 :])


def test_the_logits_of_a_text_are_those_of_transformers(golden, params):
    assert text_difference(params, golden) < 1e-5


@pytest.mark.parametrize("scan_layers", [False, True])
def test_the_logits_after_a_video_are_those_of_transformers(golden, params, scan_layers):
    config = dataclasses.replace(CONFIG, scan_layers=scan_layers)
    assert video_difference(params, golden, config) < 1e-5


def test_the_positions_of_a_video_prompt_are_those_of_transformers(golden):
    ids = golden["video_ids"]
    spans = spans_of(ids)
    positions, next_position = mrope.token_positions(len(ids), spans, [(GRID[0] // 2, GRID[1] // 2)] * len(spans))
    np.testing.assert_array_equal(positions, golden["video_positions"])
    assert next_position == golden["video_positions"].max() + 1
