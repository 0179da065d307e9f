import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.data import chat
from evads_jax.data.prompts import PromptText
from evads_jax.data.tokenizer import SpecialIds
from evads_jax.errors import UserError
from evads_jax.models.qwen_vl import inputs, vision
from evads_jax.models.qwen_vl.inputs import Clip, PromptBuilder, collate_prompts, collate_suffixes

from . import tiny

SIZES = tiny.CONFIG.vision
CELL = SIZES.cell
TEXT = PromptText("head ", ("event",), " tail ", "question", "closing")


class Letters:
    """A tokenizer of one token per character."""

    ids = SpecialIds(im_start=1, im_end=2, vision_start=3, vision_end=4, video_pad=5, image_pad=6, pad=0, eos=2)
    specials = {"<|im_start|>": 1, "<|im_end|>": 2, "<|vision_start|>": 3, "<|vision_end|>": 4}  # noqa: RUF012
    size = 2000

    def encode(self, text, specials=False):
        for string, i in self.specials.items() if specials else ():
            text = text.replace(string, chr(i))
        return [ord(c) if ord(c) < 10 else ord(c) % 1900 + 10 for c in text]


def frames(count, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def builder():
    return PromptBuilder(Letters(), tiny.CONFIG)


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))
def test_patches_hold_every_pixel_in_the_place_the_model_expects(count, height, width):
    shown = frames(count, height * CELL, width * CELL)
    patches, grid = inputs.patchify(shown, SIZES)
    assert grid == (2 * height, 2 * width)
    rows, columns, _ = vision.patch_coordinates(np.asarray([grid]), grid[0] * grid[1], SIZES.merge)
    t, p = SIZES.temporal_patch, SIZES.patch
    assert len(patches) == -(-count // t)
    for unit in range(len(patches)):
        pair = [shown[min(unit * t + i, count - 1)] for i in range(t)]
        for n, (row, column) in enumerate(zip(rows[0].tolist(), columns[0].tolist(), strict=True)):
            square = np.stack([f[row * p : row * p + p, column * p : column * p + p] for f in pair])
            np.testing.assert_array_equal(patches[unit, n].reshape(3, t, p, p), square.transpose(3, 0, 1, 2))


def test_a_unit_stands_midway_between_its_frames():
    assert inputs.unit_times((0.0, 1.0, 2.0), SIZES) == (0.5, 2.0)


@pytest.mark.parametrize("shape", [(2, CELL, CELL + 1), (2, CELL - 1, CELL), (0, CELL, CELL)])
def test_frames_that_cannot_be_cut_are_refused(shape):
    with pytest.raises(UserError):
        builder().build(TEXT, [Clip(frames(*shape), [0.0] * shape[0])], split=True)


def test_a_split_prompt_and_its_suffix_are_the_whole_prompt():
    clips = [Clip(frames(3, CELL, 2 * CELL), (0.0, 1.0, 2.0)), Clip(frames(1, 2 * CELL, CELL), (0.0,))]
    split, whole = (builder().build(TEXT, clips, split=split) for split in (True, False))
    assert [*split.tokens, *split.suffix] == whole.tokens.tolist()
    assert whole.suffix == ()
    assert split.next_position + len(split.suffix) == whole.next_position
    assert split.grids == ((2, 4), (2, 4), (4, 2))
    for start, length in split.spans:
        assert length == 2
        assert set(split.tokens[start : start + length]) == {Letters.ids.video_pad}


def in_family(family, layout="release"):
    return PromptBuilder(Letters(), dataclasses.replace(tiny.CONFIG, family=family, video_layout=layout))


VIDEO_CLIP = Clip(frames(3, CELL, 2 * CELL), (0.0, 1.0, 2.0))
IMAGE_CLIP = Clip(frames(1, CELL, CELL), (0.0,), image=True)
LAYOUTS = {
    ("qwen3_vl", "release"): "\1user\n\3\6\4<0.5 seconds>\3\5\5\4<2.0 seconds>\3\5\5\4",
    ("qwen3_vl", "transformers_5"): "\1user\n\3\6\4\3<0.5 seconds>\3\5\5\4<2.0 seconds>\3\5\5\4\4",
    ("qwen2_5_vl", "release"): "\1system\nYou are a helpful assistant.\2\n\1user\n\3\6\4\3\5\5\5\5\4",
}


@pytest.mark.parametrize(("family", "layout"), LAYOUTS)
def test_images_and_videos_are_written_as_the_family_writes_them(family, layout):
    build = in_family(family, layout)
    prompt = build.build(TEXT, [IMAGE_CLIP, VIDEO_CLIP], split=True)
    text = LAYOUTS[family, layout]
    assert prompt.tokens.tolist() == Letters().encode(text + "head event tail ")
    assert [prompt.tokens[start : start + n].tolist() for start, n in prompt.spans] == [[6], [5, 5], [5, 5]]
    whole = build.build(PromptText("", (), "", "", ""), [IMAGE_CLIP, VIDEO_CLIP], split=False)
    spans = [chat.VideoSpan((0.0,), 1, image=True), chat.VideoSpan((0.5, 2.0), 2)]
    assert chat.overhead(Letters(), spans, build.layout) == len(whole.tokens)


def test_an_image_lies_where_a_video_of_one_unit_would():
    as_video = dataclasses.replace(IMAGE_CLIP, image=False)
    for family in ("qwen3_vl", "qwen2_5_vl"):
        image, video = (in_family(family).build(TEXT, [clip], split=True) for clip in (IMAGE_CLIP, as_video))
        np.testing.assert_array_equal(image.units[0], video.units[0])
        at = [
            prompt.positions[prompt.spans[0][0]] - prompt.positions[prompt.spans[0][0] - 1] for prompt in (image, video)
        ]
        assert at[0].tolist() == at[1].tolist() == [1, 1, 1]


def test_an_image_has_one_frame():
    with pytest.raises(UserError, match="an image of 2 frames"):
        builder().build(TEXT, [Clip(frames(2, CELL, CELL), (0.0, 1.0), image=True)], split=True)


def test_time_passes_in_the_positions_of_a_family_without_timestamps():
    def times(clip):
        prompt = in_family("qwen2_5_vl").build(TEXT, [clip], split=True)
        return [int(prompt.positions[start, 0] - prompt.positions[prompt.spans[0][0], 0]) for start, _ in prompt.spans]

    assert times(VIDEO_CLIP) == [0, 4], "frames a second apart, two to a unit, two positions a second"
    assert times(dataclasses.replace(VIDEO_CLIP, times=(0.0, 0.333, 0.667))) == [0, 1]
    assert times(dataclasses.replace(VIDEO_CLIP, seconds_per_unit=3.0)) == [0, 6]
    assert times(Clip(frames(1, CELL, CELL), (5.0,))) == [0]


def test_collating_gives_each_video_token_its_row():
    short = builder().build(TEXT, [], split=True)
    prompts = [short, builder().build(TEXT, [Clip(frames(4, CELL, 2 * CELL), (0, 1, 2, 3))], split=True)]
    batch = collate_prompts(prompts, T=100, units=3, patches=16, config=tiny.CONFIG)
    assert batch.tokens.shape == (2, 100)
    assert batch.video.patches.shape == (6, 16, SIZES.patch_values)
    assert batch.lengths.tolist() == [len(p.tokens) for p in prompts]
    assert batch.video.grid.tolist() == [[0, 0], [0, 0], [0, 0], [2, 4], [2, 4], [0, 0]]
    assert batch.video_index[1][batch.video_index[1] >= 0].tolist() == [12, 13, 16, 17]
    assert (batch.video_index[0] == -1).all()
    np.testing.assert_array_equal(batch.video.patches[4, :8], prompts[1].units[1])
    assert np.array_equal(batch.tokens == Letters.ids.video_pad, batch.video_index >= 0)


@pytest.mark.parametrize("room", [{"T": 20}, {"units": 1}, {"patches": 4}])
def test_a_prompt_that_does_not_fit_its_bucket_is_refused(room):
    prompt = builder().build(TEXT, [Clip(frames(4, CELL, 2 * CELL), (0, 1, 2, 3))], split=True)
    with pytest.raises(ValueError, match="does not fit the bucket"):
        collate_prompts([prompt], config=tiny.CONFIG, **{"T": 100, "units": 2, "patches": 8, **room})


def test_patches_come_in_whole_tokens():
    with pytest.raises(ValueError, match="no multiple of merge"):
        collate_prompts([], T=8, units=1, patches=6, config=dataclasses.replace(tiny.CONFIG))


def test_suffixes_are_padded_and_only_their_completion_is_scored():
    batch = collate_suffixes([[([7, 8, 9], 1), ([5], 1)], [([4, 4], 0)]], G=3, S=4)
    assert batch.tokens[0, 0].tolist() == [7, 8, 9, 0]
    assert batch.lengths.tolist() == [[3, 1, 0], [2, 0, 0]]
    assert batch.mask.astype(int).tolist() == [
        [[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    ]


@pytest.mark.parametrize("groups", [[[([1], 0)] * 3], [[([1] * 5, 0)]]])
def test_suffixes_that_do_not_fit_are_refused(groups):
    with pytest.raises(ValueError, match="fit"):
        collate_suffixes(groups, G=2, S=4)
