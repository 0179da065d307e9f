"""From clips to batches: decoded, cut, padded; what cannot be read is named."""

import pickle

import numpy as np
import pytest

from evads_jax.data.media import encode_jpeg
from evads_jax.data.products.records import ProductClip
from evads_jax.data.tokenizer import train_sentencepiece
from evads_jax.errors import UserError
from evads_jax.models.cope import CopeConfig
from evads_jax.models.cope.inputs import ClipInputs, Words

SIDE = 16
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "kettle", "##s", "红", "壶"]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return Words.of(train_sentencepiece(["red kettle and blue boot"] * 3, 300, tmp_path_factory.mktemp("words")))


@pytest.fixture(scope="module")
def inputs(words):
    return ClipInputs(words, CopeConfig(words.size, frame_size=SIDE, visual_patch=8, frames=3, text_tokens=6))


def clip(frames=1, text="red kettle", side=SIDE, domain="video"):
    pictures = tuple(encode_jpeg(np.full((side, side, 3), 20 * k, np.uint8)) for k in range(frames))
    return ProductClip("the clip", "p", domain, pictures, text)


def test_a_text_begins_with_the_token_that_stands_for_it_and_is_cut_to_what_the_model_reads(words):
    ids = words.encode("red kettle", 40)
    assert ids[0] == words.first
    assert ids[1:] == words.pieces("red kettle")
    assert words.encode("red kettle " * 9, 6) == words.encode("red kettle " * 9, 40)[:6]
    assert max(ids) < words.size


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_a_text_that_says_nothing_has_no_token_at_all(inputs, text):
    assert inputs.item(clip(text=text)).tokens == ()


def test_word_pieces_stand_between_cls_and_sep(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    words = Words.bert(tmp_path)
    assert (words.size, words.first, words.last) == (9, 2, 3)
    assert words.encode("Red kettles 红壶", 40) == [2, 4, 5, 6, 7, 8, 3]
    assert words.encode("Red kettles 红壶", 4) == [2, 4, 5, 3]
    assert words.encode(" ", 40) == []
    assert pickle.loads(pickle.dumps(words)).encode("red", 9) == [2, 4, 3]
    with pytest.raises(UserError, match=r"no vocab.txt"):
        Words.bert(tmp_path / "elsewhere")


def test_a_batch_holds_every_clip_and_zeros_beyond_it(inputs):
    items = [inputs.item(clip(2)), inputs.item(clip(5)), inputs.nothing, inputs.item(clip(0, "boot"))]
    batch = inputs.collate(items, "live")
    assert batch.frames.shape == (4, 3, SIDE, SIDE, 3)
    assert batch.tokens.shape == (4, 6)
    assert batch.frame_count.tolist() == [2, 3, 0, 0]
    assert batch.token_count.tolist() == [len(item.tokens) for item in items]
    assert batch.token_count[2] == 0
    assert batch.token_count[3] > 0
    # Of five frames those at int(5/6), int(15/6), int(25/6).
    np.testing.assert_allclose(batch.frames[1].mean(axis=(1, 2, 3)), [0, 40, 80], atol=2)
    assert not batch.frames[0, 2].any()


def test_pages_have_one_frame(inputs):
    page = inputs.item(clip(1, domain="page"))
    assert inputs.collate([page, inputs.nothing], "page").frames.shape == (2, 1, SIDE, SIDE, 3)
    with pytest.raises(ValueError, match="2 frames of a page"):
        inputs.collate([inputs.item(clip(2))], "page")


def test_a_picture_that_cannot_be_read_or_has_another_size_is_named(inputs):
    with pytest.raises(UserError, match=r"cannot be read.*the clip"):
        inputs.item(ProductClip("the clip", "p", "page", (b"\xff\xd8 no",), ""))
    with pytest.raises(UserError, match=r"8×8 pixels.*the clip"):
        inputs.item(clip(side=8))


def test_it_is_counted_which_texts_are_cut(inputs):
    assert not inputs.cut("red")
    assert inputs.cut("red kettle and blue boot " * 4)
