"""The fast forms of attention against the definition, gradients included."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.models.attention import prefix, tiled
from evads_jax.models.attention.reference import attention

B, G, S, T, K, R, H = 2, 3, 4, 5, 2, 3, 4
N = K * R
LENGTHS = jnp.array([5, 2])


def draw(*shapes):
    keys = jax.random.split(jax.random.key(len(shapes)), len(shapes))
    return [2 * jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def in_tiles(monkeypatch, tile):
    """Has every prompt cut into tiles of so many tokens; None: as it is, no prompt here is long enough."""
    if tile is not None:
        for name, value in (("TILE", tile), ("PLAIN_PROMPT", 0), ("PLAIN_SUFFIXES", 0)):
            monkeypatch.setattr(tiled, name, value)


def assert_same_with_gradients(fast, plain, inputs, rows=True):
    """Equal outputs and input gradients, of the rows that `rows` selects."""

    def loss(form):
        return lambda *x: (jnp.where(rows, form(*x), 0) * jnp.cos(jnp.arange(H))).sum()

    chex.assert_trees_all_close(jnp.where(rows, fast(*inputs), 0), jnp.where(rows, plain(*inputs), 0), atol=1e-5)
    argnums = tuple(range(len(inputs)))
    chex.assert_trees_all_close(
        jax.jit(jax.grad(loss(fast), argnums))(*inputs), jax.jit(jax.grad(loss(plain), argnums))(*inputs), atol=1e-5
    )


@pytest.mark.parametrize("tile", [None, 3, 1])
def test_prompts_attend_causally_however_many_tokens_are_worked_on_at_one_time(tile, monkeypatch):
    in_tiles(monkeypatch, tile)

    def plain(q, k, v):
        real = jnp.arange(T) < LENGTHS[:, None, None]
        return attention(
            q, k.swapaxes(1, 2), v.swapaxes(1, 2), jnp.tri(T, dtype=bool) & (real | jnp.eye(T, dtype=bool))
        )

    real_rows = (jnp.arange(T) < LENGTHS[:, None])[..., None, None]
    inputs = draw((B, T, N, H), (B, K, T, H), (B, K, T, H))
    assert_same_with_gradients(prefix.prompt_attention, plain, inputs, real_rows)


def test_the_last_token_attends_to_its_whole_prompt():
    def plain(q, k, v):
        mask = (jnp.arange(T) < LENGTHS[:, None])[:, None]
        return attention(q[:, None], k.swapaxes(1, 2), v.swapaxes(1, 2), mask)[:, 0]

    inputs = draw((B, N, H), (B, K, T, H), (B, K, T, H))
    assert_same_with_gradients(lambda *x: prefix.last_token_attention(*x, LENGTHS), plain, inputs)


def duplicated(own_mask):
    """Suffix attention with the prompt's keys and values copied for every suffix."""

    def plain(q, prompt_k, prompt_v, own_k, own_v):
        prompt_k, prompt_v = (jnp.repeat(x.swapaxes(1, 2)[:, None], G, axis=1) for x in (prompt_k, prompt_v))
        own_k, own_v = (x.transpose(0, 2, 3, 1, 4) for x in (own_k, own_v))
        k, v = jnp.concatenate([prompt_k, own_k], axis=2), jnp.concatenate([prompt_v, own_v], axis=2)
        on_prompt = jnp.broadcast_to((jnp.arange(T) < LENGTHS[:, None])[:, None, None], (B, G, len(own_mask), T))
        mask = jnp.concatenate([on_prompt, jnp.broadcast_to(own_mask, (B, G, *own_mask.shape))], axis=-1)
        return attention(q, k, v, mask)

    return plain


def shared(own_mask):
    return lambda q, pk, pv, k, v: prefix.suffix_attention(q, pk, pv, LENGTHS, k, v, own_mask)


@pytest.mark.parametrize("tile", [None, 3])
def test_suffixes_share_their_prompt_under_one_softmax(tile, monkeypatch):
    in_tiles(monkeypatch, tile)
    causal = jnp.tri(S, dtype=bool)
    inputs = draw((B, G, S, N, H), (B, K, T, H), (B, K, T, H), (B, K, G, S, H), (B, K, G, S, H))
    assert_same_with_gradients(shared(causal), duplicated(causal), inputs)


def test_one_new_token_attends_to_the_cache_up_to_itself():
    visible = (jnp.arange(S) <= 1)[None]
    inputs = draw((B, G, 1, N, H), (B, K, T, H), (B, K, T, H), (B, K, G, S, H), (B, K, G, S, H))
    assert_same_with_gradients(shared(visible), duplicated(visible), inputs)


@given(st.floats(-3e3, 3e3), st.floats(-3e3, 3e3))
def test_logits_of_any_size_stay_finite(prompt_logit, own_logit):
    one = jnp.ones((1, 1, 1, 1))
    q, k, own = one[None], prompt_logit * one, own_logit * one[None]
    out = prefix.suffix_attention(q, k, 3 * one, jnp.array([1]), own, 5 * one[None], jnp.ones((1, 1), bool))
    share = 1 / (1 + np.exp(np.clip(np.float64(prompt_logit) - np.float64(own_logit), -700, 700)))
    np.testing.assert_allclose(out.item(), 3 + 2 * share, atol=1e-2)


@pytest.mark.parametrize("tile", [None, 3])
def test_a_prompt_without_tokens_leaves_the_suffix_to_itself(tile, monkeypatch):
    in_tiles(monkeypatch, tile)
    q, pk, pv, k, v = draw((1, 1, S, N, H), (1, K, T, H), (1, K, T, H), (1, K, 1, S, H), (1, K, 1, S, H))
    causal = jnp.tri(S, dtype=bool)

    def continued(q, pk, pv, k, v):
        return prefix.suffix_attention(q, pk, pv, jnp.array([0]), k, v, causal)

    def alone(q, pk, pv, k, v):
        return attention(q[:, 0], *(x[:, :, 0].swapaxes(1, 2) for x in (k, v)), causal[None])[:, None]

    assert_same_with_gradients(continued, alone, (q, pk, pv, k, v))
