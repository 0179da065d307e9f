"""Videos of shards, read ahead of the measurement."""

import dataclasses
import time

import numpy as np
import pytest

from density.films import film
from evads_jax.data import media, serial, shards
from evads_jax.data.records import VideoRecord
from evads_jax.density.scale import records
from evads_jax.density.scale.decoder import Failure
from evads_jax.density.scale.records import ShardVideos

VIDEOS = 6


def record(name: str, path) -> VideoRecord:
    played = media.decode(path, 1, 3, 32)
    frames = tuple(map(media.encode_jpeg, played.frames))
    return VideoRecord(name, frames, played.times, played.duration, (), media.encode_flac(played.audio))


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    made = record("", film(folder / "a.mp4", scenes=2, audio=True))
    shards.write([dataclasses.replace(made, video=f"v{i}") for i in range(VIDEOS)], folder / "all", split="all")
    [file] = (folder / "all").glob("*.array_record")
    return str(file)


def test_videos_come_in_any_order_with_their_frames_and_sound(shard):
    videos = ShardVideos()
    for position in (0, 1, 2, 5, 3, 4, 4):
        found, played = videos(shard, position)
        assert found.video == f"v{position}"
        assert len(played.frames) == len(found.frames)
        assert np.array_equal(played.audio, media.decode_flac(found.audio))
    videos.close()


def test_in_order_the_next_videos_are_read_while_one_is_measured_and_none_is_read_twice(shard, monkeypatch):
    read = []
    unpack = serial.unpack
    monkeypatch.setattr(records.serial, "unpack", lambda data: read.append(found := unpack(data)) or found)
    videos = ShardVideos()
    videos(shard, 2)
    deadline = time.monotonic() + 30
    while len(read) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(read) > 1
    for position in range(3, VIDEOS):
        videos(shard, position)
    assert sorted(r.video for r in read) == [f"v{i}" for i in range(2, VIDEOS)]
    videos.close()


def test_with_nothing_ahead_only_what_is_asked_for_is_read(shard, monkeypatch):
    read = []
    unpack = serial.unpack
    monkeypatch.setattr(records.serial, "unpack", lambda data: read.append(found := unpack(data)) or found)
    videos = ShardVideos(ahead=False)
    assert [videos(shard, position)[0].video for position in (1, 2, 5)] == ["v1", "v2", "v5"]
    assert [r.video for r in read] == ["v1", "v2", "v5"]


def test_a_record_that_cannot_be_read_or_decoded_costs_only_itself(shard, monkeypatch):
    unpack = serial.unpack

    def faulty(data):
        found = unpack(data)
        if found.video == "v1":
            raise ValueError("not a record")
        return dataclasses.replace(found, frames=(b"no JPEG",)) if found.video == "v3" else found

    monkeypatch.setattr(records.serial, "unpack", faulty)
    videos = ShardVideos()
    found = [videos(shard, position) for position in range(VIDEOS)]
    assert [r and r.video for r, _ in found] == ["v0", None, "v2", "v3", "v4", "v5"]
    failed = [played.kind if isinstance(played, Failure) else None for _, played in found]
    assert failed == [None, "bad_record", None, "bad_record", None, None]


def test_a_file_that_is_gone_or_shorter_is_a_failure_and_the_next_file_is_read(shard, tmp_path):
    videos = ShardVideos()
    assert videos(str(tmp_path / "gone.array_record"), 0)[1].kind == "bad_record"
    assert videos(shard, VIDEOS)[1] == Failure("bad_record", f"the shard ends before record {VIDEOS}")
    assert videos(shard, 0)[0].video == "v0"
