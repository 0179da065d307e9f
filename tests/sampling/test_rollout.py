import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evads_jax.models.qwen_vl import SuffixBatch, score
from evads_jax.models.qwen_vl.scoring import run_prompts
from evads_jax.sampling import SamplingConfig, sample
from evads_jax.sampling.cache import KVCache
from evads_jax.sampling.decode import decode

from . import world

LENGTHS, G = (5, 9, 7), 4
SAMPLING = SamplingConfig(max_new_tokens=8, stop_ids=(3, 4), pad_id=0)
KEY = jax.random.key(7)
IDS = jnp.array([11, 12, 13])


def roll(lengths=LENGTHS, T=10, ids=IDS, group=G, sampling=SAMPLING, key=KEY, config=world.CONFIG):
    return sample(world.PARAMS, config, world.prompts(lengths, T), ids, group, sampling, key)


@pytest.fixture(scope="module")
def rollout():
    return roll()


def test_samples_stop_at_a_stop_token_or_at_the_last_place(rollout):
    assert rollout.finished.any(), "the test needs both kinds"
    assert not rollout.finished.all(), "the test needs both kinds"
    for tokens, length, finished in zip(
        np.reshape(rollout.tokens, (-1, 8)), rollout.lengths.ravel(), rollout.finished.ravel(), strict=True
    ):
        ends = np.isin(tokens[:length], SAMPLING.stop_ids)
        assert not ends[:-1].any()
        assert bool(ends[-1]) == bool(finished)
        assert finished or length == 8
        assert (tokens[length:] == SAMPLING.pad_id).all()


@pytest.mark.parametrize(("scan_layers", "temperature", "top_p"), [(False, 1.0, 1.0), (True, 0.6, 0.8)])
def test_the_samplers_log_probs_are_those_of_scoring_whatever_is_drawn_from(scan_layers, temperature, top_p):
    config = dataclasses.replace(world.CONFIG, scan_layers=scan_layers)
    sampling = dataclasses.replace(SAMPLING, temperature=temperature, top_p=top_p)
    rollout = roll(config=config, sampling=sampling)
    mask = jnp.arange(8) < rollout.lengths[..., None]
    suffix = SuffixBatch(rollout.tokens, rollout.lengths, mask)
    scores = jax.jit(score, static_argnums=1)(world.PARAMS, config, world.prompts(LENGTHS, 10), suffix)
    np.testing.assert_allclose(rollout.logprobs, scores.logprob, atol=1e-5)


def test_a_sample_depends_on_its_prompt_its_number_and_nothing_else(rollout):
    alone = roll(LENGTHS[:2], T=13, ids=IDS[:2], group=2)
    assert jnp.array_equal(alone.tokens, rollout.tokens[:2, :2])
    longer = roll(sampling=dataclasses.replace(SAMPLING, max_new_tokens=11))
    for b in range(3):
        for g in range(G):
            n = int(rollout.lengths[b, g])
            assert jnp.array_equal(longer.tokens[b, g, :n], rollout.tokens[b, g, :n])


@pytest.mark.parametrize("stop_ids", [SAMPLING.stop_ids, tuple(range(3, 20))], ids=["long", "short"])
def test_buckets_never_matter_however_many_of_them_are_needed(stop_ids):
    sampling = dataclasses.replace(SAMPLING, stop_ids=stop_ids)
    whole, grown = (roll(sampling=dataclasses.replace(sampling, buckets=buckets)) for buckets in ((), (1, 2, 6)))
    assert jnp.array_equal(grown.tokens, whole.tokens)
    assert jnp.array_equal(grown.lengths, whole.lengths)
    assert jnp.array_equal(grown.finished, whole.finished)
    np.testing.assert_allclose(grown.logprobs, whole.logprobs, atol=1e-5)


@pytest.mark.parametrize(
    ("stop_ids", "fields"),
    [
        (SAMPLING.stop_ids, {"compact": (40, 9, 5, 1)}),
        (tuple(range(3, 12)), {"compact": (3, 1), "buckets": (2, 6)}),
        (tuple(range(3, 20)), {"compact": (4,)}),
    ],
    ids=["long", "beside buckets", "short"],
)
def test_samples_that_go_on_by_themselves_get_what_they_get_among_the_others(stop_ids, fields):
    sampling = dataclasses.replace(SAMPLING, stop_ids=stop_ids)
    lengths, ids = (*LENGTHS, 0), jnp.array([11, 12, 13, 14])  # one prompt is padding
    whole = roll(lengths, ids=ids, sampling=sampling)
    apart = roll(lengths, ids=ids, sampling=dataclasses.replace(sampling, **fields))
    assert jnp.array_equal(apart.tokens, whole.tokens)
    assert jnp.array_equal(apart.lengths, whole.lengths)
    assert jnp.array_equal(apart.finished, whole.finished)
    np.testing.assert_allclose(apart.logprobs, whole.logprobs, atol=1e-5)


def test_few_samples_go_on_in_a_loop_of_their_own_size():
    """Of the program's loops, one runs the whole batch and one a single sample: by the shape of what they carry."""
    lowered = sample.lower(
        world.PARAMS, world.CONFIG, world.prompts(LENGTHS, 10), IDS, G, dataclasses.replace(SAMPLING, compact=(1,)), KEY
    )
    carried = re.findall(r"stablehlo\.while.*?\bcond\b", lowered.as_text(), re.DOTALL)
    held = [[shape in loop for loop in carried] for shape in ("tensor<3x4x8xi32>", "tensor<1x1x8xi32>")]
    assert [sum(loops) for loops in held] == [1, 1]
    assert held[0] != held[1]


def test_samples_of_a_group_differ_and_so_do_those_of_other_keys_and_ids(rollout):
    assert len({tuple(row) for row in np.asarray(rollout.tokens[0]).tolist()}) > 1
    assert not jnp.array_equal(roll(key=jax.random.key(8)).tokens, rollout.tokens)
    assert not jnp.array_equal(roll(ids=IDS + 1).tokens, rollout.tokens)


def test_greedy_sampling_takes_the_likeliest_token_of_a_full_pass_each_time():
    greedy = roll(group=1, sampling=dataclasses.replace(SAMPLING, temperature=0.0, stop_ids=()))
    prompt = world.prompts(LENGTHS, 10)
    V, run = world.CONFIG.vocabulary, jax.jit(score, static_argnums=1)
    for step in range(4):
        # Every token of the vocabulary as a candidate for this place, after the sampled ones.
        tried = jnp.tile(greedy.tokens, (1, V, 1)).at[:, :, step].set(jnp.arange(V))
        suffix = SuffixBatch(tried, jnp.full((3, V), 8), jnp.ones((3, V, 8), bool))
        best = run(world.PARAMS, world.CONFIG, prompt, suffix).logprob[:, :, step].argmax(axis=1)
        assert jnp.array_equal(best, greedy.tokens[:, 0, step])


def test_an_absent_prompt_gets_empty_samples():
    rollout = roll((5, 0, 7))
    assert not rollout.lengths[1].any()
    assert not rollout.finished[1].any()
    assert not rollout.logprobs[1].any()
    assert jnp.array_equal(rollout.tokens[0], roll().tokens[0])


def test_decoding_ends_as_soon_as_all_samples_have():
    sampling = dataclasses.replace(SAMPLING, stop_ids=tuple(range(24)))

    @jax.jit
    def decoded():
        prefix = run_prompts(world.PARAMS, world.CONFIG, world.prompts((5, 0), 10))
        cache = KVCache.create(world.CONFIG, prefix, G, SAMPLING.max_new_tokens)
        keys = jax.random.split(KEY, (2, G))
        return decode(world.PARAMS, world.CONFIG, sampling, cache, prefix.last, keys, prefix.lengths == 0)

    out = decoded()
    assert out.step == 1  # of eight
    assert out.lengths.tolist() == [[1] * G, [0] * G]
    assert out.done.tolist() == [[True] * G, [False] * G]


def test_new_prompts_keys_and_lengths_compile_nothing_new(rollout):
    before = sample._cache_size()
    roll((3, 4, 5), key=jax.random.key(99), ids=IDS + 50)
    assert sample._cache_size() == before
