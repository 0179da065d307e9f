"""Several questions over one prefill, against whole prompts that are asked one by one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evads_jax.models.qwen_vl import PromptBatch, VideoInputs
from evads_jax.sampling import SamplingConfig, sample
from evads_jax.sampling.questions import answer

from . import world

LENGTHS, T = (5, 8), 10
QUESTIONS, Q = ((4, 2), (1, 6)), 7  # tokens of the two questions of each prompt
IDS = np.array([[3, 4], [5, 6]])
SAMPLING = SamplingConfig(max_new_tokens=6, stop_ids=(3,))
KEY = jax.random.key(2)


def questions():
    rng = np.random.default_rng(1)
    tokens = np.full((2, 2, Q), 23)
    for b, g in np.ndindex(2, 2):
        tokens[b, g, : QUESTIONS[b][g]] = rng.integers(0, 24, Q)[: QUESTIONS[b][g]]
    return tokens


def whole(tokens):
    """Each question behind a prompt of its own, [4, T + Q]."""
    prompts = world.prompts(LENGTHS, T)
    rows = jnp.repeat(jnp.arange(2), 2)
    ids, positions, index = np.full((4, T + Q), 23), np.zeros((4, T + Q, 3), int), np.full((4, T + Q), -1)
    for row, (b, g) in enumerate(np.ndindex(2, 2)):
        n, m = LENGTHS[b], QUESTIONS[b][g]
        ids[row, :n], ids[row, n : n + m] = prompts.tokens[b, :n], tokens[b, g, :m]
        positions[row, :n] = prompts.positions[b, :n]
        positions[row, n : n + m] = int(prompts.next_position[b]) + np.arange(m)[:, None]
        index[row, :n] = np.where(prompts.video_index[b, :n] >= 0, 2 * row, -1)
    lengths = jnp.asarray(np.repeat(LENGTHS, 2) + np.ravel(QUESTIONS))
    after = prompts.next_position[rows] + jnp.asarray(np.ravel(QUESTIONS))
    video = VideoInputs(prompts.video.patches[rows], prompts.video.grid[rows])
    arrays = (jnp.asarray(x) for x in (positions, index))
    return PromptBatch(jnp.asarray(ids), lengths, *arrays, after, video)


def ask(tokens, ids=IDS, sampling=SAMPLING, config=world.CONFIG):
    lengths, prompts = jnp.asarray(QUESTIONS), world.prompts(LENGTHS, T)
    return answer(world.PARAMS, config, prompts, jnp.asarray(tokens), lengths, jnp.asarray(ids), sampling, KEY)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_questions_over_one_prefill_get_what_whole_prompts_get(scan_layers):
    config = dataclasses.replace(world.CONFIG, scan_layers=scan_layers)
    expected = sample(world.PARAMS, world.CONFIG, whole(questions()), jnp.asarray(IDS.ravel()), 1, SAMPLING, KEY)
    found = ask(questions(), config=config)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.lengths, expected.lengths)
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-5)
    assert len({tuple(row) for row in np.asarray(found.tokens[:, 0]).tolist()}) == 4


def test_neither_padding_nor_the_other_questions_change_an_answer():
    tokens = questions()
    others = np.where(np.arange(2)[:, None] == 1, 7, tokens)  # another second question, other padding behind it
    padded = np.where(np.arange(Q) < np.asarray(QUESTIONS)[..., None], tokens, 11)
    first, changed, filled = ask(tokens), ask(others), ask(padded)
    np.testing.assert_array_equal(first.tokens[::2], changed.tokens[::2])
    np.testing.assert_array_equal(first.tokens, filled.tokens)


def test_new_questions_compile_nothing_new():
    ask(questions())
    before = answer._cache_size()
    ask(questions()[:, ::-1], ids=IDS + 7)
    assert answer._cache_size() == before
