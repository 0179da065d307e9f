import sys

import pytest

from evads_jax.errors import UserError
from evads_jax.storage import Bucket, same, url_of


@pytest.fixture
def store(bucket):
    return Bucket("gs://shelf/a/run")


def test_objects_are_put_listed_read_replaced_and_deleted(bucket, store, tmp_path):
    assert store.list() == {}
    assert store.get("x") is None
    store.put("x", b"one")
    store.put("deep/er 价.json", b"\r\n{}\n\n--==0==\n")
    (tmp_path / "file").write_bytes(b"from a file")
    store.put("y", tmp_path / "file")
    Bucket("gs://shelf/a/runner").put("z", b"a neighbour's")
    assert store.get("deep/er 价.json") == b"\r\n{}\n\n--==0==\n"
    assert store.list().keys() == {"x", "deep/er 价.json", "y"}
    assert same(tmp_path / "file", store.list()["y"])
    store.put("x", b"")
    assert store.get("x") == b""
    store.delete("x")
    store.delete("x")  # it is gone
    assert store.get("x") is None
    assert set(bucket.objects) == {"a/run/deep/er 价.json", "a/run/y", "a/runner/z"}


def test_a_large_file_goes_up_in_pieces_and_comes_back_whole(bucket, store, tmp_path):
    data = bytes(range(256)) * (6 << 12)
    (tmp_path / "large").write_bytes(data)
    store.put("large", tmp_path / "large")
    assert len(bucket.sessions) >= 1  # resumable
    assert bucket.puts == ["a/run/large"]
    store.get_file("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    with pytest.raises(FileNotFoundError):
        store.get_file("absent", tmp_path / "absent")
    with pytest.raises(FileNotFoundError):
        store.put("absent", tmp_path / "absent")


def test_a_new_object_does_not_replace_another_ones(store):
    store.put("part", b"ours", new=True)
    store.put("part", b"ours", new=True)  # the answer to the first was lost
    with pytest.raises(UserError, match="another process writes"):
        store.put("part", b"theirs", new=True)
    assert store.get("part") == b"ours"


def test_a_bucket_that_is_not_there_or_not_ours_is_told_in_one_line(bucket, store):
    absent = Bucket("gs://nowhere/run")
    for attempt in (absent.list, lambda: absent.put("x", b"")):
        with pytest.raises(UserError, match=r"no such bucket \[gs://nowhere/run"):
            attempt()
    bucket.dies_at = "x"
    with pytest.raises(UserError, match=r"cannot use the bucket: Forbidden.*\[gs://shelf/a/run/x\]"):
        store.put("x", b"")


def test_a_missing_client_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match=r"not installed \[gs://shelf/run\]: pip install 'evads_jax\[gcs\]'"):
        Bucket("gs://shelf/run")


def test_the_name_of_a_folder_in_a_bucket():
    assert url_of("gs://shelf/a/run/") == "gs://shelf/a/run"
    assert url_of("gs:/shelf/run") == "gs://shelf/run"  # what Path makes of it
    assert [url_of(path) for path in (None, "", "runs/gs://x", "/gs/shelf")] == [None] * 4
    with pytest.raises(UserError, match="no folder in the bucket"):
        url_of("gs://shelf")
