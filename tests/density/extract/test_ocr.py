"""Overlays through the frames of a video."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from evads_jax.density.extract.ocr import RapidOCRReader, Reading, edit_distance, installed, merge
from evads_jax.density.settings import OcrSettings

TOP, BOTTOM = (0.1, 0.1, 0.6, 0.2), (0.1, 0.8, 0.6, 0.9)
short = st.text(alphabet="ab甲", max_size=6)


def reading(text: str, box=TOP, confidence: float = 0.9) -> Reading:
    return Reading(text, box, confidence)


def test_misreadings_of_one_overlay_become_the_text_most_frames_agree_on():
    frames = [[reading("限时特价")], [reading("限时特介", confidence=0.99)], [reading("限时特价")]]
    assert merge(frames, [0.0, 1.0, 2.0], OcrSettings()) == dict.fromkeys(range(3), ("限时特价",))


def test_another_text_at_the_same_place_is_another_overlay():
    frames = [[reading("限时特价")], [reading("买一送一")]]
    assert merge(frames, [0.0, 1.0], OcrSettings()) == {0: ("限时特价",), 1: ("买一送一",)}


def test_the_same_text_at_two_places_is_two_overlays_in_reading_order():
    frames = [[reading("SALE", BOTTOM), reading("SALE", TOP), reading("new", (0.7, 0.1, 0.9, 0.2))]]
    assert merge(frames, [3.5], OcrSettings()) == {3: ("SALE", "new", "SALE")}


def test_an_overlay_counts_once_in_a_second_with_several_frames():
    frames = [[reading("SALE")], [reading("SALE")], [reading("SALE")]]
    assert merge(frames, [0.0, 0.4, 0.8], OcrSettings()) == {0: ("SALE",)}


def test_doubtful_readings_are_left_out():
    assert merge([[reading("noise", confidence=0.3)]], [0.0], OcrSettings()) == {}


def test_an_overlay_survives_a_frame_in_which_it_was_not_read_but_not_a_long_gap():
    votes = [[reading("SALE")], [reading("SALE")], [], [reading("SALF")]]
    assert merge(votes, [0.0, 1.0, 2.0, 3.0], OcrSettings())[3] == ("SALE",)
    gone = [[reading("SALE")], [reading("SALE")], [], [], [], [reading("SALF")]]
    assert merge(gone, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], OcrSettings())[5] == ("SALF",)


def test_an_overlay_stays_until_the_next_frame_that_was_read():
    frames = [[reading("SALE")], [reading("SALE")], [reading("new", BOTTOM)]]
    found = merge(frames, [0.0, 2.5, 5.0], OcrSettings(), duration=7.4)
    assert found == dict.fromkeys(range(5), ("SALE",)) | dict.fromkeys((5, 6, 7), ("new",))


@given(short, short, short)
def test_edit_distance_is_a_distance(a, b, c):
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))


@pytest.mark.skipif(not installed(), reason="needs the extra ocr")
def test_rapidocr_reads_large_text_and_knows_where_it_stands():
    image = Image.new("RGB", (640, 360), (240, 240, 240))
    draw = ImageDraw.Draw(image)
    draw.text((40, 40), "Buy 2 get 1 free", fill=(20, 20, 20), font=ImageFont.load_default(40))
    draw.text((40, 240), "SALE 50%", fill=(180, 20, 20), font=ImageFont.load_default(60))
    reader = RapidOCRReader()
    found = reader(np.asarray(image))
    assert [r.text for r in found] == ["Buy 2 get 1 free", "SALE 50%"]
    assert found[0].box[3] < 0.5 < found[1].box[1]
    assert reader(np.zeros((64, 64, 3), np.uint8)) == []
