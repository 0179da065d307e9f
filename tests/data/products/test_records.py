"""Products as bytes, and drawn products as records."""

import dataclasses
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evads_jax.data.products.catalogue import draw_catalogue
from evads_jax.data.products.records import DOMAINS, Lost, ProductClip, ProductRecord, pack, spread, unpack
from evads_jax.data.products.render import DrawProducts
from evads_jax.data.render import vocabulary

texts = st.text(st.characters(exclude_categories=["Cs"]))
clips = st.builds(ProductClip, texts, texts, st.sampled_from(DOMAINS), st.lists(st.binary()).map(tuple), texts)
products = st.builds(
    ProductRecord,
    texts,
    st.lists(clips, max_size=4).map(tuple),
    st.none() | texts,
    texts,
    st.dictionaries(texts, texts, max_size=3),
    st.lists(st.builds(Lost, texts, texts, texts), max_size=2).map(tuple),
)


@given(products)
def test_a_product_comes_back_from_its_bytes(record):
    assert unpack(pack(record)) == record
    assert pack(unpack(pack(record))) == pack(record)


@given(products)
def test_bytes_that_are_cut_or_foreign_are_refused(record):
    with pytest.raises(ValueError, match=r"announces|not a product"):
        unpack(pack(record) + b"x")
    with pytest.raises(ValueError, match="not a product"):
        unpack(b"EVR1" + pack(record)[4:])


@given(st.integers(1, 40), st.integers(1, 12))
def test_the_frames_that_stand_for_a_clip_are_those_of_the_released_code(count, most):
    chosen = spread(count, most)
    assert len(chosen) == min(count, most)
    assert chosen == sorted(set(chosen))
    if count > most:
        assert chosen == [int((2 * i + 1) * (count / most) / 2) for i in range(most)]


@pytest.fixture(scope="module")
def maker():
    return DrawProducts("test", draw_catalogue(5, "test", 6), "en", (2, 2, 2), 3, 48)


def pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)), np.float64)


def test_a_drawn_product_has_its_clips_in_every_domain_and_always_the_same_bytes(maker):
    record = maker(0)
    assert [clip.domain for clip in record.clips] == ["page"] * 2 + ["video"] * 2 + ["live"] * 2
    assert [len(clip.frames) for clip in record.clips] == [1, 1, 3, 3, 3, 3]
    assert {pixels(f).shape for clip in record.clips for f in clip.frames} == {(48, 48, 3)}
    assert len({clip.id for clip in record.clips}) == 6
    assert record.paired
    assert pack(record) == pack(dataclasses.replace(maker)(0))
    assert len({clip.frames for clip in record.clips}) == 6


def test_a_look_alike_in_what_is_told_differs_in_no_way_that_a_page_shows(maker):
    """Its pages are drawn anew, but with the same outline, shade, surface and badge."""
    first, seen, told = (maker.scripts[i] for i in range(3))
    assert all(getattr(first, n) == getattr(told, n) for n in ("kind", "colour", "material", "badge", "shade"))
    assert sum(first.facts[n] != seen.facts[n] for n in first.facts) == 1


@pytest.mark.parametrize("language", ["en", "zh"])
def test_titles_name_brand_and_claim_and_speech_tells_the_claim_in_other_words(language):
    maker = DrawProducts("train", draw_catalogue(6, "train", 30), language, (3, 3, 3), 1, 16)
    named = spoken = silent = total = 0
    for number, script in enumerate(maker.scripts):
        record = maker(number)
        for clip in record.of("page"):
            named += script.brand in clip.text and any(w in clip.text for w in script.claim.wordings[language])
        for clip in record.of("video"):
            spoken += any(w in clip.text for w in script.claim.spoken[language])
            assert not any(w in clip.text.split() for w in script.colour.wordings["en"])
        silent += sum(not clip.text for clip in record.of("live"))
        total += 3
    assert named > 0.7 * total
    assert spoken > 0.7 * total
    assert 0 < silent < 0.2 * total
    assert len(vocabulary.BRANDS) == 12
