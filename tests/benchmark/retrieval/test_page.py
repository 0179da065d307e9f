"""The page of search results."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from evads_jax.benchmark.retrieval.page import nearest_products, result_page
from evads_jax.benchmark.retrieval.score import Clips
from evads_jax.data.media import encode_jpeg
from evads_jax.data.products.records import ProductClip

NASTY = "<script>alert('x')</script> & \u202e \"quoted\" {brace}"


def clip(name, product, text="", frames=1):
    picture = encode_jpeg(np.full((8, 8, 3), 90, np.uint8))
    return ProductClip(name, product, "page", (picture,) * frames, text)


def test_products_come_once_in_the_order_of_their_nearest_clip():
    angles = np.radians([50.0, 10.0, 30.0, 10.0, 80.0])
    gallery = Clips(tuple("abcde"), ("p", "q", "p", "r", "r"), np.stack([np.cos(angles), np.sin(angles)], 1))
    found = nearest_products(np.array([1.0, 0.0]), gallery, 5)
    assert [one.product for one in found] == ["q", "r", "p"]
    assert [one.clips for one in found] == [(1,), (3, 4), (2, 0)]
    assert [round(one.similarity, 3) for one in found] == [0.985, 0.985, 0.866]
    assert nearest_products(np.array([1.0, 0.0]), gallery, 1) == found[:1]


def test_the_page_is_well_formed_holds_its_pictures_and_escapes_every_text():
    gallery = [clip("a", NASTY, NASTY, 2), clip("b", "plain", "", 0)]
    vectors = np.array([[1.0, 0.0], [0.6, 0.8]])
    found = nearest_products(vectors[0], Clips(("a", "b"), (NASTY, "plain"), vectors), 9)
    page = result_page(clip(NASTY, NASTY, NASTY), found, gallery, NASTY)
    ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    assert "<script" not in page
    assert "\u202e" not in page
    assert page.count("data:image/jpeg;base64,") == 3
    assert not re.search(r"(src|href)=.(?!data:|#)", page)
    assert "the query&#39;s product" in page
    assert "no picture" in page
