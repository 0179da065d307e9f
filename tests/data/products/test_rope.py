"""ROPE's files: read, checked line by line, and what cannot be had counted or refused."""

import pytest
from PIL import Image

from evads_jax.data.products.records import Lost, ProductRecord
from evads_jax.data.products.rope import Layout, ReadRope, RopeClip, RopeProduct, read_rope
from evads_jax.data.shards import Broken
from evads_jax.errors import UserError

from .rope_files import write_pictures, write_rope


@pytest.fixture
def rope(tmp_path):
    write_rope(tmp_path / "rope")
    write_pictures(tmp_path / "pictures")
    return tmp_path


def reader(rope, products, refuse=False, frames=2):
    return ReadRope(products, rope / "pictures", frames, 16, refuse)


def test_products_come_with_their_clips_texts_and_pictures_in_order(rope):
    products = read_rope(rope / "rope", "train")
    assert [p.product for p in products] == ["A", "B", "C"]
    assert products[0].clips == (
        RopeClip("p1", "page", "red kettle", ("p1.jpg",)),
        RopeClip("v1", "video", "look at this", ("v1_0.jpg", "v1_1.jpg", "v1_2.jpg")),
        RopeClip("v2", "video", "again", ("v2_0.jpg",)),
        RopeClip("l1", "live", "", ("l1_0.jpg", "l1_1.jpg")),
    )
    assert products[1].clips[0].text == ""


@pytest.mark.parametrize(("separator", "swapped"), [("\t", True), (" ", False), (",", False)])
def test_another_separator_or_order_of_columns_is_said_by_the_config(tmp_path, separator, swapped):
    write_rope(tmp_path, separator=separator, swapped=swapped)
    layout = Layout(separator, ("product", "clip") if swapped else ("clip", "product"))
    write_rope(tmp_path / "plain")
    assert read_rope(tmp_path, "train", layout) == read_rope(tmp_path / "plain", "train")


def test_columns_the_other_way_round_are_noticed(tmp_path):
    write_rope(tmp_path, swapped=True)
    with pytest.raises(UserError, match="pair_columns"):
        read_rope(tmp_path, "train")


def test_a_line_without_separator_and_a_missing_file_are_told_with_their_place(rope):
    path = rope / "rope" / "training_video_asrs.txt"
    path.write_text("v1\tgood\nv2 bad\n")
    with pytest.raises(UserError, match=r"training_video_asrs.txt:2"):
        read_rope(rope / "rope", "train")
    path.unlink()
    with pytest.raises(UserError, match="training_video_asrs"):
        read_rope(rope / "rope", "train")
    with pytest.raises(UserError, match="no split"):
        read_rope(rope / "rope", "validation")


def test_two_texts_of_a_clip_and_a_clip_of_two_products_are_refused(rope):
    (rope / "rope" / "training_page_titles.txt").write_text("p1\tone\np1\ttwo\n")
    with pytest.raises(UserError, match="two texts of 'p1'"):
        read_rope(rope / "rope", "train")
    (rope / "rope" / "training_product_pages_pair.txt").write_text("p1\tA\np1\tB\n")
    with pytest.raises(UserError, match="belongs to 'A' and to 'B'"):
        read_rope(rope / "rope", "train")


def test_at_most_so_many_clips_of_a_domain_are_kept(rope):
    first, *_ = read_rope(rope / "rope", "train", most=1)
    assert [clip.domain for clip in first.clips] == ["page", "video", "live"]


def test_spaces_in_a_list_of_clips_and_a_byte_order_mark_lose_no_clip(rope):
    path = rope / "rope" / "training_product_videos_pair.txt"
    path.write_text("v1, v2,\tA\n", encoding="utf-8-sig")
    path = rope / "rope" / "training_page_titles.txt"
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    first, *_ = read_rope(rope / "rope", "train")
    assert [(clip.id, clip.text) for clip in first.clips[:3]] == [
        ("p1", "red kettle"), ("v1", "look at this"), ("v2", "again")
    ]  # fmt: skip


def test_of_a_page_with_several_pictures_the_first_is_taken(rope):
    clips = tuple(RopeClip(f"c {d}", d, "said", ("v1_0.jpg", "v1_1.jpg", "v1_2.jpg")) for d in ("page", "video"))
    record = reader(rope, (RopeProduct("A", clips),))(0)
    page, video = record.clips
    assert page.frames == video.frames[:1]
    assert len(video.frames) == 2


def test_a_record_has_the_frames_of_the_released_rule_in_the_models_size(rope):
    products = read_rope(rope / "rope", "train")
    record = reader(rope, products)(0)
    assert isinstance(record, ProductRecord)
    assert [len(clip.frames) for clip in record.clips] == [1, 2, 1, 2]
    assert record.lost == ()
    whole = reader(rope, products, frames=3)(0)
    # Of three frames two are taken: numbers int(.75) and int(2.25).
    assert record.of("video")[0].frames == (whole.of("video")[0].frames[0], whole.of("video")[0].frames[2])


def test_a_product_without_any_pair_is_listed_or_refused(rope):
    products = read_rope(rope / "rope", "train")
    assert reader(rope, products)(1) == Broken("B", "no_pair", "clips in page")
    with pytest.raises(UserError, match=r"without any pair.*B"):
        reader(rope, products, refuse=True)(1)


def test_a_picture_too_large_to_be_one_is_listed_too(rope, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # the file's 600 are more than twice that
    record = reader(rope, read_rope(rope / "rope", "train"))(0)
    assert {lost.clip for lost in record.lost if lost.kind == "undecodable"} == {"p1", "v1", "v2", "l1"}
    assert [clip.id for clip in record.clips] == ["p1", "v1", "v2"]  # what is left of them is their text


def test_missing_and_corrupt_pictures_are_listed_by_name_or_refused(rope):
    (rope / "pictures" / "v1_0.jpg").write_bytes(b"\xff\xd8 no picture")
    (rope / "pictures" / "p1.jpg").unlink()
    products = read_rope(rope / "rope", "train")
    record = reader(rope, products)(0)
    assert [(lost.clip, lost.kind) for lost in record.lost] == [("p1", "missing"), ("v1", "undecodable")]
    assert record.of("page")[0].frames == ()  # its title is left
    assert len(record.of("video")[0].frames) == 1
    with pytest.raises(UserError, match=r"missing: p1.jpg"):
        reader(rope, products, refuse=True)(0)


def test_a_clip_with_neither_picture_nor_text_is_no_clip(rope):
    product = RopeProduct("A", (RopeClip("p1", "page", "t", ()), RopeClip("v", "video", "", ("gone.jpg",))))
    assert reader(rope, (product,))(0) == Broken("A", "no_pair", "clips in page")
    both = RopeProduct("A", (*product.clips, RopeClip("l", "live", "said", ())))
    record = reader(rope, (both,))(0)
    assert Lost("v", "empty", "neither a picture nor a text") in record.lost
