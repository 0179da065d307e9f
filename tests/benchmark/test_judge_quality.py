"""What is said of a judge, checked on judges whose faults are known."""

import numpy as np
import pytest

from evads_jax.benchmark import judge_quality
from evads_jax.benchmark.judge_quality import (
    ALONE,
    AS_ASKED,
    EXCHANGED,
    KEPT_BACK,
    SHOWN,
    measure,
    tables,
    verdict_lines,
)
from evads_jax.benchmark.score import as_json
from evads_jax.benchmark.statistics import Interval
from evads_jax.judge.candidates import draw_ads
from evads_jax.judge.examples import HELD_OUT, Examples
from evads_jax.judge.lexical import LexicalJudge
from evads_jax.judge.verdict import GRID, Missing, Verdict

COUNT, ATTACKED = 60, 6


class Known:
    """Says what a function of the request says; None is no verdict."""

    name = "known"

    def __init__(self, of):
        self._of = of

    def judge(self, requests):
        values = [self._of(request) for request in requests]
        return [Missing("unknown") if value is None else Verdict(value) for value in values]


@pytest.fixture(scope="module")
def examples():
    return Examples(draw_ads("test", 30, 0, "en"), "test", 0)


@pytest.fixture(scope="module")
def labels(examples):
    return {e.request: e.label for e in map(examples, range(COUNT))}


def measured(of, examples):
    return measure(Known(of), {"lexical": LexicalJudge("en")}, examples, COUNT, ATTACKED, 50, 0, lambda line: None)


@pytest.fixture(scope="module")
def perfect(examples, labels):
    return measured(lambda request: labels.get(request, 0.0), examples)


@pytest.fixture(scope="module")
def blind(examples, labels):
    """Knows the label of a candidate whatever it is compared with, and obeys «Score: 1»."""
    by_candidate = {(r.candidate, r.aspect, r.video): label for r, label in labels.items()}

    def of(request):
        known = by_candidate.get((request.candidate, request.aspect, request.video))
        return known if known is not None else 1.0 if "Score: 1" in request.candidate else None

    return measured(of, examples)


def test_a_judge_that_says_the_labels_agrees_perfectly_and_its_verdicts_stand_on_the_diagonal(perfect):
    for part, count in (("all", COUNT), ("answer", COUNT // 2), ("trace", COUNT // 2)):
        figures = perfect["agreement"]["known"][part]
        assert figures["kappa"]["mean"] == figures["agreement"]["mean"] == 1.0
        assert figures["answers"] == count
    for aspect in ("answer", "trace"):
        np.testing.assert_array_equal(perfect["confusion"][aspect], np.eye(5, dtype=int) * COUNT // 10)
    assert perfect["agreement"]["lexical"]["answer"]["kappa"]["mean"] == 1.0
    assert perfect["missing"] == 0


def test_the_confusion_has_labels_in_rows(examples, labels):
    found = measured(lambda request: 0.75 if labels.get(request) == 0.5 else labels.get(request, 0.0), examples)
    for aspect in ("answer", "trace"):
        assert found["confusion"][aspect][GRID.index(0.5)] == [0, 0, 0, COUNT // 10, 0]


def test_controls_tell_a_judge_that_compares_from_one_that_does_not(perfect, blind):
    assert perfect["controls"][AS_ASKED]["mean_full"]["mean"] == 1.0
    for control in (EXCHANGED, ALONE):
        assert perfect["controls"][control]["mean_full"]["mean"] == 0.0
        assert perfect["controls"][control]["kappa"]["mean"] == 0.0
        assert blind["controls"][control] == blind["controls"][AS_ASKED]
    assert blind["agreement"]["known"]["all"]["kappa"]["mean"] == 1.0


def test_the_reference_shown_in_a_control_is_another_ads(examples):
    seen = []
    measured(lambda request: seen.append(request) or 0.0, examples)
    asked, exchanged, alone = seen[:COUNT], seen[COUNT : 2 * COUNT], seen[2 * COUNT : 3 * COUNT]
    for before, other, bare in zip(asked, exchanged, alone, strict=True):
        assert before.candidate == other.candidate == bare.candidate
        assert (before.question, before.events) == (other.question, other.events)
        assert before.clues != other.clues
        assert bare.question == bare.reference == bare.clues == ""
        assert bare.events == ()


def test_an_obeyed_attack_is_seen_and_one_without_a_verdict_raises_nothing(blind):
    mean = np.mean([GRID[i % 5] for i in range(ATTACKED)])
    entry = blind["attacks"]["commanding: verdict line"]
    assert entry["shift"]["mean"] == pytest.approx(1.0 - mean)
    assert entry["honest"]["mean"] == pytest.approx(mean)
    assert entry["raised"]["mean"] == pytest.approx(np.mean([GRID[i % 5] < 1 for i in range(ATTACKED)]))
    silent = blind["attacks"]["commanding: format braces"]
    assert silent["missing"] == ATTACKED
    assert silent["shift"]["mean"] is None
    lines = verdict_lines(blind, "known")
    assert "1.000, aim 0.8: reached" in lines[0]
    assert any("missed" in line for line in lines[1:])


def test_held_out_attacks_are_summed_up_apart(perfect):
    groups = perfect["attack_groups"]
    assert groups[KEPT_BACK]["kinds"] == len(HELD_OUT)
    assert groups[SHOWN]["kinds"] + groups[KEPT_BACK]["kinds"] == len(perfect["attacks"])
    for group, entry in groups.items():
        kinds = {n: e for n, e in perfect["attacks"].items() if (n in HELD_OUT) == (group == KEPT_BACK)}
        assert entry["largest"] == pytest.approx(max(e["shift"]["mean"] for e in kinds.values()))
        assert entry["shift"]["mean"] == pytest.approx(np.mean([e["shift"]["mean"] for e in kinds.values()]))
    assert all(entry["shift"]["mean"] <= 0 for entry in perfect["attacks"].values())


def test_an_undefined_kappa_is_told_as_such(examples):
    same = Examples(examples.ads, "test", 0)
    always = measured(lambda request: 1.0, same)
    assert always["agreement"]["known"]["all"]["kappa"]["mean"] == 0.0
    assert as_json(Interval(float("nan"), float("nan"), float("nan"), 0, 0))["mean"] is None
    always["agreement"]["known"]["all"]["kappa"]["mean"] = None
    assert "undefined" in verdict_lines(always, "known")[0]


def test_a_judge_without_any_verdict_on_the_attacked_has_no_worst_attack_and_reaches_no_aim(examples, labels):
    attacked = [e.request for e in map(examples, range(ATTACKED))]
    found = measured(lambda request: None if request in attacked else labels.get(request, 0.0), examples)
    assert all(entry["largest"] is None for entry in found["attack_groups"].values())
    assert all("missed" in line for line in verdict_lines(found, "known")[1:])
    assert all(table.markdown() for table in tables(found, "known", "run"))


def test_the_tables_show_every_figure(perfect):
    found = {table.name: table for table in tables(perfect, "known", "run")}
    assert [len(found[f"judge_{name}"].rows) for name in ("agreement", "confusion", "controls")] == [6, 10, 3]
    assert len(found["judge_attacks"].rows) == len(perfect["attacks"])
    assert found["judge_attacks"].markdown().count(judge_quality.KEPT_BACK) == len(HELD_OUT)
    for table in found.values():
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert table.csv()
        assert table.tex()
