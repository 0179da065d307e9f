"""Folders that are only read: what of them comes from the bucket, when, and what they are called."""

from pathlib import Path

import pytest

from evads_jax import storage
from evads_jax.errors import UserError
from evads_jax.storage import folders

URL = "gs://shelf/runs/one"
HELD = {"config.json": b"{}", "evaluation/sft/summary.json": b"{}", "shards/test/shard-0": b"large"}


@pytest.fixture
def run(bucket):
    """A run in the bucket, as its job left it."""
    with storage.run_folder(URL) as workdir:
        for name, content in HELD.items():
            (workdir / name).parent.mkdir(parents=True, exist_ok=True)
            (workdir / name).write_bytes(content)
        for line in range(3):
            with (workdir / "events.jsonl").open("a") as file:
                file.write(f"{line}\n")
            storage.push(workdir)
    bucket.put("runs/one/checkpoints/sft/2/state/array", b"huge")
    bucket.reads.clear()
    return bucket


@pytest.fixture
def later():
    """As if another process asked from here on."""
    return folders._BROUGHT.clear


def files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != ".bucket.json"}


def test_only_what_is_wanted_is_brought_and_logs_are_put_together(run):
    copy = storage.fetched(URL, "config.json", "events.jsonl", "evaluation")
    assert files(copy) == {"config.json", "events.jsonl", "evaluation/sft/summary.json"}
    assert (copy / "events.jsonl").read_text() == "0\n1\n2\n"
    assert copy.name == "one"
    assert not [name for name in run.reads if "shards" in name or "checkpoints" in name]
    puts = list(run.puts)
    assert storage.fetched(copy, "shards") == copy  # a copy stands for its folder
    assert files(storage.fetched(URL)) == {*HELD, "events.jsonl"}
    assert run.puts == puts


def test_what_is_here_already_is_brought_again_only_where_the_bucket_holds_another_one(run, later):
    copy = storage.fetched(URL, "config.json", "evaluation")
    before = len(run.reads)
    assert storage.fetched(URL, "config.json", "evaluation") == copy
    assert len(run.reads) == before
    run.put("runs/one/config.json", b'{"a": 1}')
    run.delete("runs/one/evaluation/sft/summary.json")
    assert storage.fetched(URL, "config.json", "evaluation") == copy  # this process sees one state
    assert (copy / "config.json").read_bytes() == b"{}"
    later()
    storage.fetched(URL, "config.json")
    assert (copy / "config.json").read_bytes() == b'{"a": 1}'
    assert files(copy) == {"config.json", "evaluation/sft/summary.json"}  # nobody asked about the other
    later()
    storage.fetched(URL, "config.json", "evaluation")
    assert files(copy) == {"config.json"}
    assert [name for name in run.reads[before:] if name.endswith(".json")] == ["runs/one/config.json"]


def test_a_large_file_that_was_uploaded_in_parts_is_known_by_its_other_digest(run, later):
    run.composite.add("runs/one/shards/test/shard-0")
    copy = storage.fetched(URL, "shards")
    later()
    storage.fetched(URL, "shards")
    assert run.reads.count("runs/one/shards/test/shard-0") == 1
    (copy / "shards/test/shard-0").write_bytes(b"LARGE")
    later()
    storage.fetched(URL, "shards")
    assert (copy / "shards/test/shard-0").read_bytes() == b"large"


@pytest.mark.parametrize("arrives", [b"larg", b"LARGE", None])
def test_a_file_that_does_not_arrive_as_it_was_listed_is_refused(run, monkeypatch, arrives):
    def get_file(self, name, path):
        if arrives is None:  # deleted meanwhile
            raise FileNotFoundError(name)
        path.write_bytes(arrives)

    monkeypatch.setattr(storage.Bucket, "get_file", get_file)
    with pytest.raises(UserError, match=f"changed while it was fetched.*{URL}/shards/test/shard-0"):
        storage.fetched(URL, "shards")
    assert not files(folders.copy_folder(URL))


def test_what_is_not_there_is_told_in_one_line(run):
    for url, wanted, told in (
        ("gs://nowhere/run", ("config.json",), r"no such bucket .gs://nowhere/run"),
        ("gs://shelf/runs/two", ("config.json", "tokenizer"), r"no config.json or tokenizer .*.gs://shelf/runs/two"),
        ("gs://shelf/runs/two", (), r"there is nothing in this folder of the bucket .gs://shelf/runs/two"),
    ):
        with pytest.raises(UserError, match=told):
            storage.fetched(url, *wanted)
    assert not files(storage.fetched("gs://shelf/runs/two", "config.json", required=False))


def test_a_local_folder_is_itself(tmp_path):
    assert storage.fetched(tmp_path, "config.json") == tmp_path
    assert storage.fetched("runs/one") == Path("runs/one")
    assert storage.name_of("runs/one") == "runs/one"
    assert storage.address(tmp_path) == tmp_path


def test_mirrors_and_copies_are_called_by_what_they_are_in_the_bucket(run):
    copy = storage.fetched(URL, "config.json")
    assert storage.name_of(copy / "tokenizer") == f"{URL}/tokenizer"
    assert storage.name_of("gs:/shelf/runs/one/shards") == f"{URL}/shards"  # what Path made of it
    assert str(storage.address(copy / "checkpoints" / "sft")) == f"{URL}/checkpoints/sft"
    assert storage.address(f"{URL}/checkpoints/sft/2/state/array").read_bytes() == b"huge"
    with storage.run_folder("gs://shelf/runs/two") as workdir:
        assert storage.name_of(workdir) == "gs://shelf/runs/two"
        # What lies in the run's own mirror is there, and not read from the bucket.
        assert storage.fetched("gs://shelf/runs/two/seed1", "config.json") == workdir / "seed1"
        assert storage.inside("gs://shelf/runs/twofold") is None
    assert storage.name_of(workdir) == str(workdir)


def test_a_pattern_names_folders_of_a_bucket_as_a_shell_would(bucket):
    for name in ("s/seed1/mg/config.json", "s/seed1/r5/config.json", "s/seed2/mg/deep/er.json", "s/.hidden/mg/x",
                 "s/seed3", "s/tables/main.md", "s/seed4/mg"):  # fmt: skip
        bucket.put(name, b"x")
    found = {pattern: storage.matching(f"gs://shelf/{pattern}") for pattern in ("s/seed*/mg", "s/seed[13]/*", "s/x")}
    assert found == {
        "s/seed*/mg": ["gs://shelf/s/seed1/mg", "gs://shelf/s/seed2/mg"],
        "s/seed[13]/*": ["gs://shelf/s/seed1/mg", "gs://shelf/s/seed1/r5"],
        "s/x": ["gs://shelf/s/x"],
    }
    assert storage.matching("gs://shelf/*") == ["gs://shelf/s"]
    with pytest.raises(UserError, match="no such bucket"):
        storage.matching("gs://nowhere/*")


def test_folders_of_one_name_have_copies_of_their_own():
    one, other = (folders.copy_folder(f"gs://shelf/{name}/run") for name in ("a", "b"))
    assert one.name == other.name == "run"
    assert one != other
