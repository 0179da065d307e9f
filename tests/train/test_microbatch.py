"""However an update is split, its loss, sums, log-probabilities and gradients are those of the whole."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_experiment import context, record

from evads_jax.data.media import encode_jpeg
from evads_jax.models.qwen_vl import SuffixBatch, init
from evads_jax.train import microbatch
from evads_jax.train.microbatch import Split

B, G, S = 4, 4, 6
SPLITS = [
    Split(groups=1, samples=2),
    *(pytest.param(split, marks=pytest.mark.slow) for split in (Split(groups=2), Split(samples=2), Split(4, 4))),
]  # seconds of compilation each


def film(index, frames, side):
    """A record whose video has other sizes than its neighbours', so that nothing fits where it does not belong."""
    pixels = np.random.default_rng(index).integers(0, 256, (frames, side, side, 3)).astype(np.uint8)
    images = tuple(encode_jpeg(frame) for frame in pixels)
    return dataclasses.replace(record(index), frames=images, times=tuple(map(float, range(frames))), duration=4.0)


def sizes(config):
    config.data.update(max_frames=4, frame_size=32)
    config.model.update(vision_merge=2, dtype="float64")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    made = context(tmp_path_factory.mktemp("micro"), sizes)
    inputs = made.inputs()
    films = [film(0, 2, 32), film(1, 4, 16), film(2, 1, 16), film(3, 3, 32)]
    prompt = inputs.prompt_collate(B)([inputs.prompt_transform("rl_released")(x, 0) for x in films]).prompt
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, S + 1, (B, G)).astype(np.int32)
    lengths[2, 1] = 0
    tokens = rng.integers(0, made.tokenizer.size, (B, G, S)).astype(np.int32)
    suffix = SuffixBatch(tokens=tokens, lengths=lengths, mask=np.arange(S) < lengths[..., None])
    return made.model, prompt, suffix, rng.normal(size=(B, G, S))


def objective(scores, known):
    """A loss that no two tokens enter alike, and a sum beside it."""
    value = jnp.sum(known * jnp.sin(scores.logprob) + 0.3 * known**2 * scores.entropy)
    return value, {"entropy": scores.entropy.sum()}


def outcome(made, split):
    model, *arrays = made

    def run(params, prompt, suffix, known):
        return microbatch.value_and_gradients(objective, params, model, prompt, suffix, known, split)

    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: x.astype("float64"), init(model, jax.random.key(0)))
        return jax.tree.map(np.asarray, compiled_once(run)(params, *arrays))


def compiled_once(run):
    return jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})  # it runs once


@pytest.fixture(scope="module")
def whole(made):
    return outcome(made, Split())


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_the_split_never_matters(made, whole, split):
    chex.assert_trees_all_close(outcome(made, split), whole, rtol=1e-10, atol=1e-12)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(whole.gradients))


def test_log_probabilities_alone_are_the_same_too(made, whole):
    model, prompt, suffix, _ = made
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: x.astype("float64"), init(model, jax.random.key(0)))
        run = compiled_once(lambda *arrays: microbatch.logprobs(arrays[0], model, *arrays[1:], Split(1, 2)))
        np.testing.assert_allclose(run(params, prompt, suffix), whole.logprob, rtol=1e-10)


def test_samples_in_turn_are_added_up_at_their_prompt_in_full_precision(made):
    model, prompt, suffix, _ = made
    model = dataclasses.replace(model, dtype="bfloat16")
    # The last sample is the first one's copy and takes back what that did, a thousand times what the others do.
    twin = jax.tree.map(lambda x: np.concatenate([x[:, :3], x[:, :1]], axis=1), suffix)
    weights = np.array([[1000, 1, 1, -1000], [0, 1, 1, 0]], np.float32)
    params = init(model, jax.random.key(0))

    @compiled_once
    def gradients(known):
        weighted = lambda scores, known: ((known * scores.logprob).sum(), {})  # noqa: E731
        return microbatch.value_and_gradients(weighted, params, model, prompt, twin, known, Split(samples=1)).gradients

    loud, quiet = (gradients(np.broadcast_to(row[:, None], (B, G, S))) for row in weights)
    for a, b in zip(jax.tree.leaves(loud["vision"]), jax.tree.leaves(quiet["vision"]), strict=True):  # all through it
        assert np.linalg.norm(a - b) <= 0.05 * np.linalg.norm(b)


def test_a_part_has_the_videos_of_its_prompts(made):
    model, prompt, _, _ = made
    parts = microbatch.split_prompts(prompt, model, 2)
    per_unit = prompt.video.patches.shape[1] // model.vision.merge**2
    units = len(prompt.video.grid) // B
    for part in range(2):
        for place, b in enumerate((part, part + 2)):
            np.testing.assert_array_equal(parts.tokens[part, place], prompt.tokens[b])
            index = np.asarray(parts.video_index[part, place])
            assert ((index >= 0) == (prompt.video_index[b] >= 0)).all()
            ours, theirs = index[index >= 0] // per_unit, prompt.video_index[b][index >= 0] // per_unit
            assert (ours // units == place).all()
            np.testing.assert_array_equal(parts.video.patches[part][ours], prompt.video.patches[theirs])
            np.testing.assert_array_equal(parts.video.grid[part][ours], prompt.video.grid[theirs])
