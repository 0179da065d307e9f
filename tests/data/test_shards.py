"""Shards: killed, filled up and damaged."""

import dataclasses
import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.data import serial, shards
from evads_jax.data.records import Event, Question, RubricPoint, VideoRecord
from evads_jax.data.shards import Broken, RecordSource
from evads_jax.errors import UserError
from tests.train.side_by_side import side_by_side

ITEMS, PER_SHARD = 23, 4


def record(index: int) -> VideoRecord:
    questions = tuple(Question(f"{index}-{k}", "?", "!") for k in range(1 + index % 3))
    return VideoRecord(f"v{index}", (bytes([index]) * 5000, b"b"), (0.0, 1.0), 2.0, questions, audio=b"sound")


def make(index: int) -> VideoRecord | Broken:
    return Broken(f"v{index}", "empty", "0 bytes") if index in (5, 6) else record(index)


def build(folder, maker=make, count=ITEMS, recipe=None, **options) -> shards.Manifest:
    recipe = {"a": 1} if recipe is None else recipe
    return shards.build(maker, count, folder, split="sft", recipe=recipe, per_shard=PER_SHARD, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    build(folder)
    return folder


def test_records_come_back_as_they_were_and_broken_items_are_listed_not_replaced(whole):
    source = RecordSource(whole, "sft")
    assert list(source) == [record(i) for i in range(ITEMS) if i not in (5, 6)]
    assert source.manifest.broken == (Broken("v5", "empty", "0 bytes"), Broken("v6", "empty", "0 bytes"))
    assert source.questions == tuple(len(r.questions) for r in source)


def test_worker_processes_write_the_same_bytes(whole, tmp_path):
    build(tmp_path, workers=2)
    assert contents(tmp_path) == contents(whole)


KILLED = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_shards import build, make

def slow(index):
    time.sleep(0.02)
    return make(index)

if __name__ == "__main__":
    build(Path({folder!r}), maker=slow, workers={workers})
"""


@pytest.mark.parametrize(("workers", "wanted"), [(0, 1), (0, 3), (2, 2)])
def test_a_killed_run_goes_on_and_ends_with_the_bytes_of_an_uninterrupted_one(whole, tmp_path, workers, wanted):
    folder, program = tmp_path / "out", tmp_path / "killed.py"
    program.write_text(KILLED.format(tests=str(Path(__file__).parent), folder=str(folder), workers=workers))
    process = subprocess.Popen([sys.executable, str(program)])
    try:
        deadline = time.time() + 60
        while len(list(folder.glob("shard-*.json"))) < wanted and time.time() < deadline:
            assert process.poll() is None
            time.sleep(0.005)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (folder / "manifest.json").exists()
    done = sorted(folder.glob("shard-*.array_record"))
    assert 0 < len(done) < 6
    time.sleep(1.0 if workers else 0)  # orphaned workers notice and end
    before = done[0].stat().st_mtime_ns
    build(folder)
    assert done[0].stat().st_mtime_ns == before
    assert contents(folder) == contents(whole)


def test_finished_shards_are_reused_only_for_the_same_recipe(tmp_path):
    made = []

    def counted(index):
        made.append(index)
        return make(index)

    build(tmp_path, counted)
    build(tmp_path, counted)
    assert len(made) == ITEMS
    build(tmp_path, counted, recipe={"a": 2})
    assert len(made) == 2 * ITEMS
    build(tmp_path, counted, count=9, recipe={"a": 2})
    assert len(made) == 2 * ITEMS + 9
    assert len(list(tmp_path.glob("shard-*"))) == 3


def test_a_damaged_shard_is_made_again_by_the_job_that_made_it(whole, tmp_path):
    build(tmp_path)
    shard = tmp_path / "shard-00002.array_record"
    shard.write_bytes(b"x" + shard.read_bytes()[1:])
    build(tmp_path)
    assert contents(tmp_path) == contents(whole)


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 0x10
    path.write_bytes(data)


@given(at=st.floats(0, 1))
def test_a_flipped_byte_anywhere_is_refused_naming_the_shard(tmp_path_factory, at):
    folder = tmp_path_factory.mktemp("flip")
    shards.write([record(i) for i in range(3)], folder, split="rl", per_shard=2)
    flip(folder / "shard-00001.array_record", at)
    with pytest.raises(UserError, match="shard-00001") as caught:
        RecordSource(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_a_truncated_or_missing_shard_is_refused(tmp_path, damage):
    build(tmp_path)
    shard = tmp_path / "shard-00001.array_record"
    if damage == "gone":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[: 1000 if damage == "cut" else 0])
    with pytest.raises(UserError, match="shard-00001"):
        RecordSource(tmp_path)


def test_a_shard_whose_count_is_not_the_manifests_is_refused(tmp_path):
    manifest = build(tmp_path)
    shard = manifest.shards[0]
    forged = dataclasses.replace(manifest, shards=(dataclasses.replace(shard, questions=shard.questions[1:]),))
    shards.write_json(tmp_path / "manifest.json", dataclasses.asdict(forged))
    with pytest.raises(UserError, match="holds 4 records, the manifest says 3"):
        RecordSource(tmp_path)


def test_a_shard_that_is_damaged_while_it_is_read_says_so(tmp_path):
    build(tmp_path)
    source = RecordSource(tmp_path)
    path = tmp_path / "shard-00000.array_record"
    data = bytearray(path.read_bytes())
    data[len(data) // 3 :] = bytes(len(data) - len(data) // 3)
    path.write_bytes(data)
    source = pickle.loads(pickle.dumps(source))
    with pytest.raises(UserError, match="shard-00000"):
        list(source)


def test_an_unfinished_or_foreign_folder_is_refused(tmp_path, whole):
    with pytest.raises(UserError, match="no finished shards"):
        shards.open(tmp_path, "sft")
    with pytest.raises(UserError, match="not of 'rl'"):
        RecordSource(whole, "rl")


@pytest.mark.parametrize("where", ["write", "rename", "sidecar"])
def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path, monkeypatch, whole, where):
    def run_out(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "write":

        class Full(shards.array_record_module.ArrayRecordWriter):
            def write(self, data):
                run_out()

        monkeypatch.setattr(shards.array_record_module, "ArrayRecordWriter", Full)
    elif where == "rename":
        monkeypatch.setattr(shards, "sha256", run_out)
    else:
        monkeypatch.setattr(shards, "write_json", run_out)
    with pytest.raises(UserError, match="the disk is full") as caught:
        build(tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("shard-*.json"))
    assert not list(tmp_path.glob(".*"))
    monkeypatch.undo()
    build(tmp_path)
    assert contents(tmp_path) == contents(whole)


SMALL_DISK = 'mount -t tmpfs -o size=600k tmpfs "$1" && exec "$2" -c "$3" "$1"'
FILL = """
import os, sys
from evads_jax.data import shards
from evads_jax.data.records import VideoRecord
from evads_jax.errors import UserError
records = [VideoRecord(f"v{i}", (os.urandom(60_000),), (0.0,), 1.0, ()) for i in range(20)]
try:
    shards.write(records, sys.argv[1], split="sft", per_shard=4)
except UserError as error:
    print(error)
print(sorted(name for name in os.listdir(sys.argv[1])))
"""


def test_a_disk_that_is_really_full(tmp_path):
    command = ["unshare", "--mount", "sh", "-c", SMALL_DISK, "sh", str(tmp_path), sys.executable, FILL]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("mounting a small disk is not permitted here")
    line, left = done.stdout.splitlines()
    assert line.startswith("the disk is full")
    assert left == "['recipe.json', 'shard-00000.array_record', 'shard-00000.json']"


def test_a_fault_of_the_maker_is_not_called_a_fault_of_the_disk(tmp_path):
    def faulty(index):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        build(tmp_path, faulty)
    assert not list(tmp_path.glob(".*"))


events = st.builds(Event, st.integers(0, 99), st.integers(0, 99), st.tuples(st.text()), st.none() | st.text())
points = st.builds(RubricPoint, st.text(), st.tuples(st.text()), st.tuples(st.text(), st.text()), st.booleans())
questions = st.builds(
    Question, st.text(), st.text(), st.text(), st.text(), st.sampled_from([None, "BP"]), st.tuples(points)
)
records = st.builds(
    VideoRecord,
    video=st.text(),
    frames=st.lists(st.binary(), max_size=3).map(tuple),
    times=st.lists(st.floats(0, 1e6), max_size=3).map(tuple),
    duration=st.floats(0, 1e6),
    questions=st.lists(questions, max_size=2).map(tuple),
    audio=st.none() | st.binary(),
    category=st.none() | st.text(),
    annotated_duration=st.none() | st.integers(0, 999),
    events=st.lists(events, max_size=3).map(tuple),
    judge_events=st.none() | st.lists(events, max_size=2).map(tuple),
    facts=st.dictionaries(st.text(), st.text(), max_size=3),
)


@given(records)
def test_any_record_survives_packing(made):
    assert serial.unpack(serial.pack(made)) == made


@given(records, st.integers(1, 50))
def test_a_cut_record_is_refused(made, lost):
    data = serial.pack(made)
    with pytest.raises(ValueError, match=r"."):
        serial.unpack(data[: max(len(data) - lost, 0)])


def counting(made):
    def maker(index):
        made.append(index)
        return make(index)

    return maker


def test_processes_that_share_a_folder_divide_its_shards(whole, tmp_path, monkeypatch):
    made = [[], [], []]
    manifests = side_by_side(monkeypatch, 3, lambda i: build(tmp_path, counting(made[i])))
    assert manifests == [shards.read_manifest(whole)] * 3
    assert contents(tmp_path) == contents(whole)
    assert made == [[*range(n, n + 4), *range(n + 12, min(n + 16, ITEMS))] for n in (0, 4, 8)]
    side_by_side(monkeypatch, 2, lambda i: build(tmp_path, counting(made[i])))
    assert sum(map(len, made)) == ITEMS


def test_machines_with_disks_of_their_own_make_all_shards_each(whole, tmp_path, monkeypatch):
    build(tmp_path / "1")  # complete on one of them: it waits for the other
    made = [[], []]
    side_by_side(monkeypatch, 2, lambda i: build(tmp_path / str(i), counting(made[i])))
    assert contents(tmp_path / "0") == contents(tmp_path / "1") == contents(whole)
    assert [len(items) for items in made] == [ITEMS, 0]


def test_shards_that_some_processes_left_are_completed_by_another_number(whole, tmp_path, monkeypatch):
    class Killed(SystemExit):
        pass

    def dying(index):
        if index > 10:
            raise Killed
        return make(index)

    ended = side_by_side(monkeypatch, 2, lambda i: build(tmp_path, dying))
    assert all(isinstance(error, SystemExit) for error in ended)
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.array_record")}
    assert len(done) == 2
    side_by_side(monkeypatch, 3, lambda i: build(tmp_path))
    assert contents(tmp_path) == contents(whole)
    assert {path: path.stat().st_mtime_ns for path in done} == done


def test_a_process_whose_disk_is_full_ends_all(tmp_path, monkeypatch):
    def full(index):
        raise OSError(errno.ENOSPC, "No space left on device")

    first, second = side_by_side(monkeypatch, 2, lambda i: build(tmp_path, full if i else make))
    assert "the disk is full" in str(second)
    assert str(first).startswith("process 1 could not make its part of the shards: the disk is full")
    assert not (tmp_path / "manifest.json").exists()
