import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.benchmark.evaluate import evaluate
from evads_jax.benchmark.files import Split, read_lines
from evads_jax.benchmark.score import judge_answers, length, metric
from evads_jax.data.records import DIMENSIONS, TASKS
from evads_jax.judge.verdict import GRID

from .small_world import Knowing, WordJudge, make_config, make_record


def test_r3_merges_the_outer_steps_and_r2_counts_only_perfect_answers():
    assert [metric("R5", s) for s in GRID] == [0, 0.25, 0.5, 0.75, 1]
    assert [metric("R3", s) for s in GRID] == [0, 0, 0.5, 0.5, 1]
    assert [metric("R2", s) for s in GRID] == [0, 0, 0, 0, 1]
    assert all(math.isnan(metric(kind, math.nan)) for kind in ("R5", "R3", "R2"))


def test_the_summary_has_the_fields_of_the_design(split, tmp_path):
    summary = evaluate(Knowing(0.5), split, tmp_path, "sft", WordJudge(), make_config())
    assert json.loads((tmp_path / "evaluation" / "sft" / "summary.json").read_text()) == summary
    assert {"stage", "n", "tasks", "dimensions", "categories", "protocol", "judge", "config_hash", "commit"} <= set(
        summary
    )
    assert set(summary["tasks"]) == {*TASKS, "all"}
    assert set(summary["dimensions"]) == set(DIMENSIONS)
    assert set(summary["categories"]) == {"home"}
    entry = summary["tasks"]["BP"]["R3"]
    assert set(entry) == {"mean_valid", "mean_all_bounds", "ci95", "n", "n_missing"}
    assert summary["tasks"]["all"]["R5"]["n"] == summary["n"] == len(split.examples)
    low, high = summary["tasks"]["all"]["R5"]["ci95"]
    assert low < summary["tasks"]["all"]["R5"]["mean_valid"] < high


def test_figures_agree_with_the_verdicts_counted_by_hand(split, tmp_path):
    summary = evaluate(Knowing(0.5), split, tmp_path, "sft", WordJudge(), make_config())
    rows = read_lines(tmp_path / "evaluation" / "sft" / "verdicts.jsonl")
    perception = [row["score"] for row in rows if row["task"] in ("BP", "CM")]
    assert summary["dimensions"]["Perception"]["R5"]["mean_valid"] == pytest.approx(sum(perception) / len(perception))
    assert summary["tasks"]["all"]["R2"]["mean_valid"] == sum(r["score"] == 1 for r in rows) / len(rows)
    right = sum(r["facts"][1] for r in rows) / sum(r["facts"][0] for r in rows)
    assert summary["facts"]["all"]["right"]["mean"] == pytest.approx(right)
    assert summary["answers"]["all"]["distinct"] == len({r["answer"] for r in rows})


def test_a_missing_verdict_is_counted_bounded_and_never_a_zero(split, tmp_path):
    judge = WordJudge(missing={("v0", "BP"), ("v1", "BP")})
    entry = evaluate(Knowing(1.0), split, tmp_path, "sft", judge, make_config())["tasks"]["BP"]["R5"]
    assert entry["mean_valid"] == 1.0
    assert entry["n_missing"] == 2
    assert entry["mean_all_bounds"] == [pytest.approx(16 / 18), 1.0]


def test_rows_without_labels_get_overall_figures_and_no_invented_task(tmp_path):
    split = Split.of([make_record(n, labelled=False) for n in range(6)])
    summary = evaluate(Knowing(0.5), split, tmp_path, "sft", WordJudge(), make_config())
    assert set(summary["tasks"]) == {"all"}
    assert summary["dimensions"] == {}
    assert set(summary["categories"]) == {"home"}


def test_nothing_is_judged_twice_and_what_is_missing_is_asked_again(split, tmp_path):
    first = WordJudge(missing={("v3", "CM")})
    completions = {e.question.id: f"<answer>{e.question.answer}</answer>" for e in split.examples}
    judge_answers(split, completions, first, "en", tmp_path)
    path = tmp_path / "verdicts.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    second = WordJudge()
    rows = judge_answers(split, completions, second, "en", tmp_path)
    assert second.asked == 2  # the missing one, and the one whose line was cut
    assert [row["score"] for row in rows] == [1.0] * len(split.examples)
    changed = completions | {"v5-ML": "<answer>a scarf</answer>"}
    third = WordJudge()
    rows = judge_answers(split, changed, third, "en", tmp_path)
    assert third.asked == 1
    assert next(row for row in rows if row["id"] == "v5-ML")["score"] == 0.0


def test_length_counts_words_and_chinese_characters():
    assert length("A red kettle, 2nd-hand.") == 5
    assert length("红色的水壶 VIP") == 6
    assert length("") == 0


@given(st.lists(st.sampled_from(["word", "两个", "¡"]), max_size=6))
def test_length_adds_up(words):
    assert length(" ".join(words)) == sum(map(length, words))
