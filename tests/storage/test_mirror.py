import contextlib
import json
import sqlite3

import pytest

from evads_jax.errors import UserError
from evads_jax.storage.mirror import HERE, OWNER, Mirror
from tests.storage.memory import Killed, Memory

URL = "gs://shelf/run"
MOMENTS = range(30)  # more than there are changes in any of the pushes below


def mirror(store, folder, **changes):
    made = Mirror(store, URL, folder, **changes)
    made.fetch()
    return made


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != HERE
    }


def killed(store, made, left, late):
    """Whether a push was killed at its change number `left`."""
    store.left, store.arrives = left, late
    try:
        made.push()
    except Killed:
        return True
    finally:
        store.left = None
    return False


def test_what_was_pushed_is_on_another_machine_and_nothing_else(tmp_path):
    store, held = Memory(), {"config.json": "{}", "events.jsonl": "1\n", "evaluation/sft/summary.json": "{}"}
    made = mirror(store, tmp_path / "one")
    write(made.folder, held)
    made.push()
    write(made.folder, {"config.json": "lost", "lost.txt": "", "half.tmp": "", "verdicts.sqlite-wal": ""})
    assert files(mirror(store, tmp_path / "other").folder) == held
    assert files(mirror(store, tmp_path / "one").folder).items() >= held.items()
    assert not (tmp_path / "one" / "lost.txt").exists()


def test_only_what_changed_goes_up_and_what_is_gone_here_is_gone_there(tmp_path):
    store = Memory()
    made = mirror(store, tmp_path)
    write(made.folder, {"a.txt": "a", "b.txt": "b", "log.jsonl": "1\n"})
    made.push()
    store.changes.clear()
    made.push()
    assert store.changes == []
    write(made.folder, {"a.txt": "c", "log.jsonl": "1\n2\n"})
    (made.folder / "b.txt").unlink()
    made.push()
    assert store.changes == [("put", "log.jsonl.parts/00000002-2"), ("delete", "b.txt"), ("put", "a.txt")]
    (made.folder / "log.jsonl").unlink()
    made.push()
    assert set(store.objects) == {OWNER, "a.txt"}
    fetched = mirror(store, tmp_path)
    store.changes.clear()
    fetched.push()
    assert store.changes == []


@pytest.mark.parametrize("late", [False, True])
def test_nobody_meets_a_mark_whose_work_is_not_there(tmp_path, late):
    """`manifest.json` names what the shards hold; both change, one shard goes, one comes."""
    for left in MOMENTS:
        store = Memory()
        made = mirror(store, tmp_path / str(left))
        shards = {"shards/0": "old", "shards/1": "old"}
        write(made.folder, {**shards, "shards/manifest.json": json.dumps(shards)})
        made.push()
        (made.folder / "shards/1").unlink()
        shards = {"shards/0": "new", "shards/2": "new"}
        write(made.folder, {**shards, "shards/manifest.json": json.dumps(shards)})
        ended = not killed(store, made, left, late)
        if (mark := store.get("shards/manifest.json")) is not None:
            assert json.loads(mark).items() <= {n: data.decode() for n, data in store.objects.items()}.items()
        if ended:
            assert files(mirror(store, tmp_path / "other").folder) == files(made.folder)
            return
    raise AssertionError("the push never ended")


@pytest.mark.parametrize("late", [False, True])
def test_predictions_never_stand_beside_another_ones_protocol(tmp_path, late):
    """An evaluation of other weights sets the old completions aside and begins its own."""
    for left in MOMENTS:
        store = Memory()
        made = mirror(store, tmp_path / str(left))
        write(made.folder, {"protocol.json": "old", "predictions.jsonl": "old\nold\n"})
        made.push()
        (made.folder / "predictions.jsonl").rename(made.folder / "predictions.123.jsonl")
        write(made.folder, {"protocol.json": "new"})
        ended = not killed(store, made, left, late)
        held = files(mirror(store, tmp_path / f"{left}-other").folder)
        assert held["protocol.json"] == "old" or "predictions.jsonl" not in held
        assert "old\nold\n" in (held.get("predictions.jsonl"), held.get("predictions.123.jsonl"))
        if ended:
            assert held == {"protocol.json": "new", "predictions.123.jsonl": "old\nold\n"}
            return
    raise AssertionError("the push never ended")


def test_checkpoints_are_left_alone(tmp_path):
    store = Memory()
    store.objects["seed1/checkpoints/sft/4/state/d"] = b"array"
    made = mirror(store, tmp_path)
    write(made.folder, {"seed1/checkpoints/sft/local": "here"})
    made.push()
    assert files(made.folder) == {"seed1/checkpoints/sft/local": "here"}
    assert set(store.objects) == {OWNER, "seed1/checkpoints/sft/4/state/d"}


def test_a_folder_of_something_else_is_refused_and_left_as_it_is(tmp_path):
    write(tmp_path / "mine", {"thesis.txt": "all of it"})
    with pytest.raises(UserError, match="not empty and no mirror of gs://shelf/run"):
        mirror(Memory(), tmp_path / "mine")
    assert files(tmp_path / "mine") == {"thesis.txt": "all of it"}
    Mirror(Memory(), "gs://shelf/first", tmp_path / "first").fetch()
    with pytest.raises(UserError, match="mirrors gs://shelf/first, not gs://shelf/run"):
        mirror(Memory(), tmp_path / "first")


def test_a_machine_whose_run_was_taken_over_writes_no_more(tmp_path):
    store = Memory()
    slow, fast = mirror(store, tmp_path / "slow"), mirror(store, tmp_path / "fast")
    write(slow.folder, {"events.jsonl": "late\n"})
    with pytest.raises(UserError, match="another machine has taken over"):
        slow.push()
    write(fast.folder, {"events.jsonl": "in time\n"})
    fast.push()
    assert files(mirror(store, tmp_path / "third").folder) == {"events.jsonl": "in time\n"}


def test_only_one_process_writes(tmp_path):
    store = Memory()
    first, second = mirror(store, tmp_path / "0"), mirror(store, tmp_path / "1", writes=False)
    write(second.folder, {"events.jsonl": "of process 1\n"})
    second.push()
    assert set(store.objects) == {OWNER}
    first.push()  # process 1 has taken nothing over


def test_verdicts_of_a_machine_that_does_not_write_are_kept_beside_those_of_the_bucket(tmp_path):
    store = Memory()

    def put(folder, key):
        with contextlib.closing(sqlite3.connect(folder / "verdicts.sqlite", isolation_level=None)) as db:
            db.execute("CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY) WITHOUT ROWID")
            db.execute("INSERT INTO verdicts VALUES (?)", (key,))

    def held(folder):
        with contextlib.closing(sqlite3.connect(folder / "verdicts.sqlite")) as db:
            return [key for (key,) in db.execute("SELECT key FROM verdicts ORDER BY key")]

    first, second = mirror(store, tmp_path / "0"), mirror(store, tmp_path / "1", writes=False)
    put(first.folder, "a"), put(second.folder, "b")
    first.push()
    second = mirror(store, tmp_path / "1", writes=False)  # after a kill
    assert (held(first.folder), held(second.folder)) == (["a"], ["a", "b"])
    (second.folder / "verdicts.sqlite").write_text("something else, long enough to be a database header" * 20)
    assert held(mirror(store, tmp_path / "1", writes=False).folder) == ["a"]


def test_a_database_goes_up_as_a_snapshot_while_it_is_open(tmp_path):
    store = Memory()
    made = mirror(store, tmp_path / "one")
    path = made.folder / "verdicts.sqlite"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE verdicts (score REAL)")
        db.execute("CREATE TABLE claims (owner TEXT)")
        db.execute("INSERT INTO verdicts VALUES (0.5)")
        db.execute("INSERT INTO claims VALUES ('a process of this machine')")
        made.push()
        assert set(store.objects) == {OWNER, "verdicts.sqlite"}
        db.execute("INSERT INTO verdicts VALUES (0.75)")  # paid for, and not pushed before the kill
        mirror(store, tmp_path / "one")
        assert db.execute("SELECT score FROM verdicts").fetchall() == [(0.5,), (0.75,)]
    there = mirror(store, tmp_path / "other").folder / "verdicts.sqlite"
    with contextlib.closing(sqlite3.connect(there)) as db:
        assert db.execute("SELECT score FROM verdicts").fetchall() == [(0.5,)]
        assert db.execute("SELECT * FROM claims").fetchall() == []
