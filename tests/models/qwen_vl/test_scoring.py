import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evads_jax.models.qwen_vl import scoring, text
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
    stacked = [
        jnp.stack([jnp.stack([jnp.asarray(x) for x in row]) for g in nested for row in g])
        for nested in (logprob, entropy)
    ]
    return scoring.TokenScores(*(x.reshape(tokens.shape) for x in stacked))


@pytest.fixture(scope="module")
def expected():
    def loss(params):
        scores = naive_scores(params)
        return weighted(scores), scores

    (_, scores), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(PARAMS)
    return scores, gradient


def ours(config=tiny.CONFIG, **batch):
    prompt, suffix = tiny.batch(**batch)

    def loss(params):
        scores = jax.tree.map(lambda x: x[:, :, : tiny.S], scoring.score(params, config, prompt, suffix))
        return weighted(scores), scores

    (_, scores), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(PARAMS)
    return scores, gradient


def assert_same_gradient(actual, reference, tolerance=1e-5):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(reference), strict=True):
        name = jax.tree_util.keystr(path)
        assert jnp.abs(b).max() > 0, f"{name} has no gradient at all"
        assert jnp.linalg.norm(a - b) / jnp.linalg.norm(b) < tolerance, name
        assert jnp.abs(a - b).max() / jnp.abs(b).max() < tolerance, name


@pytest.mark.parametrize(
    "fields",
    [{}, {"scan_layers": True}, {"remat": True, "logit_chunk": 8}, {"scan_layers": True, "remat": True}],
    ids=str,
)
def test_scores_and_gradients_are_those_of_separate_sequences(expected, fields):
    scores, gradient = ours(dataclasses.replace(tiny.CONFIG, **fields))
    chex.assert_trees_all_close(scores, expected[0], atol=1e-5)
    assert_same_gradient(gradient, expected[1])


def test_padding_never_matters_whatever_it_holds(expected):
    scores, gradient = ours(garbage=np.random.default_rng(3), pad_tokens=3, pad_units=1)
    chex.assert_trees_all_close(scores, expected[0], atol=1e-5)
    assert_same_gradient(gradient, expected[1])


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
    assert not jnp.any(jnp.where(suffix.mask, 0, scores.logprob)) and not jnp.any(
        jnp.where(suffix.mask, 0, scores.entropy)
    )


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
