"""Shards whose folder is in a bucket."""

import runpy
import shutil
from pathlib import Path

import pytest

from evads_jax.data import bucket as shards_in_bucket
from evads_jax.data import prepare, shards
from evads_jax.data.records import Question, VideoRecord
from evads_jax.errors import UserError
from evads_jax.storage import local_folder

CONFIG = Path(__file__).parents[2] / "configs" / "mg_grpo.py"
URL, SPLITS = "gs://shelf/shards", ("sft", "test")


def record(index):
    return VideoRecord(f"v{index}", (bytes([index]) * 50,), (0.0,), 1.0, (Question(f"{index}", "?", "!"),))


def make(first=0):
    """Shards made on this machine and put into the bucket, as `data.prepare` does it."""
    local = shards_in_bucket.fetched(URL, SPLITS)
    for split in SPLITS:
        shards.write([record(first + i) for i in range(5)], local / split, split=split, per_shard=2)
    shards_in_bucket.upload(local, URL, SPLITS)
    return local


def test_shards_made_on_one_machine_are_opened_on_another(bucket, other_machine):
    local = make()
    for split in SPLITS:
        assert [name for name in bucket.puts if split in name][-1] == f"shards/{split}/manifest.json"
    puts = len(bucket.puts)
    assert make() == local  # made, and there
    assert len(bucket.puts) == puts
    other_machine()
    assert list(shards.open(URL, "test")) == [record(i) for i in range(5)]
    assert not (local_folder(URL) / "sft").exists()  # nobody asked for it
    assert local_folder(URL) != local


def test_only_what_is_not_here_is_fetched(bucket):
    local = make()
    (local / "sft" / "shard-00001.array_record").unlink()
    kept = local / "sft" / "shard-00000.array_record"
    before = kept.stat().st_mtime_ns
    assert len(shards.open(URL, "sft")) == 5
    assert kept.stat().st_mtime_ns == before


def test_shards_of_another_recipe_replace_those_in_the_bucket_behind_no_manifest(bucket):
    make()
    bucket.dies_at = "sft/shard-00001.array_record"
    with pytest.raises(UserError, match="cannot use the bucket"):
        make(first=10)
    assert "shards/sft/manifest.json" not in bucket.objects  # some of them are new, some old
    assert "shards/test/manifest.json" in bucket.objects
    bucket.dies_at, bucket.dead = None, False
    local = make(first=10)
    shutil.rmtree(local)
    assert list(shards.open(URL, "sft")) == [record(10 + i) for i in range(5)]


def test_a_damaged_or_missing_shard_in_the_bucket_is_named(bucket, other_machine):
    make()
    other_machine()
    name = "shards/sft/shard-00001.array_record"
    data = bucket.objects[name].data
    bucket.put(name, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UserError, match=f"its hash is not the manifest's .gs://shelf/{name}"):
        shards.open(URL, "sft")
    bucket.delete(name)
    with pytest.raises(UserError, match=f"it is missing .gs://shelf/{name}"):
        shards.open(URL, "sft")
    with pytest.raises(UserError, match="no finished shards"):
        shards.open("gs://shelf/absent", "sft")


def test_a_run_prepares_shards_for_the_bucket_and_another_one_uses_them(bucket, other_machine, tmp_path):
    config = runpy.run_path(str(CONFIG))["get_config"]()
    config.data.update({f"videos_{split}": 1 for split in prepare.SPLITS}, shards=URL, max_frames=1)
    first = prepare.prepare(config, tmp_path, print)
    other_machine()
    config.data.source = "annotations"  # of which there are none: nothing is made
    again = prepare.prepare(config, tmp_path, print)
    assert {split: list(source) for split, source in again.items()} == {s: list(made) for s, made in first.items()}
    assert not any(tmp_path.joinpath("shards").glob("*"))
