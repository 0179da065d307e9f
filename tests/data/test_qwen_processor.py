"""Frames, sizes, patches and prompts against those of the official processors (make_golden_processor.py)."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from test_tokenizer import qwen_like

from evads_jax.data import media
from evads_jax.data.prompts import PromptText
from evads_jax.data.qwen_processor import (
    Processing,
    fitted,
    read_image,
    read_processing,
    read_video,
    resize,
    sample_frames,
)
from evads_jax.data.tokenizer import HuggingFaceTokenizer
from evads_jax.errors import UserError
from evads_jax.models.qwen_vl import vision
from evads_jax.models.qwen_vl.checkpoint_config import CLIP_MEAN, CLIP_STD
from evads_jax.models.qwen_vl.config import QwenVLConfig, VisionConfig
from evads_jax.models.qwen_vl.inputs import Clip, PromptBuilder, patchify

GOLDEN = Path(__file__).parent / "golden"
# As in make_golden_processor.py, which cannot be imported without torch.
TEXT = "Was kostet das? 多少钱？\n1) <think>"
CASES = {
    "qwen3_vl_ad": ("qwen3_vl", "ad.mp4", 1.0, 1_000, 12_000),
    "qwen3_vl_enlarged": ("qwen3_vl", "odd.mp4", 0.7, 50_000, 90_000),
    "qwen3_vl_odd": ("qwen3_vl", "odd.mp4", 2.0, 1_000, 16_000),
    "qwen2_5_vl_ad": ("qwen2_5_vl", "ad.mp4", 1.0, 1_000, 2_500),
    "qwen2_5_vl_odd": ("qwen2_5_vl", "odd.mp4", 2.3, 2_000, 4_000),
}
FAMILIES = ("qwen3_vl", "qwen2_5_vl")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "processor_5.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def ids_4():
    with np.load(GOLDEN / "processor_4.npz") as file:
        return dict(file)


def model(family, **changes):
    mean, std = (CLIP_MEAN, CLIP_STD) if family == "qwen2_5_vl" else ((0.5,) * 3, (0.5,) * 3)
    sizes = VisionConfig(width=8, layers=1, heads=1, mlp_width=8, patch=4, pixel_mean=mean, pixel_std=std)
    return QwenVLConfig(
        vocabulary=300, width=8, layers=1, heads=1, kv_heads=1, head_width=6, mlp_width=8, mrope_sections=(1, 1, 1),
        family=family, vision=sizes, **changes,
    )  # fmt: skip


def processing(family, rate, low, high):
    return Processing(8, 2, low, high, whole_video=family == "qwen3_vl", frame_rate=rate)


def processed(case):
    family, file, *settings = CASES[case]
    return family, read_video(GOLDEN / file, processing(family, *settings))


def assert_same_levels(ours, theirs):
    """The stated tolerance: at most one of the 256 levels, and that in a few places only."""
    distance = np.abs(ours.astype(int) - theirs.astype(int))
    assert distance.max() <= 1
    assert (distance > 0).mean() < 0.02


@pytest.mark.parametrize("case", CASES)
def test_frames_sizes_and_patches_are_those_of_the_official_processor(case, golden):
    family, shown = processed(case)
    rate = {"ad.mp4": 2.0, "odd.mp4": 7.5}[CASES[case][1]]
    np.testing.assert_allclose(np.asarray(shown.times) * rate, golden[f"{case}/indices"], atol=1e-9)
    patches, grid = patchify(shown.frames, model(family).vision)
    assert (len(patches), *grid) == tuple(golden[f"{case}/grid"])
    assert_same_levels(patches.reshape(-1, patches.shape[-1]), golden[f"{case}/levels"])


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_becomes_the_patches_of_the_official_processor(family, golden):
    pixels = golden[f"{family}_image/pixels"]
    shown = read_image(pixels, Processing(8, 2, 1_500, 3_000))
    np.testing.assert_array_equal(shown, read_image(Image.fromarray(pixels), Processing(8, 2, 1_500, 3_000)))
    patches, grid = patchify(shown, model(family).vision)
    assert (len(patches), *grid) == tuple(golden[f"{family}_image/grid"])
    assert_same_levels(patches[0], golden[f"{family}_image/levels"])


@pytest.mark.parametrize("case", [*CASES, "qwen3_vl_image", "qwen2_5_vl_image"])
def test_normalised_patches_are_those_of_the_official_processor(case, golden):
    family = case.rsplit("_", 1)[0]
    ours = vision._normalise(jnp.asarray(golden[f"{case}/levels"][7:8]), model(family))
    np.testing.assert_allclose(ours[0], golden[f"{case}/normalised"], atol=2e-6)


@pytest.mark.parametrize("case", CASES)
def test_a_prompt_has_the_ids_of_both_versions_of_the_official_processor(case, golden, ids_4):
    family, shown = processed(case)
    tokenizer = HuggingFaceTokenizer(qwen_like())
    clip = Clip(shown.frames, shown.times, seconds_per_unit=shown.seconds_per_unit)
    for layout, expected in (("transformers_5", golden), ("release", ids_4)):
        builder = PromptBuilder(tokenizer, model(family, video_layout=layout))
        built = builder.build(PromptText("", (), "", "", TEXT), [clip], split=False)
        np.testing.assert_array_equal(built.tokens, expected[f"{case}/ids"])
    if family == "qwen2_5_vl":
        assert shown.seconds_per_unit == pytest.approx(golden[f"{case}/seconds"][0], rel=1e-7)  # there in float32


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_with_an_image_has_the_ids_of_the_official_processor(family, golden, ids_4):
    shown = read_image(golden[f"{family}_image/pixels"], Processing(8, 2, 1_500, 3_000))
    builder = PromptBuilder(HuggingFaceTokenizer(qwen_like()), model(family))
    built = builder.build(PromptText("", (), "", "", TEXT), [Clip(shown, (0.0,), image=True)], split=False)
    np.testing.assert_array_equal(built.tokens, golden[f"{family}_image/ids"])
    np.testing.assert_array_equal(built.tokens, ids_4[f"{family}_image/ids"])


def test_sizes_are_those_of_the_official_rule(golden):
    for (frames, height, width, cell, low, high), sizes in zip(
        golden["rules/shapes"].tolist(), golden["rules/sizes"].tolist(), strict=True
    ):
        alone = fitted(height, width, Processing(cell, 2, low, high), frames)
        together = fitted(height, width, Processing(cell, 2, low, high, whole_video=True), frames)
        assert [*alone, *together] == sizes


def test_frame_numbers_are_those_of_the_official_rule(golden):
    numbers = np.unpackbits(golden["rules/numbers"], axis=1)
    for i, (total, rate, wanted) in enumerate(golden["rules/sampled"].tolist()):
        for j, whole in enumerate((False, True)):
            settings = Processing(28, 2, 1, 1, whole_video=whole, frame_rate=wanted)
            np.testing.assert_array_equal(sample_frames(int(total), rate, settings), np.flatnonzero(numbers[2 * i + j]))


def test_a_video_of_one_frame_is_shown_twice_in_its_unit(tmp_path):
    media.write_mp4(tmp_path / "one.mp4", [np.full((32, 48, 3), 90, np.uint8)], 2.0)
    for family in FAMILIES:
        shown = read_video(tmp_path / "one.mp4", processing(family, 2.0, 100, 10_000))
        assert (shown.frames.shape, shown.times, shown.seconds_per_unit) == ((1, 32, 48, 3), (0.0,), 1.0)
        patches, grid = patchify(shown.frames, model(family).vision)
        assert (len(patches), grid) == (1, (8, 12))


def test_a_video_that_cannot_be_shown_is_one_line(tmp_path):
    settings = processing("qwen3_vl", 1.0, 100, 10_000)
    with pytest.raises(UserError, match=r"missing, no such file \[.*none\.mp4\]"):
        read_video(tmp_path / "none.mp4", settings)
    whole = (GOLDEN / "ad.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:-100])
    with pytest.raises(UserError, match="truncated"):
        read_video(tmp_path / "cut.mp4", settings)
    (tmp_path / "sound.flac").write_bytes(media.encode_flac(np.zeros(16_000, np.float32)))
    with pytest.raises(UserError, match="no_video"):
        read_video(tmp_path / "sound.flac", settings)
    with pytest.raises(UserError, match="200-fold"):
        fitted(10, 2010, settings)


def test_processing_is_what_the_folder_states_and_else_the_releases(tmp_path):
    released = read_processing(tmp_path, "qwen3_vl", "video", 32, 2)
    assert released == Processing(32, 2, 4_096, 25_165_824, whole_video=True)
    assert read_processing(tmp_path, "qwen2_5_vl", "video", 28, 2) == Processing(28, 2, 3_136, 12_845_056)

    def write(name, content):
        (tmp_path / name).write_text(json.dumps(content))

    write("preprocessor_config.json", {"min_pixels": 1, "max_pixels": 2})
    assert read_processing(tmp_path, "qwen2_5_vl", "video", 28, 2) == Processing(28, 2, 1, 2)
    write(
        "video_preprocessor_config.json", {"size": {"shortest_edge": 3, "longest_edge": 4}, "fps": 1, "max_frames": 9}
    )
    stated = Processing(32, 2, 3, 4, whole_video=True, frame_rate=1.0, max_frames=9)
    assert read_processing(tmp_path, "qwen3_vl", "video", 32, 2) == stated
    assert read_processing(tmp_path, "qwen3_vl", "image", 32, 2) == Processing(32, 2, 1, 2)
    write("processor_config.json", {"video_processor": {"size": {"shortest_edge": 5, "longest_edge": 6}}})
    changed = dataclasses.replace(stated, min_pixels=5, max_pixels=6, frame_rate=2.0, max_frames=768)
    assert read_processing(tmp_path, "qwen3_vl", "video", 32, 2) == changed
    (tmp_path / "processor_config.json").write_text("[]")
    with pytest.raises(UserError, match="not a JSON object"):
        read_processing(tmp_path, "qwen3_vl", "video", 32, 2)


def test_scaling_keeps_a_flat_picture_and_is_exact_at_its_own_size():
    flat = np.full((30, 50, 3), (7, 100, 250), np.uint8)
    assert (resize(flat, (16, 24)) == (7, 100, 250)).all()
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    np.testing.assert_array_equal(resize(noise, (16, 24)), noise)
