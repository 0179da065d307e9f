import dataclasses
import functools
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evads_jax.models import lora, qwen_vl
from evads_jax.models.attention import splash
from evads_jax.models.qwen_vl import encode_video, scoring, text
from evads_jax.models.qwen_vl.scoring import from_logits

from . import naive, tiny

PARAMS = tiny.params()
SUFFIX_TOKENS = np.asarray(tiny.batch()[1].tokens)


score = jax.jit(scoring.score, static_argnums=1)


def weighted(scores):
    """A scalar that no two tokens and no two outputs enter alike."""
    w = jnp.sin(1.0 + jnp.arange(scores.logprob.size)).reshape(scores.logprob.shape)
    return (w * scores.logprob + jnp.cos(w) * 0.3 * scores.entropy).sum()


def naive_scores(params, config=tiny.CONFIG):
    """Every (prompt, suffix) pair as a sequence of its own; log-probs and entropies padded like `score`'s."""
    tokens = SUFFIX_TOKENS
    logprob, entropy = (np.zeros(tokens.shape).tolist() for _ in range(2))
    for b, prompt in enumerate(tiny.sequences()):
        units = [
            naive.unit_features(params, config, unit, grid)
            for unit, grid in zip(prompt.units, tiny.GRIDS[b], strict=True)
        ]
        features = [jnp.concatenate(rows) for rows in zip(*units, strict=True)]
        places = [start + i for start, length in prompt.spans for i in range(length)]
        for g, length in enumerate(tiny.SUFFIX_LENGTHS[b]):
            own = tokens[b, g, :length]
            later = prompt.next_position + np.tile(np.arange(length)[:, None], (1, 3))
            ids, positions = np.concatenate([prompt.ids, own]), np.concatenate([prompt.positions, later])
            rows = jax.nn.log_softmax(naive.logits(params, config, ids, positions, features, places))
            for s in range(1, length):  # tiny.batch scores from token 1 on
                row = rows[len(prompt.ids) + s - 1]
                logprob[b][g][s], entropy[b][g][s] = row[own[s]], -(jnp.exp(row) * row).sum()
    flat = ([x for group in nested for row in group for x in row] for nested in (logprob, entropy))
    return scoring.TokenScores(*(jnp.stack([jnp.asarray(x) for x in values]).reshape(tokens.shape) for values in flat))


def value_and_gradient(scores_of, dtype, of=PARAMS):
    """Scores and gradient at `of`, all in `dtype`; compiled once and run once, so compiled without optimisation."""

    def loss(params):
        scores = scores_of(params)
        return weighted(scores), scores

    with jax.enable_x64(dtype == "float64"):
        params = jax.tree.map(lambda x: x.astype(dtype), of)
        run = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options={"xla_backend_optimization_level": 0})
        (_, scores), gradient = run(params)
        return jax.tree.map(np.asarray, (scores, gradient))


@pytest.mark.parametrize("scan", [False, True])
def test_states_after_some_layers_are_final_ones_where_the_layers_above_add_nothing(scan):
    config = dataclasses.replace(tiny.CONFIG, scan_layers=scan)
    prompt, suffix = tiny.batch()
    numbers = (1, config.layers)
    prefix = scoring.run_prompts(PARAMS, config, prompt)
    found = text.extend_through(PARAMS, config, prefix, suffix.tokens, numbers)
    for number, states in zip(numbers, found, strict=True):
        layers = PARAMS["text"]["layers"]
        silent = layers | {name: layers[name].at[number:].set(0) for name in ("out", "down")}
        own = {**PARAMS, "text": PARAMS["text"] | {"layers": silent}}
        expected = text.extend(own, config, scoring.run_prompts(own, config, prompt), suffix.tokens)
        np.testing.assert_allclose(states, expected, atol=1e-5)


@pytest.fixture(scope="module")
def expected():
    return value_and_gradient(naive_scores, "float64")


def ours(dtype="float64", batch=None, **fields):
    prompt, suffix = tiny.batch(**(batch or {}))
    config = dataclasses.replace(tiny.CONFIG, dtype=dtype, **fields)

    def scores_of(params):
        return jax.tree.map(lambda x: x[:, :, : tiny.S], scoring.score(params, config, prompt, suffix))

    return value_and_gradient(scores_of, dtype)


def assert_same(actual, reference, tolerance):
    chex.assert_trees_all_close(actual[0], reference[0], atol=tolerance, rtol=tolerance)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(actual[1]), jax.tree.leaves(reference[1]), strict=True):
        name = jax.tree_util.keystr(path)
        assert np.abs(b).max() > 0, f"{name} has no gradient at all"
        assert np.linalg.norm(a - b) / np.linalg.norm(b) < tolerance, name
        assert np.abs(a - b).max() / np.abs(b).max() < tolerance, name


@pytest.mark.parametrize("fields", [{}, {"scan_layers": True, "remat": True, "logit_chunk": 8}], ids=str)
def test_scores_and_gradients_are_those_of_separate_sequences(expected, fields):
    assert_same(ours(**fields), expected, 1e-10)


def test_scores_and_gradients_in_float32_are_as_close_as_float32_is(expected):
    assert_same(ours("float32"), expected, 1e-5)


def test_the_fused_kernel_gives_the_same(expected, monkeypatch):
    for name in ("prompt_attention", "suffix_attention", "unit_attention"):
        monkeypatch.setattr(splash, name, functools.partial(getattr(splash, name), interpret=True))
    assert_same(ours("float32", attention="splash", scan_layers=True, remat=True), expected, 1e-5)


def test_one_pass_over_scanned_layers_holds_one_set_of_gradients_where_two_passes_hold_more():
    config = dataclasses.replace(tiny.CONFIG, width=64, mlp_width=512, layers=16, scan_layers=True, remat=True)
    prompt, suffix = tiny.batch()

    def two(params, config, prompt, suffix):
        return scoring.score_suffixes(params, config, scoring.run_prompts(params, config, prompt), suffix)

    def temporaries(score):
        gradient = jax.jit(jax.grad(lambda params: score(params, config, prompt, suffix).logprob.sum()))
        compiled = gradient.lower(qwen_vl.abstract(config)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    layers = sum(4 * leaf.size for leaf in jax.tree.leaves(qwen_vl.abstract(config)["text"]["layers"]))
    assert temporaries(scoring.score) < temporaries(two) - 0.9 * layers


@pytest.mark.slow  # a second naive form to compile
def test_gradients_of_adapters_are_those_of_separate_sequences_with_the_products_in_the_matrices():
    trees = (tree(tiny.CONFIG) for tree in (qwen_vl.abstract, qwen_vl.axes, qwen_vl.fan_in))
    adapter = lora.init(lora.declare(*trees, 2, 3.0, tuple(lora.GROUPS)), jax.random.key(3))
    adapter = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), adapter)
    adapted = lambda leaf: isinstance(leaf, lora.Adapted)  # noqa: E731

    def combined(adapter):
        frozen = jax.tree.map(lambda x: x.astype(jax.tree.leaves(adapter)[0].dtype), PARAMS)
        return lora.combine(frozen, adapter)

    def formed(leaf):
        if not adapted(leaf):
            return leaf
        return leaf.weight + leaf.factors.scale * (leaf.factors.a @ leaf.factors.b).reshape(leaf.shape)

    def naively(adapter):
        return naive_scores(jax.tree.map(formed, combined(adapter), is_leaf=adapted))

    prompt, suffix = tiny.batch()
    config = dataclasses.replace(tiny.CONFIG, dtype="float64")
    found = value_and_gradient(lambda a: scoring.score(combined(a), config, prompt, suffix), "float64", adapter)
    assert_same(found, value_and_gradient(naively, "float64", adapter), 1e-10)


def test_padding_never_matters_whatever_it_holds(expected):
    batch = {"garbage": np.random.default_rng(3), "pad_tokens": 3, "pad_units": 1}
    assert_same(ours(batch=batch), expected, 1e-10)


def test_the_logits_of_all_tokens_never_exist_in_either_pass():
    prompt, suffix = tiny.batch()
    config = dataclasses.replace(tiny.CONFIG, logit_chunk=8)  # of 42 tokens: six chunks of seven
    program = str(jax.make_jaxpr(jax.grad(lambda p: weighted(scoring.score(p, config, prompt, suffix))))(PARAMS))
    shapes = set(re.findall(rf"\[([\d,]+),{config.vocabulary}\]", program))
    assert max(math.prod(map(int, shape.split(","))) for shape in shapes) == 7


def test_features_that_no_token_names_may_be_nan():
    prompt, _ = tiny.batch(garbage=np.random.default_rng(5))
    features = encode_video(PARAMS, tiny.CONFIG, prompt.video)
    named = jnp.isin(jnp.arange(len(features.tokens)), np.concatenate([*map(np.asarray, real_indices(prompt))]))
    broken = jax.tree.map(lambda rows: jnp.where(named[:, None], rows, jnp.nan), features)
    run = jax.jit(text.prefill, static_argnums=1)
    last, expected_last = (run(PARAMS, tiny.CONFIG, prompt, f).last for f in (broken, features))
    np.testing.assert_array_equal(last, expected_last)


def real_indices(prompt):
    """The rows of the vision output that each prompt's real tokens name."""
    return [row[:n][row[:n] >= 0] for row, n in zip(np.asarray(prompt.video_index), tiny.LENGTHS, strict=True)]


def test_the_first_token_is_predicted_from_the_prompts_last():
    prompt, suffix = tiny.batch()
    first = dataclasses.replace(suffix, mask=jnp.arange(tiny.S) < suffix.lengths[..., None])
    other = dataclasses.replace(first, tokens=first.tokens.at[:, :, 1:].set(0))
    first, other = (score(PARAMS, tiny.CONFIG, prompt, s).logprob for s in (first, other))
    assert jnp.all(first[:, :, 0] == other[:, :, 0])
    assert jnp.all((first[:, :, 0] != 0) == (suffix.lengths > 0))
    assert not jnp.allclose(first[:, :, 2], other[:, :, 2])


def test_tokens_out_of_the_mask_score_zero():
    prompt, suffix = tiny.batch()
    scores = score(PARAMS, tiny.CONFIG, prompt, suffix)
    assert not jnp.any(jnp.where(suffix.mask, 0, scores.logprob))
    assert not jnp.any(jnp.where(suffix.mask, 0, scores.entropy))


def test_scores_are_a_log_softmax_and_its_entropy():
    logits = 30 * jax.random.normal(jax.random.key(0), (7, 11))
    targets = jnp.arange(7)
    log_p = jax.nn.log_softmax(logits)
    logprob, entropy = from_logits(logits, targets)
    np.testing.assert_allclose(logprob, log_p[jnp.arange(7), targets], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(entropy, -(jnp.exp(log_p) * log_p).sum(-1), rtol=1e-5, atol=1e-6)


def test_bfloat16_activations_stay_close_to_float32():
    prompt, suffix = tiny.batch()
    config = dataclasses.replace(tiny.CONFIG, dtype="bfloat16")
    params = jax.tree.map(lambda x: x / 2, PARAMS)
    wide = score(params, tiny.CONFIG, prompt, suffix)
    narrow = score(params, config, prompt, suffix)
    assert narrow.logprob.dtype == jnp.float32
    np.testing.assert_allclose(narrow.logprob, wide.logprob, atol=0.15)
    assert not jnp.array_equal(narrow.logprob, wide.logprob)


def test_batches_of_one_shape_compile_once():
    traced = chex.assert_max_traces(lambda p, s: scoring.score(PARAMS, tiny.CONFIG, p, s), n=1)
    run = jax.jit(traced)
    for seed in range(3):
        run(*tiny.batch(seed))


def test_the_untied_head_is_its_own_table():
    config = dataclasses.replace(tiny.CONFIG, tie_embeddings=False)
    params = tiny.params(config=config)
    hidden = jax.random.normal(jax.random.key(0), (2, config.width))
    np.testing.assert_allclose(text.head(params, config, hidden), hidden @ params["text"]["head"].T, rtol=1e-5)
