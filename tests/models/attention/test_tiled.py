"""The tiled form against the definition, in both results and all gradients."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evads_jax.models.attention import tiled
from evads_jax.models.attention.reference import attention

BATCH, H = (2, 2), 4
# Compiled for every example and run once, so compiled without optimisation.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def plain(rows, keys, values, limits):
    """Average and log-sum-exp, as short as the definition."""
    seen = jnp.broadcast_to(
        jnp.arange(keys.shape[-2]) < jnp.asarray(limits)[..., None], (*rows.shape[:-1], keys.shape[-2])
    )
    average = attention(rows[..., None, :], keys[..., None, :], values[..., None, :], seen)[..., 0, :]
    logits = jnp.where(seen, rows @ keys.swapaxes(-1, -2), -jnp.inf)
    return average, jax.nn.logsumexp(logits, axis=-1)


def results(form, inputs, dtype):
    """Average, log-sum-exp, and the gradients of a number that no two places of either enter alike."""

    def number(*inputs):
        average, lse = form(*inputs)
        return sum((x * jnp.sin(1 + jnp.arange(x.size)).reshape(x.shape)).sum() for x in (average, lse))

    with jax.enable_x64(dtype == "float64"):
        inputs = [jnp.asarray(x, dtype) for x in inputs]
        run = quick(lambda *x: (*form(*x), *jax.grad(number, (0, 1, 2))(*x)))
        return [np.asarray(x, np.float64) for x in run(*inputs)]


def assert_same(form, limits, inputs):
    expected = results(lambda *x: plain(*x, limits), inputs, "float64")
    for dtype, tolerance in (("float32", 1e-5), ("float64", 1e-10)):
        for found, reference in zip(results(form, inputs, dtype), expected, strict=True):
            largest = max(np.abs(reference).max(), 1e-3)  # with one key, rows have no gradient
            assert np.abs(found - reference).max() <= tolerance * largest
            assert np.linalg.norm(found - reference) <= tolerance * max(np.linalg.norm(reference), 1e-3)


def drawn(M, T, seed=0):
    rng = np.random.default_rng(seed)
    return [2 * rng.normal(size=(*BATCH, M, H)), *(2 * rng.normal(size=(*BATCH, T, H)) for _ in range(2))]


@settings(max_examples=5)
@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 5))
def test_causal_rows_of_any_number_in_tiles_of_any_size(T, heads, tile):
    limits = np.repeat(np.arange(1, T + 1), heads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiled, "TILE", tile)
        assert_same(lambda *x: tiled.attend(*x, limits, heads), limits, drawn(T * heads, T))


@settings(max_examples=5)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.data())
def test_rows_that_see_some_keys_of_their_prompt(M, T, tile, data):
    lengths = np.array(data.draw(st.lists(st.integers(1, T), min_size=2, max_size=2)))[:, None, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiled, "TILE", tile)
        assert_same(lambda *x: tiled.attend(*x, jnp.asarray(lengths)), lengths, drawn(M, T))


def test_what_stands_behind_the_limit_changes_nothing(monkeypatch):
    monkeypatch.setattr(tiled, "TILE", 2)
    rows, keys, values = drawn(3, 7)
    form = lambda *x: tiled.attend(*x, jnp.array([[[4]], [[7]]]))  # noqa: E731
    for x in (keys, values):
        x[0, :, 4:] = 1e4
    loud = results(form, (rows, keys, values), "float32")
    for x in (keys, values):
        x[0, :, 4:] = 0
    for a, b in zip(loud, results(form, (rows, keys, values), "float32"), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not loud[3][0, :, 4:].any()


def gradient(limits, T=24):
    inputs = [jax.ShapeDtypeStruct((*BATCH, T, H), jnp.float32)] * 3
    return str(jax.make_jaxpr(jax.grad(lambda *x: sum(y.sum() for y in tiled.attend(*x, limits)), (0, 1, 2)))(*inputs))


def test_tiles_that_the_mask_empties_are_left_out_forward_and_backward(monkeypatch):
    monkeypatch.setattr(tiled, "TILE", 6)
    lengths = [re.findall(r"length=(\d+)", gradient(xp.arange(1, 25))) for xp in (np, jnp)]
    assert lengths == [["10"] * 2, ["16"] * 2]  # 4 · 5 / 2 pairs of 4 tiles; all, where the mask is known only later


def test_the_logits_of_all_keys_never_exist(monkeypatch):
    monkeypatch.setattr(tiled, "TILE", 6)
    jaxpr = gradient(np.arange(1, 25))
    assert ",6,6]" in jaxpr
    assert "24,24]" not in jaxpr


def test_bfloat16_is_summed_in_float32(monkeypatch):
    monkeypatch.setattr(tiled, "TILE", 2)
    limits = np.arange(1, 8)
    narrow = [jnp.asarray(x / 2, jnp.bfloat16) for x in drawn(7, 7)]
    average, lse = tiled.attend(*narrow, limits)
    assert (average.dtype, lse.dtype) == (jnp.float32, jnp.float32)
    expected = plain(*(x.astype(jnp.float32) for x in narrow), limits)
    for found, reference in zip((average, lse), expected, strict=True):
        np.testing.assert_allclose(found, reference, atol=0.03)
    through = jax.grad(lambda *x: tiled.attend(*x, limits)[0].sum(), (0, 1, 2))(*narrow)
    assert [x.dtype for x in through] == [jnp.bfloat16] * 3
