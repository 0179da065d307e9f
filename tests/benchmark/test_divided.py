"""An evaluation that several processes divide: the files of one, each question asked once."""

import types

import pytest

from evads_jax.benchmark import predict as module
from evads_jax.benchmark.evaluate import Again, evaluate, evaluate_chance
from evads_jax.benchmark.files import NoVideo, Split, read_lines
from evads_jax.errors import UserError
from tests.train.side_by_side import side_by_side

from .small_world import Knowing, WordJudge, make_config, make_record

HALVES = ([0, 1, 2, 3], [4, 5, 6])
INTERLEAVED = ([0, 2, 4], [1, 3, 5, 6])
SHARED = ([0, 1, 2], [0, 1, 2], [3, 4, 5, 6])  # of a mesh whose tp crosses processes


class Together(Knowing):
    """Computes with the other processes: they must call it as often as it is called."""

    def __init__(self, rows=None, share=0.5):
        super().__init__(share)
        self.calls = 0
        if rows is not None:
            self.division = types.SimpleNamespace(numbers=rows)

    def generate(self, items):
        self.calls += 1
        return super().generate(items)


class SomeGone(list):
    """Records of which one video is not there."""

    def __getitem__(self, index):
        record = super().__getitem__(index)
        if record.video == "v3":
            raise NoVideo("missing: no such file")
        return record


def files_of(workdir):
    found = {p.relative_to(workdir): p.read_bytes() for p in sorted(workdir.rglob("*")) if p.is_file()}
    assert any(path.name == "summary.json" for path in found)
    return found


def run(split, workdir, policy, judges):
    config = make_config()
    evaluate_chance(Split.of([make_record(n) for n in range(100, 103)]), split, workdir, judges[0], config)
    again = {"repeats": judges[1:2], "second": Again(judges[2], {"kind": "words"})}
    return evaluate(policy, split, workdir, "sft", judges[0], config, **again)


def judges_of(count):
    return [[WordJudge({("v1", "BP")}) for _ in range(3)] for _ in range(count)]


@pytest.mark.parametrize("rows", [HALVES, INTERLEAVED, SHARED, (None, None), (None,) * 5])
def test_the_files_are_those_of_one_process_and_the_work_is_divided(split, tmp_path, monkeypatch, rows):
    (alone,), count = judges_of(1), len(rows)
    policy, policies, judges = Together(), [Together(own) for own in rows], judges_of(count)
    expected = run(split, tmp_path / "one", policy, alone)
    summaries = side_by_side(monkeypatch, count, lambda i: run(split, tmp_path / "many", policies[i], judges[i]))
    assert summaries == [expected] * count
    assert files_of(tmp_path / "many") == files_of(tmp_path / "one")
    asked = [name for i, other in enumerate(policies) for name in other.asked if rows is not SHARED or i != 1]
    assert sorted(asked) == sorted(policy.asked)
    assert len({other.calls for other in policies}) == 1
    for i in range(3):
        assert sum(mine[i].asked for mine in judges) == alone[i].asked
        assert max(mine[i].asked for mine in judges) < alone[i].asked


def test_a_killed_evaluation_goes_on_with_any_number_of_processes(split, tmp_path, monkeypatch):
    expected = run(split, tmp_path / "one", Together(), judges_of(1)[0])

    class Killed(Together):
        def generate(self, items):
            if self.calls == 3:
                raise SystemExit(9)  # as every process does whose neighbour is gone
            return super().generate(items)

    for first, then in ((HALVES, (None,)), ((None,), HALVES)):
        workdir, killed = tmp_path / f"{len(first)}{len(then)}", [Killed(rows) for rows in first]
        judges = judges_of(2)
        side_by_side(monkeypatch, len(first), lambda i: run(split, workdir, killed[i], judges[i]))  # noqa: B023
        kept = len(read_lines(workdir / "evaluation" / "sft" / "predictions.jsonl"))
        assert 0 < kept < len(split.examples)
        others = [Together(rows) for rows in then]
        ended = side_by_side(monkeypatch, len(then), lambda i: run(split, workdir, others[i], judges[i]))  # noqa: B023
        assert ended == [expected] * len(then)
        assert sum(len(other.asked) for other in others) == len(split.examples) - kept
        assert files_of(workdir) == files_of(tmp_path / "one")


def test_a_missing_video_is_told_by_the_process_that_missed_it(records, tmp_path, monkeypatch):
    split = Split.annotated(SomeGone(records), [tuple(record.examples()) for record in records])
    one = module.predict(Together(), split, tmp_path / "one")
    for rows in (HALVES, SHARED, (None, None)):
        folder, policies = tmp_path / str(id(rows)), [Together(own) for own in rows]
        ended = side_by_side(monkeypatch, len(rows), lambda i: module.predict(policies[i], split, folder))  # noqa: B023
        assert ended == [one] * len(rows)
        assert len({policy.calls for policy in policies}) == 1
        if rows is HALVES:
            assert files_of_predictions(folder) == files_of_predictions(tmp_path / "one")


def files_of_predictions(folder):
    return (folder / "predictions.jsonl").read_bytes()


def test_a_shard_that_one_process_cannot_read_ends_all(split, tmp_path, monkeypatch):
    class Damaged(list):
        def __getitem__(self, index):
            raise UserError("damaged shard: it is missing", "shard-00001")

    damaged = Split(Damaged(split.records), split.places, split.examples, split.facts, split.hash)
    splits = [split, damaged]
    ended = side_by_side(monkeypatch, 2, lambda i: module.predict(Together(HALVES[i]), splits[i], tmp_path))
    assert str(ended[1]) == "damaged shard: it is missing [shard-00001]"
    assert str(ended[0]).startswith("process 1 could not read the videos of its questions: damaged shard")


def test_a_full_disk_of_the_first_process_ends_all(split, tmp_path, monkeypatch):
    (tmp_path / "predictions.jsonl").mkdir()  # nothing can be appended to it
    monkeypatch.setattr(module, "read_lines", lambda path: [])
    ended = side_by_side(monkeypatch, 2, lambda i: module.predict(Together(HALVES[i]), split, tmp_path))
    assert "cannot write" in str(ended[0])
    assert str(ended[1]).startswith("process 0 could not write the predictions: cannot write")


class Streaming:
    """A policy over a network."""

    weights, protocol = "m", {"name": "greedy"}

    def __init__(self):
        self.asked = 0

    def stream(self, wanted, load, keep):
        for asked in wanted:
            self.asked += 1
            keep(asked, module.Reply(f"answer {asked.video} {asked.question}", True, 10, 2, 0.5))


def test_a_model_behind_an_endpoint_is_asked_by_the_first_process_alone(split, tmp_path, monkeypatch):
    one = module.predict(Streaming(), split, tmp_path / "one")
    policies = [Streaming(), Streaming()]
    assert side_by_side(monkeypatch, 2, lambda i: module.predict(policies[i], split, tmp_path / "two")) == [one] * 2
    assert [policy.asked for policy in policies] == [len(split.examples), 0]
    assert files_of_predictions(tmp_path / "one") == files_of_predictions(tmp_path / "two")


def test_a_turn_is_a_batch_where_processes_compute_together_and_one_for_each_where_they_do_not(monkeypatch):
    def turns(rows):
        def turn(i):
            size, own = module.turn(Together(rows and rows[i]))
            return size, list(own)

        return side_by_side(monkeypatch, 2, turn)

    assert turns(HALVES) == [(7, HALVES[0]), (7, HALVES[1])]
    assert turns(None) == [(14, [*range(0, 14, 2)]), (14, [*range(1, 14, 2)])]
    assert module.turn(Together()) == (7, range(7))
