"""The total loss: which pairs there are, what they weigh, and which rows count in them."""

import dataclasses

import numpy as np
import pytest

from evads_jax.errors import UserError
from evads_jax.models import cope

from . import tiny

PAIR_NAMES = [
    "page_visual_video", "page_visual_live", "video_live", "page_fused_video", "page_fused_live", "page_text_video",
    "page_text_live",
]  # fmt: skip
PRODUCTS = np.arange(4)


def embeddings(seed=0):
    """Any unit vectors as every domain's embeddings."""
    x = np.random.default_rng(seed).normal(size=(3, 3, 4, 8)).astype(np.float32)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return {domain: cope.Embeddings(*x[i]) for i, domain in enumerate(cope.DOMAINS)}


def loss(form, section, clips=None, given=None, products=PRODUCTS):
    config = tiny.FORMS[form]
    clips = clips or dict.fromkeys(cope.DOMAINS, tiny.clips())
    settings = cope.LossSettings.from_config(section, config)
    params = {"classes": {"weight": np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32)}}
    return cope.cope_loss(params, config, settings, clips, given or embeddings(), products)


def test_the_released_form_has_the_seven_pairs_and_the_papers_fuses_in_every_domain():
    assert tuple(cope.pairs(tiny.FORMS["released"]).values()) == cope.PAIRS
    for form in ("paper", "released"):
        assert list(cope.pairs(tiny.FORMS[form])) == PAIR_NAMES
    paper = cope.pairs(tiny.CONFIG)
    assert paper["page_text_live"] == (("page", "text"), ("live", "fused"))
    assert paper["video_live"] == (("video", "fused"), ("live", "fused"))


@pytest.mark.parametrize("kind", ["visual", "text"])
def test_a_baseline_has_the_three_pairs_of_its_kind(kind):
    found = cope.pairs(tiny.FORMS[kind])
    assert list(found) == sorted((f"page_{kind}_video", f"page_{kind}_live", "video_live"), key=PAIR_NAMES.index)
    assert {side[1] for pair in found.values() for side in pair} == {kind}


@pytest.mark.parametrize("form", ["paper", "released", "visual", "text"])
def test_the_loss_is_the_weighted_sum_of_its_metrics(form):
    weights = {name: 0.25 * (i + 1) for i, name in enumerate(cope.pairs(tiny.FORMS[form]))}
    total, metrics = loss(form, {"pairs": weights, "classification": 0.5})
    assert list(metrics) == [*cope.pairs(tiny.FORMS[form]), "classification"]
    expected = sum(weights.get(name, 0.5) * float(value) for name, value in metrics.items())
    assert float(total) == pytest.approx(expected, rel=1e-6)


def test_a_pair_is_between_the_embeddings_that_it_names():
    given = embeddings()
    _, metrics = loss("released", {"temperature": 0.2, "smoothing": 0.0})
    expected = cope.pair_loss(
        given["page"].text, given["live"].visual, np.ones(4, bool), temperature=0.2, smoothing=0.0
    )
    assert float(metrics["page_text_live"]) == pytest.approx(float(expected), rel=1e-6)


def test_what_weighs_nothing_is_not_computed():
    _, metrics = loss("paper", {"pairs": dict.fromkeys(PAIR_NAMES[1:], 0.0), "classification": 0.0})
    assert list(metrics) == ["page_visual_video"]
    without = dataclasses.replace(tiny.CONFIG, classes=0)
    clips = dict.fromkeys(cope.DOMAINS, tiny.clips())
    _, metrics = cope.cope_loss({}, without, cope.LossSettings(), clips, embeddings(), PRODUCTS)
    assert list(metrics) == PAIR_NAMES


def test_rows_without_a_picture_count_where_only_text_is_needed():
    whole = tiny.clips()
    silent = dataclasses.replace(whole, token_count=np.array([0, 1, 1, 1], np.int32))
    blind = dataclasses.replace(whole, frame_count=np.array([1, 0, 1, 1], np.int32))
    given, spoiled = embeddings(), embeddings()
    for domain, kind, row in (("page", "text", 0), ("video", "visual", 1)):
        spoiled[domain] = spoiled[domain].replace(
            **{kind: np.where(np.arange(4)[:, None] == row, np.nan, getattr(given[domain], kind))}
        )
    clips = {"page": silent, "video": blind, "live": whole}
    for form in ("paper", "released"):
        expected, found = (loss(form, {}, clips, x) for x in (given, spoiled))
        assert float(found[0]) == float(expected[0])


def test_a_product_without_a_clip_in_a_domain_counts_in_the_others():
    clips = dict.fromkeys(cope.DOMAINS, tiny.clips()) | {"live": tiny.clips(empty=(2,))}
    given, kept = embeddings(), np.array([0, 1, 3])
    _, metrics = loss("paper", {"classification": 0.0}, clips, given)
    for name, right in (("page_fused_video", "video"), ("page_fused_live", "live")):
        rows = kept if right == "live" else PRODUCTS
        alone = cope.pair_loss(
            given["page"].fused[rows], given[right].fused[rows], np.ones(len(rows), bool),
            temperature=0.05, smoothing=0.1,
        )  # fmt: skip
        assert float(metrics[name]) == pytest.approx(float(alone), rel=1e-6)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"temperatur": 1}, "unknown field 'temperatur'"),
        ({"pairs": {"page_audio_live": 1.0}}, "no pair 'page_audio_live'"),
        ({"pairs": {"video_live": -1.0}}, "pairs must not be negative"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"smoothing": 1.0}, "smoothing must be at least 0 and below 1"),
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"pairs": dict.fromkeys(PAIR_NAMES, 0.0), "classification": 0.0}, "leave nothing to minimise"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(section, message):
    with pytest.raises(UserError, match=message):
        cope.LossSettings.from_config(section, tiny.CONFIG)


def test_a_visual_baseline_has_no_pair_of_text():
    with pytest.raises(UserError, match="no pair 'page_text_live'"):
        cope.LossSettings.from_config({"pairs": {"page_text_live": 1.0}}, tiny.FORMS["visual"])
