"""What processes do together ends on all of them, however it ends on one."""

import sys

import pytest

from evads_jax import processes
from evads_jax.errors import UserError
from tests.train.side_by_side import side_by_side


def test_a_single_process_does_its_work_and_sends_nothing(tmp_path):
    kept = object()
    assert processes.by_first(lambda: kept, "w", "here") is kept
    assert processes.together(lambda: kept, "w", "here") is kept
    assert processes.values(kept) == [kept]
    assert processes.from_one(0, b"x") == b"x"
    assert processes.beside(tmp_path / "absent") == [0]
    assert not (tmp_path / "absent").exists()


def test_every_process_has_the_values_of_all_and_the_text_of_one(monkeypatch):
    def work(index):
        texts = "", "é" * 300, "\ud800"
        return processes.values({"of": texts[index]}), processes.from_one(1, texts[1].encode() if index == 1 else b"")

    for values, text in side_by_side(monkeypatch, 3, work):
        assert values == [{"of": ""}, {"of": "é" * 300}, {"of": "\ud800"}]
        assert text == ("é" * 300).encode()


def test_the_first_process_works_and_all_have_what_it_made(monkeypatch):
    worked = []

    def work(index):
        return processes.by_first(lambda: worked.append(index) or {"n": 1.5, "rows": [None]}, "w", "here")

    assert side_by_side(monkeypatch, 3, work) == [{"n": 1.5, "rows": [None]}] * 3
    assert worked == [0]


@pytest.mark.parametrize("number", [0, 1])
def test_what_fails_on_one_ends_all_with_its_line(monkeypatch, number):
    def fail():
        raise UserError("the disk is full", "shards")

    def work(index):
        return processes.together(fail if index == number else lambda: index, "write", "W")

    ended = side_by_side(monkeypatch, 2, work)
    assert str(ended[number]) == "the disk is full [shards]"
    assert str(ended[1 - number]) == f"process {number} could not write: the disk is full [shards] [W]"


def test_a_process_that_ends_by_itself_ends_the_others_with_its_code(monkeypatch):
    def work(index):
        return processes.by_first(lambda: sys.exit(42), "end", "here")

    assert [ended.code for ended in side_by_side(monkeypatch, 2, work)] == [42, 42]


def test_those_that_share_a_folder_find_each_other_in_it(monkeypatch, tmp_path):
    folders = [tmp_path / name for name in ("a", "b", "a", "b")]
    assert side_by_side(monkeypatch, 4, lambda i: processes.beside(folders[i])) == [[0, 2], [1, 3]] * 2
    assert not list(tmp_path.glob("*/.*"))
