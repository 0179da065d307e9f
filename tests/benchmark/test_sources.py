"""Parquet, JSONL and shards as questions: what is missing is told and keeps its questions."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ml_collections import ConfigDict

from evads_jax.benchmark import sources
from evads_jax.benchmark.files import NoVideo, Split
from evads_jax.data import media, shards
from evads_jax.data.annotations import SCHEMAS, write_test
from evads_jax.data.records import Event, Example, Question
from evads_jax.errors import UserError

from .small_world import make_record

DEFAULTS = {"frame_rate": 1.0, "max_frames": 4, "frame_size": 32}


def data(**fields):
    names = ("shards", "parquet", "jsonl", "videos", *DEFAULTS)
    return ConfigDict({**dict.fromkeys(names), "limit": 0, "max_bad_share": 0.0, **fields})


def examples(count=3):
    return [
        Example(
            Question(f"{v}-{t}", f"What of {v}?", "Red.", "It is seen.", t),
            str(v), "家用电器", 2, (Event(0, 1, (), "买它"),), (Event(0, 1, ("特价",), "买它"),), "test",
        )
        for v in range(count)
        for t in ("BP", "ML")
    ]  # fmt: skip


@pytest.fixture
def published(tmp_path):
    """A parquet of the published layout with three videos, of which one is missing and one is no video."""
    write_test(tmp_path / "test.parquet", examples())
    (tmp_path / "videos").mkdir()
    frames = [np.full((32, 48, 3), 60 * i, np.uint8) for i in range(4)]
    media.write_mp4(tmp_path / "videos" / "0.mp4", frames, rate=2.0)
    (tmp_path / "videos" / "1.mp4").write_bytes(b"not a video")
    return {"parquet": str(tmp_path / "test.parquet"), "videos": str(tmp_path / "videos")}


def test_a_parquet_keeps_the_questions_of_videos_that_are_missing_or_broken(published):
    source = sources.find(data(**published), DEFAULTS, multiple=16)
    assert [e.question.id for e in source.split.examples] == ["0-BP", "0-ML", "1-BP", "1-ML", "2-BP", "2-ML"]
    assert source.missing == ("2",)
    assert "1 of 3 videos are missing (2): their 2 questions count 0 in ALL" in source.notes[0]
    record = source.split.records[0]
    assert len(record.frames) == 2
    assert media.decode_jpeg(record.frames[0]).shape == (16, 32, 3)
    assert record.judge_events == (Event(0, 1, ("特价",), "买它"),)
    with pytest.raises(NoVideo, match="undecodable"):
        source.split.records[1]
    with pytest.raises(NoVideo, match="missing"):
        source.split.records[2]


def test_the_hash_of_a_split_is_that_of_its_questions_wherever_they_come_from(published, tmp_path):
    source = sources.find(data(**published), DEFAULTS)
    records = [make_record(n) for n in range(2)]
    rows = [tuple(record.examples()) for record in records]
    assert Split.annotated(records, rows).hash == Split.of(records).hash != source.split.hash


def test_frames_are_taken_as_the_config_says_where_it_says_so(published):
    source = sources.find(data(**published, frame_rate=2.0, max_frames=3), DEFAULTS)
    assert source.sampling == {"frame_rate": 2.0, "max_frames": 3, "frame_size": 32}
    assert len(source.split.records[0].frames) == 3


def test_a_parquet_of_other_types_is_told_by_its_column(published, tmp_path):
    table = pq.read_table(published["parquet"])
    numbers = pa.array(range(len(table)), pa.int64())
    changed = table.set_column(table.schema.get_field_index("ques_id"), "ques_id", numbers)
    pq.write_table(changed, tmp_path / "numbers.parquet")
    with pytest.raises(UserError, match="column ques_id is int64, not string"):
        sources.find(data(**published | {"parquet": str(tmp_path / "numbers.parquet")}), DEFAULTS)
    pq.write_table(table.drop_columns(["evidence"]), tmp_path / "fewer.parquet")
    with pytest.raises(UserError, match="no column 'evidence'"):
        sources.find(data(**published | {"parquet": str(tmp_path / "fewer.parquet")}), DEFAULTS)
    rows = table.to_pylist()
    rows[3]["ques_categories"] = "price"
    pq.write_table(pa.Table.from_pylist(rows, SCHEMAS["test"]), tmp_path / "label.parquet")
    with pytest.raises(UserError, match=r"1 of 6 rows are malformed.*row 3: ques_categories is 'price'"):
        sources.find(data(**published | {"parquet": str(tmp_path / "label.parquet")}), DEFAULTS)


def test_ones_own_questions_keep_those_of_missing_videos(tmp_path):
    rows = [{"video": f"{n}.mp4", "question": "Why?", "answer": "Because."} for n in "ab"]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    media.write_mp4(tmp_path / "a.mp4", [np.zeros((32, 32, 3), np.uint8)] * 2, rate=1.0)
    source = sources.find(data(jsonl=str(tmp_path / "q.jsonl")), DEFAULTS)
    assert len(source.split.examples) == 2
    assert source.missing == ("b.mp4",)
    assert len(source.split.records[0].frames) == 2


def test_shards_are_taken_as_they_were_made(tmp_path):
    recipe = {"language": "en", "sampling": {"frame_rate": 1.0, "max_frames": 2, "size": 16, "multiple": 8}}
    shards.build(make_record, 3, tmp_path / "s" / "test", split="test", recipe=recipe, per_shard=2, workers=0)
    source = sources.find(data(), DEFAULTS, default_shards=tmp_path / "s")
    assert source.sampling == {"frame_rate": 1.0, "max_frames": 2, "frame_size": 16}
    assert source.language == "en"
    assert len(source.split.examples) == 15
    first = sources.find(data(shards=str(tmp_path / "s"), limit=2), DEFAULTS).split
    assert first.examples == source.split.examples[:10]
    assert [first.records[i].video for i in range(len(first.records))] == ["v0", "v1"]
    assert len(sources.find(data(shards=str(tmp_path / "s"), limit=9), DEFAULTS).split.records) == 3
    with pytest.raises(UserError, match="shards have max_frames 2, the config asks for 8"):
        sources.find(data(shards=str(tmp_path / "s"), max_frames=8), DEFAULTS)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "nothing to evaluate on"),
        ({"parquet": "a", "shards": "b"}, "several sources"),
        ({"parquet": "nowhere.parquet"}, "no folder of videos"),
        ({"parquet": "nowhere.parquet", "videos": "."}, "missing parquet"),
        ({"shards": "nowhere"}, "no finished shards"),
        ({"jsonl": "nowhere.jsonl"}, "no such file of questions"),
    ],
)
def test_what_is_not_there_is_told(fields, told):
    with pytest.raises(UserError, match=told):
        sources.find(data(**fields), DEFAULTS)
