"""Encoding: what may not matter does not, and nothing is ever NaN."""

import dataclasses
import functools

import chex
import jax
import numpy as np
import pytest

from evads_jax.models import cope
from evads_jax.models.cope.transformer import run_layers

from . import tiny

encode = jax.jit(cope.encode, static_argnums=(1, 3))
KINDS = cope.KINDS


def arrays(embeddings):
    return {kind: np.asarray(getattr(embeddings, kind)) for kind in KINDS}


@functools.cache
def params(form):
    return tiny.params(tiny.FORMS[form])


@pytest.mark.parametrize("form", ["paper", "released"])
def test_frames_and_tokens_beyond_the_counts_change_nothing(form):
    config, clips = tiny.FORMS[form], tiny.clips(seed=1)
    frames, tokens = clips.frames.copy(), clips.tokens.copy()
    beyond = np.arange(3) >= clips.frame_count[:, None]
    frames[beyond] = np.random.default_rng(2).integers(0, 256, frames[beyond].shape)
    tokens[np.arange(5) >= clips.token_count[:, None]] = [-(10**9), 10**9, -1, 30][form == "paper"]
    assert beyond.any()
    assert (clips.token_count < 5).any()
    expected = arrays(encode(params(form), config, clips, "page"))
    found = arrays(encode(params(form), config, dataclasses.replace(clips, frames=frames, tokens=tokens), "page"))
    for kind in KINDS:
        np.testing.assert_array_equal(found[kind], expected[kind])


@pytest.mark.parametrize(("row", "F", "T"), [pytest.param(0, 3, 2, marks=pytest.mark.slow), (1, 1, 4)])
def test_a_clip_is_the_same_alone_unpadded_and_in_any_batch(row, F, T):
    config, clips = tiny.CONFIG, tiny.clips(seed=3)
    clips = dataclasses.replace(
        clips, frame_count=np.array([3, 1, 2, 0], np.int32), token_count=np.array([2, 4, 5, 0], np.int32)
    )
    whole = arrays(encode(params("paper"), config, clips, "page"))
    alone = cope.ClipBatch(
        clips.frames[row : row + 1, :F], clips.frame_count[row : row + 1], clips.tokens[row : row + 1, :T],
        clips.token_count[row : row + 1],
    )  # fmt: skip
    found = arrays(encode(params("paper"), config, alone, "page"))
    for kind in KINDS:
        np.testing.assert_allclose(found[kind][0], whole[kind][row], atol=2e-6)


@pytest.mark.parametrize("form", ["paper", "released"])
def test_real_frames_their_order_and_real_tokens_matter(form):
    config = tiny.FORMS[form]
    clips = dataclasses.replace(
        tiny.clips(seed=4), frame_count=np.full(4, 3, np.int32), token_count=np.full(4, 5, np.int32)
    )
    before = arrays(encode(params(form), config, clips, "page"))
    turned = arrays(encode(params(form), config, dataclasses.replace(clips, frames=clips.frames[:, ::-1]), "page"))
    assert np.abs(turned["visual"] - before["visual"]).max() > 1e-3
    np.testing.assert_array_equal(turned["text"], before["text"])
    tokens = clips.tokens.copy()
    tokens[:, -1] = (tokens[:, -1] + 1) % 30
    said = arrays(encode(params(form), config, dataclasses.replace(clips, tokens=tokens), "page"))
    np.testing.assert_array_equal(said["visual"], before["visual"])
    for kind in ("text", "fused"):
        assert np.abs(said[kind] - before[kind]).max(axis=1).min() > 1e-4


def test_clips_without_text_or_picture_have_one_learned_embedding_and_finite_gradients():
    config, clips = tiny.CONFIG, tiny.clips(seed=5)
    frame_count, token_count = np.array([0, 0, 2, 3], np.int32), np.array([4, 0, 0, 0], np.int32)
    clips = dataclasses.replace(clips, frame_count=frame_count, token_count=token_count)
    found = arrays(encode(params("paper"), config, clips, "page"))
    np.testing.assert_array_equal(found["visual"][0], found["visual"][1])
    np.testing.assert_array_equal(found["text"][1], found["text"][2])
    assert np.abs(found["visual"][0] - found["visual"][2]).max() > 1e-2
    assert np.abs(found["text"][0] - found["text"][2]).max() > 1e-2
    for kind in KINDS:
        np.testing.assert_allclose(np.linalg.norm(found[kind], axis=1), 1, rtol=1e-5)

    def total(params):
        return sum((x * np.arange(8)).sum() for x in jax.tree.leaves(cope.encode(params, config, clips, "page")))

    gradients = jax.jit(jax.grad(total))(params("paper"))
    chex.assert_tree_all_finite(gradients)
    for encoder in ("visual", "text"):
        assert np.abs(gradients["encoders"]["shared"][encoder]["nothing"]).max() > 0


@pytest.mark.parametrize("how", [{"scan_layers": False}, {"remat": True}, {"scan_layers": False, "remat": True}])
def test_layers_compute_the_same_however_they_are_run(how):
    layers, x = {"w": np.random.default_rng(0).normal(size=(3, 4, 4))}, np.ones((2, 4))

    def outcome(config):
        block = lambda layer, x: np.cos(1) * x + jax.nn.tanh(x @ layer["w"])  # noqa: E731
        total = lambda layers, x: (run_layers(block, layers, x, config) ** 2).sum()  # noqa: E731
        return jax.jit(jax.value_and_grad(total, (0, 1)))(layers, x)

    expected, found = outcome(tiny.CONFIG), outcome(dataclasses.replace(tiny.CONFIG, **how))
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)  # near zero: a difference of larger terms


def test_bfloat16_is_close_and_its_embeddings_are_float32():
    clips = tiny.clips(seed=6)
    wide = arrays(encode(params("paper"), tiny.CONFIG, clips, "page"))
    short = arrays(encode(params("paper"), dataclasses.replace(tiny.CONFIG, dtype="bfloat16"), clips, "page"))
    for kind in KINDS:
        assert short[kind].dtype == np.float32
        assert (short[kind] * wide[kind]).sum(axis=1).min() > 0.99


@pytest.mark.parametrize("form", ["paper", "released", "per_domain"])
@pytest.mark.parametrize("domain", cope.DOMAINS)
def test_a_domain_is_encoded_by_its_own_parts_and_the_shared_ones_alone(form, domain):
    whole = cope.abstract(tiny.FORMS[form])
    own = {
        part: {whose: tree for whose, tree in whole[part].items() if whose in ("shared", domain)}
        for part in ("encoders", "heads")
    }
    jax.eval_shape(lambda params: cope.encode(params, tiny.FORMS[form], tiny.clips(), domain), own)


def test_the_embedding_that_stands_for_a_clip_is_that_of_the_form():
    standing = {form: [cope.standing(config, d) for d in cope.DOMAINS] for form, config in tiny.FORMS.items()}
    assert standing == {
        "paper": ["fused"] * 3,
        "released": ["fused", "visual", "visual"],
        "per_domain": ["fused"] * 3,
        "visual": ["visual"] * 3,
        "text": ["text"] * 3,
    }
    given = cope.Embeddings(1, 2, 3)
    assert [cope.embedding(given, tiny.FORMS["released"], d) for d in cope.DOMAINS] == [3, 1, 1]


def test_counts_do_not_compile_again():
    once = jax.jit(chex.assert_max_traces(cope.encode, 1), static_argnums=(1, 3))
    for seed in range(3):
        once(params("paper"), tiny.CONFIG, tiny.clips(seed=seed), "page")


@pytest.mark.parametrize(("change", "message"), [({"F": 4}, "4 frames"), ({"T": 6}, "6 tokens"), ({}, "of side 16")])
def test_batches_larger_than_the_config_are_refused(change, message):
    clips = tiny.clips(**change)
    clips = clips if change else dataclasses.replace(clips, frames=clips.frames[:, :, :8])
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: cope.encode(params("paper"), tiny.CONFIG, clips, "page"))
