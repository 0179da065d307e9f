"""A verdict is on the disk before it is used, and asked for by one process only."""

import multiprocessing
import os
import sqlite3
import subprocess
import sys

import pytest

from evads_jax.errors import UserError
from evads_jax.judge import cache as module
from evads_jax.judge.cache import Entry, Payment, VerdictCache, key
from evads_jax.judge.verdict import Verdict


def test_what_was_put_is_found_again_and_costs_nothing_the_second_time(tmp_path):
    path = tmp_path / "a" / "verdicts.sqlite"
    VerdictCache(path).put([Entry("k", "score", Verdict(0.75, "because", "raw \ud800", 0.5))])
    assert VerdictCache(path).get(["k", "other"]) == {("k", "score"): Verdict(0.75, "because", "raw ?", 0.0)}


def test_many_keys_are_found_in_one_call(tmp_path):
    cache = VerdictCache(tmp_path / "c")
    cache.put([Entry(str(i), "score", Verdict(0.5)) for i in range(1234)])
    assert len(cache.get(map(str, range(2000)))) == len(cache) == 1234


def test_a_key_changes_with_every_part_and_with_nothing_else():
    parts = {"model": "m", "candidate": "c", "sampling": {"temperature": 0, "max_tokens": 9}}
    assert key(**parts) == key(**dict(reversed(parts.items())))
    assert len({key(**parts), *(key(**{**parts, name: "x"}) for name in parts)}) == 4
    assert key(candidate="\ud800") != key(candidate="?")


def test_the_first_verdict_stays(tmp_path):
    cache = VerdictCache(tmp_path / "c")
    cache.put([Entry("k", "score", Verdict(0.25))])
    cache.put([Entry("k", "score", Verdict(1.0))])
    assert cache.get(["k"])["k", "score"].score == 0.25


def test_spending_is_counted_per_run_and_survives(tmp_path):
    VerdictCache(tmp_path / "c").put([], [Payment("m", 10, 5, 0.25, "verdict")] * 3, run="a")
    again = VerdictCache(tmp_path / "c")
    assert again.spent("a") == pytest.approx(0.75)
    assert again.spent("b") == 0


def test_a_living_process_keeps_its_claim_and_a_dead_one_loses_it(tmp_path):
    code = (
        "import sys; from evads_jax.judge.cache import VerdictCache; c = VerdictCache(sys.argv[1]); "
        "print(c.claim('k'), flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "c")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "True\n"
    cache = VerdictCache(tmp_path / "c")
    assert not cache.claim("k")
    assert cache.claim("another")
    other.kill()
    other.wait()
    assert cache.claim("k")


def test_a_claim_from_another_machine_ends_with_its_lease(tmp_path, monkeypatch):
    cache = VerdictCache(tmp_path / "c")
    cache.claim("k")
    with sqlite3.connect(tmp_path / "c") as db:
        db.execute("UPDATE claims SET owner = 'elsewhere/1/1'")
    assert not cache.claim("k")
    monkeypatch.setattr(module, "LEASE", -1.0)
    assert cache.claim("k")


def test_a_claim_outlives_a_verdict_that_is_a_part_of_it_and_ends_with_its_release(tmp_path):
    cache = VerdictCache(tmp_path / "c")
    cache.claim("a"), cache.claim("b")
    cache.put([Entry("a", "score", Verdict(1.0))])
    with sqlite3.connect(tmp_path / "c") as db:
        assert db.execute("SELECT key FROM claims ORDER BY key").fetchall() == [("a",), ("b",)]
        cache.release("a"), cache.release("b")
        assert db.execute("SELECT COUNT(*) FROM claims").fetchone() == (0,)


def _fill(path, worker):
    cache = VerdictCache(path)
    for i in range(60):
        if cache.claim(str(i)):
            if (str(i), "score") not in cache.get([str(i)]):
                cache.put([Entry(str(i), "score", Verdict(0.5, str(worker)))], [Payment("m", 1, 1, 1.0, "verdict")])
            cache.release(str(i))


def test_processes_that_write_at_the_same_time_pay_once_and_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    workers = [context.Process(target=_fill, args=(tmp_path / "c", i)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    cache = VerdictCache(tmp_path / "c")
    assert len(cache) >= 60
    assert cache.spent("") == len(cache)


def test_a_file_that_is_no_cache_is_refused_in_one_line(tmp_path):
    (tmp_path / "c").write_text("something else, long enough to be looked at as a database header" * 20)
    with pytest.raises(UserError, match="cannot use the verdict cache"):
        VerdictCache(tmp_path / "c")
    with pytest.raises(UserError):
        VerdictCache(tmp_path / "c" / "d")


def test_another_format_is_refused(tmp_path):
    VerdictCache(tmp_path / "c").close()
    with sqlite3.connect(tmp_path / "c") as db:
        db.execute("PRAGMA user_version=7")
    with pytest.raises(UserError, match="format 7"):
        VerdictCache(tmp_path / "c")


def test_the_shared_cache_is_where_caches_are_kept(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", os.sep + "x")
    assert str(module.default_path()) == os.path.join(os.sep, "x", "evads_jax", "verdicts.sqlite")
