"""Processes divide a judge's requests, and what one of them has paid for the others keep."""

import dataclasses

import jax
import pytest

from evads_jax.errors import UserError
from evads_jax.judge import divided
from evads_jax.judge.budget import Budget
from evads_jax.judge.cache import Entry, Payment, VerdictCache
from evads_jax.judge.divided import DividedJudge
from evads_jax.judge.endpoint import EndpointSettings
from evads_jax.judge.verdict import Missing, Verdict
from tests.train.side_by_side import side_by_side

from .asking import requests

COUNT = 40


class Noting:
    """Half of what it is asked it cannot say; of a free judge or, with a cache, of one that is paid."""

    name, extra = "noting", "its own"

    def __init__(self, cache=None, stops=False):
        self.asked, self.stops = [], stops
        if cache is not None:
            self.cache = cache

    def judge(self, asked):
        if self.stops:
            raise UserError("the endpoint is down", "judge")
        self.asked += [r.candidate for r in asked]
        if hasattr(self, "cache"):
            entries = [Entry(r.candidate, "score", Verdict(0.5, "why", "\ud800")) for r in asked]
            self.cache.put(entries, [Payment("m", 1, 1, 0.25, "verdict")] * len(asked), "run")
        return [Missing("busy") if "worth 1" in r.candidate else Verdict(0.25, "é", "raw", 0.5) for r in asked]


def test_requests_are_divided_and_all_have_every_verdict(monkeypatch):
    monkeypatch.setattr(divided, "AT_ONCE", 8)  # so that there are several rounds
    judges = [Noting() for _ in range(3)]
    expected = Noting().judge(requests(COUNT))
    for verdicts in side_by_side(monkeypatch, 3, lambda i: DividedJudge(judges[i]).judge(requests(COUNT))):
        assert verdicts == expected
    assert sorted(name for judge in judges for name in judge.asked) == sorted(r.candidate for r in requests(COUNT))
    assert all(judge.asked for judge in judges)


def test_equal_requests_go_to_one_process_also_later(monkeypatch):
    twice = [dataclasses.replace(r, video=name) for name in ("a", "b") for r in requests(COUNT)]
    judges = [Noting() for _ in range(2)]
    side_by_side(
        monkeypatch, 2, lambda i: [DividedJudge(judges[i]).judge(part) for part in (twice, requests(10)[::-1])]
    )
    assert not set(judges[0].asked) & set(judges[1].asked)


def test_a_judge_of_one_process_is_left_as_it_is(monkeypatch):
    judge = Noting()
    assert divided.divided(judge) is judge
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    made = divided.divided(judge)
    assert (made.name, made.extra, hasattr(made, "report")) == ("noting", "its own", False)


def test_what_stops_the_judge_of_one_process_ends_all_and_what_was_paid_for_is_kept_by_all(monkeypatch, tmp_path):
    caches = [VerdictCache(tmp_path / str(i), tells=True) for i in range(2)]
    judges = [Noting(caches[0]), Noting(caches[1], stops=True)]
    first, second = side_by_side(monkeypatch, 2, lambda i: DividedJudge(judges[i]).judge(requests(COUNT)))
    assert str(second) == "the endpoint is down [judge]"
    assert "process 1 could not have its answers judged: the endpoint is down" in str(first)
    assert len(caches[0]) == len(caches[1]) == len(judges[0].asked) > 0


@pytest.mark.parametrize("names", [("a", "b", "c"), ("a", "a", "b")])
def test_every_file_holds_what_all_have_bought_and_counts_each_payment_once(monkeypatch, tmp_path, names):
    caches = [VerdictCache(tmp_path / name, tells=True) for name in names]
    judges = [Noting(cache) for cache in caches]
    for part in (requests(COUNT), requests(COUNT + 5)[COUNT:]):
        side_by_side(monkeypatch, 3, lambda i, part=part: DividedJudge(judges[i]).judge(part))
    for cache in caches:
        assert len(cache) == COUNT + 5
        assert cache.spent("run") == pytest.approx(0.25 * (COUNT + 5))
        assert cache.bought() == {"verdicts": [], "spending": []}


def test_a_machine_that_is_new_gets_what_the_run_has_bought_before(monkeypatch, tmp_path):
    old, new = VerdictCache(tmp_path / "old"), VerdictCache(tmp_path / "new")
    old.put([Entry("of another run", "score", Verdict(1.0))], [], "other")
    old.put([Entry("k", "score", Verdict(0.5, "why"))], [Payment("m", 1, 1, 0.25, "verdict")], "run")
    for _ in range(2):
        side_by_side(monkeypatch, 2, lambda i: divided.catch_up((new, old)[i], "run"))
    assert new.get(["k", "of another run"]) == {("k", "score"): Verdict(0.5, "why")}
    assert (new.spent("run"), old.spent("run")) == (0.25, 0.25)
    assert len(old) == 2


def test_a_process_asks_with_its_part_of_the_limits():
    settings = EndpointSettings("u", "m", requests_per_minute=60, tokens_per_minute=0, concurrency=3, max_cost=2.0)
    part = settings.shared(4)
    assert (part.requests_per_minute, part.tokens_per_minute, part.concurrency) == (15.0, 0, 1)
    assert part.max_cost == 2.0  # of the run: what is left of it is divided
    assert settings.shared(1) == settings


def test_processes_that_know_of_each_others_spending_stop_at_what_the_run_may_spend():
    prices, each = (("m", 1.0, 0.0),), 1_000_000
    budgets = [Budget("m", prices, max_cost=10.0, spent=2.0, part=0.5) for _ in range(2)]
    for budget in budgets:
        assert budget.left == 4.0
        budget.settle(budget.reserve(3 * each, 0), 3 * each, 0)
        assert budget.left == 1.0
    for budget in budgets:
        budget.begin(8.0)
        assert budget.left == 1.0
        with pytest.raises(UserError, match=r"1\.0000 are left for this process"):
            budget.reserve(2 * each, 0)
