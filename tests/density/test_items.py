"""Where videos come from."""

import dataclasses
import os

import pytest

from density.films import film
from evads_jax.data import annotations, media, shards
from evads_jax.data.records import Event, Example, Question, VideoRecord
from evads_jax.density import items as listing
from evads_jax.density.extract.transcripts import READERS
from evads_jax.density.items import (
    Corpus,
    Item,
    from_annotations,
    from_shards,
    from_videos,
    with_annotations,
    with_transcripts,
)
from evads_jax.density.measurement import Measurement
from evads_jax.errors import UserError

EVENTS = (Event(0, 1, ("限时特价",), "今天"), Event(2, 2, (), "特价"))


def example(video: str, number: int, source: str) -> Example:
    return Example(Question(f"{video}-{number}", "问?", "答", "因"), video, "其他", 3, EVENTS, source=source)


def annotated(folder):
    folder.mkdir(exist_ok=True)
    annotations.write_sft(folder / annotations.FILES["sft"], [example("../videos/7.mp4", i, "sft") for i in range(3)])
    rl = dataclasses.replace(
        example("../videos/8.mp4", 0, "rl"), events=(Event(0, 1, (), "今天"),), judge_events=EVENTS
    )
    annotations.write_rl(folder / annotations.FILES["rl"], [rl])
    return folder


def test_the_rows_of_a_video_are_one_item_and_the_judges_events_count(tmp_path):
    items = from_annotations(annotated(tmp_path / "a")).items
    assert [i.name for i in items] == ["../videos/7.mp4", "../videos/8.mp4"]
    assert {(i.category, i.duration, i.events) for i in items} == {("其他", 3, EVENTS)}


def test_a_single_parquet_is_read_by_its_columns(tmp_path):
    folder = annotated(tmp_path / "a")
    for kind, video in (("sft", "../videos/7.mp4"), ("rl", "../videos/8.mp4")):
        moved = (folder / annotations.FILES[kind]).rename(tmp_path / f"{kind}_renamed.parquet")
        assert [i.name for i in from_annotations(moved).items] == [video]


def test_annotations_that_are_not_there_are_one_line(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    for path in ("nowhere", "x.parquet", "."):
        with pytest.raises(UserError):
            from_annotations(tmp_path / path)


def test_videos_are_found_below_the_folder_in_order(tmp_path):
    for name in ("b.mp4", "sub/a.MP4", "c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [i.name for i in from_videos(tmp_path).items] == ["b.mp4", "sub/a.MP4"]


def test_a_folder_without_videos_and_no_folder_are_one_line(tmp_path):
    with pytest.raises(UserError, match="no videos"):
        from_videos(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        from_videos(tmp_path / "nowhere")


def test_a_name_in_another_encoding_can_be_written_and_meets_its_transcript(tmp_path):
    name = os.fsdecode(b"\xb9\xe3")
    (tmp_path / f"{name}.mp4").write_bytes(b"x")
    (tmp_path / f"{name}.srt").write_text("", encoding="utf-8")
    [item] = with_transcripts(from_videos(tmp_path), tmp_path, READERS).items
    assert item.path == str(tmp_path / f"{name}.mp4")
    assert item.transcript == str(tmp_path / f"{name}.srt")
    assert rb"\udcb9\udce3.mp4" in Measurement(item.name, None, None).line().encode().replace(b"\\\\", b"\\")


def test_a_link_that_leads_nowhere_is_an_item_and_an_unreadable_folder_a_note(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").symlink_to(tmp_path / "gone.mp4")
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(listing.os, "scandir", scandir)
    corpus = from_videos(tmp_path)
    assert [item.name for item in corpus.items] == ["a.mp4"]
    [note] = corpus.notes
    assert "closed (Permission denied)" in note


def test_a_linked_folder_is_not_entered_and_told(tmp_path):
    for name in ("v/a.mp4", "elsewhere/b.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "v" / "more").symlink_to(tmp_path / "elsewhere")
    corpus = from_videos(tmp_path / "v")
    assert [item.name for item in corpus.items] == ["a.mp4"]
    assert corpus.notes == (f"folder that is a link, not entered: {tmp_path / 'v' / 'more'}",)


def test_a_video_that_changed_is_another_item(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    before = from_videos(tmp_path).items
    (tmp_path / "a.mp4").write_bytes(b"xy")
    assert from_videos(tmp_path).items != before


def test_annotations_join_videos_by_name_and_the_lost_ones_are_told(tmp_path):
    videos = Corpus((Item("7.mp4", path="7.mp4"), Item("9.mp4", path="9.mp4")))
    joined = with_annotations(videos, from_annotations(annotated(tmp_path / "a")))
    assert [(i.path, i.category, i.events) for i in joined.items] == [("7.mp4", "其他", EVENTS), ("9.mp4", None, None)]
    assert joined.notes == ("annotation that matches no video: 8",)


def test_transcripts_join_by_name_and_those_without_a_video_are_told(tmp_path):
    for name in ("7.srt", "8.srt"):
        (tmp_path / name).write_text("", encoding="utf-8")
    videos = Corpus((Item("7.mp4", path="7.mp4"), Item("9.mp4", path="9.mp4")))
    joined = with_transcripts(videos, tmp_path, READERS)
    assert [i.transcript for i in joined.items] == [str(tmp_path / "7.srt"), None]
    assert joined.notes == ("transcript that matches no video: 8.srt",)
    (tmp_path / "7.srt").unlink()
    with pytest.raises(UserError, match=r"no transcript matches a video.*8\.srt"):
        with_transcripts(videos, tmp_path, READERS)


def test_annotations_of_other_videos_are_one_line(tmp_path):
    videos = Corpus((Item("9.mp4", path="9.mp4"),))
    with pytest.raises(UserError, match=r"no annotation matches a video.*named 7, 8"):
        with_annotations(videos, from_annotations(annotated(tmp_path / "a")))


def test_of_two_transcripts_of_a_video_one_is_read_and_the_other_told(tmp_path):
    for name in ("7.srt", "7.vtt"):
        (tmp_path / name).write_text("", encoding="utf-8")
    joined = with_transcripts(Corpus((Item("7.mp4", path="7.mp4"),)), tmp_path, READERS)
    assert joined.items[0].transcript == str(tmp_path / "7.srt")
    assert joined.notes == ("second transcript of one video, left out: 7.vtt",)


def test_a_name_that_videos_of_two_folders_share_is_told_with_what_they_both_get(tmp_path):
    videos = Corpus(tuple(Item(f"{folder}/{n}.mp4") for folder in "ab" for n in (7, 9)))
    joined = with_annotations(videos, from_annotations(annotated(tmp_path / "a")))
    assert "annotation that 2 videos of one name share: 7" in joined.notes
    assert not any("9" in note for note in joined.notes)
    (tmp_path / "9.srt").write_text("", encoding="utf-8")
    assert "transcript that 2 videos of one name share: 9" in with_transcripts(videos, tmp_path, READERS).notes


def test_shards_give_their_records_and_their_broken_items(tmp_path):
    played = media.decode(film(tmp_path / "a.mp4", scenes=1, seconds=2), 1, 6, 64)
    frames = tuple(map(media.encode_jpeg, played.frames))
    made = [VideoRecord(str(i), frames, played.times, 2.0, ()) for i in range(3)]

    def make(i: int):
        return made[i] if i < 3 else shards.Broken("gone", "truncated", "half of it")

    shards.build(make, 4, tmp_path / "s" / "train", split="train", recipe={}, per_shard=2)
    items = from_shards(tmp_path / "s").items
    assert [i.name for i in items] == [f"train/shard-0000{k}.array_record:{i}" for k, i in ((0, 0), (0, 1), (1, 0))] + [
        "gone"
    ]
    assert items[-1].broken == ("truncated", "half of it")
    assert from_shards(tmp_path / "s", "train").items == from_shards(tmp_path / "s" / "train").items == items
    with pytest.raises(UserError, match="no finished shards"):
        from_shards(tmp_path / "s", "test")
