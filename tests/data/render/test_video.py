"""Drawn ads as videos."""

import time

import numpy as np
from PIL import Image

from evads_jax.data import media
from evads_jax.data.makers import DrawAds, Sampling
from evads_jax.data.render import draw_script, draw_video, drawing, vocabulary
from evads_jax.data.render.video import PRODUCT_SCALE, SIDE, draw_frames

SAMPLING = Sampling(frame_rate=1.0, max_frames=6, size=64, multiple=16)


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    script = draw_script(5, "en")
    draw_video(script, tmp_path / "a.mp4")
    draw_video(script, tmp_path / "b.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    draw_video(draw_script(6, "en"), tmp_path / "b.mp4")
    assert (tmp_path / "a.mp4").read_bytes() != (tmp_path / "b.mp4").read_bytes()


def test_an_ad_is_a_real_video_of_six_seconds_with_sound(tmp_path):
    draw_video(draw_script(1, "zh"), tmp_path / "ad.mp4")
    taken = media.decode(tmp_path / "ad.mp4", 1.0, 6, 64, 16)
    assert isinstance(taken, media.Media)
    assert taken.times == (0, 1, 2, 3, 4, 5)
    assert taken.duration == 6
    assert {frame.shape for frame in taken.frames} == {(64, 64, 3)}
    assert taken.audio.shape == (6 * media.SAMPLE_RATE,)
    assert np.abs(taken.audio).max() > 0.01


def test_frames_of_one_scene_are_alike_and_those_of_two_scenes_are_not():
    for seed in range(10):
        frames = np.stack(draw_frames(draw_script(seed, "en"))).astype(float)
        colour = frames.mean((1, 2)).reshape(3, 4, 3)
        within = np.abs(colour - colour.mean(1, keepdims=True)).max()
        between = min(np.abs(colour[i].mean(0) - colour[j].mean(0)).max() for i, j in ((0, 1), (1, 2), (0, 2)))
        assert within < 14
        assert between > within / 4


def test_every_product_covers_two_fifths_of_the_frame_in_every_scene():
    for product in vocabulary.PRODUCTS:
        for scale in PRODUCT_SCALE:
            image = Image.new("RGB", (SIDE, SIDE))
            skin = np.full((SIDE, SIDE, 3), 255.0)
            drawing.draw_product(image, product.key, skin, (64, 64), scale, 0.0)
            rows, columns = np.nonzero(np.asarray(image).any(-1))
            assert max(np.ptp(rows), np.ptp(columns)) >= 0.4 * SIDE


def test_the_colour_in_the_middle_of_the_product_is_the_scripts():
    """Nearest hue of the saturated pixels: a check that needs no model."""
    right = 0
    for seed in range(40):
        script = draw_script(seed, "en")
        frame = Image.fromarray(draw_frames(script)[5]).convert("HSV")
        hue, saturation, value = np.asarray(frame)[24:104, 24:104].reshape(-1, 3).T.astype(float)
        strong = (saturation > 195) & (value > 140)
        hues = hue[strong] * 360 / 255
        distance = {k: np.mean(np.abs((hues - h + 180) % 360 - 180) < 10) for k, h in drawing.HUES.items()}
        right += max(distance, key=distance.get) == script.colour.key
    assert right >= 36


def test_the_records_of_a_split_differ_and_say_what_they_show():
    make = DrawAds("sft", 0, "en", SAMPLING)
    first, second = make(0), make(1)
    assert first == DrawAds("sft", 0, "en", SAMPLING)(0)
    assert first.facts != second.facts
    assert len(first.frames) == 6
    assert len(first.questions) == 5
    assert first.annotated_duration == 6
    assert make(0) != DrawAds("sft", 1, "en", SAMPLING)(0)
    assert media.decode_flac(first.audio).shape == (96000,)


def test_a_record_costs_little_processor_time():
    """2,200 are made in a minute by two processes; measured at 27 ms."""
    make = DrawAds("rl", 0, "en", SAMPLING)
    make(0)
    start = time.process_time()
    for index in range(1, 11):
        make(index)
    assert (time.process_time() - start) / 10 < 0.12
