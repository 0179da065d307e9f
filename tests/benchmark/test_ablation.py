"""Runs that differ in the number of training videos, and evaluations beside each other."""

import json

import pytest

from evads_jax.benchmark import tables
from evads_jax.benchmark.ablation import data_scale
from evads_jax.benchmark.evaluate import evaluate
from evads_jax.benchmark.files import NoVideo, Split
from evads_jax.errors import UserError

from .small_world import Knowing, WordJudge, make_config, make_record


def by_row(table):
    return {tuple(row[:2]): dict(zip(table.columns, row, strict=True)) for row in table.rows}


@pytest.fixture
def scaled(make_run):
    """`scaled(folder, videos, …)`: a run that was trained on so many videos."""

    def make(folder, videos, **options):
        run = make_run(folder, **options)
        config = json.loads((run / "config.json").read_text())
        config["data"] = {"videos_sft": videos, "videos_rl": 2 * videos}
        (run / "config.json").write_text(json.dumps(config))
        return run

    return make


def test_data_scale_has_a_row_per_stage_and_size_and_pairs_it_with_the_largest(scaled):
    runs = [
        scaled(f"v{videos}s{seed}", videos, seed=seed, shares={"sft": share / 2, "mg_grpo": share})
        for videos, share in ((400, 0.6), (100, 0.2), (0, 0.9))  # 0: all there are
        for seed in (0, 1)
    ]
    (table,) = data_scale(runs)
    rows = by_row(table)
    assert list(rows) == [(stage, n) for stage in ("sft", "mg_grpo") for n in ("100", "400", "all")]
    assert rows["mg_grpo", "100"]["RL videos"] == "200"
    assert rows["mg_grpo", "100"]["seeds"] == "0, 1"
    assert rows["mg_grpo", "100"]["R5 all"].n == 180
    assert rows["mg_grpo", "100"]["R5 − most, paired"].high < 0
    assert rows["mg_grpo", "all"]["R5 − most, paired"].value is None
    assert "v100s0@" in rows["sft", "100"]["runs"]
    with pytest.raises(UserError, match=r"two runs of videos \(SFT, RL\) \(100, 200\) and seed 1"):
        data_scale([*runs, scaled("again", 100, seed=1)])


def test_runs_without_numbers_of_videos_are_refused(make_run):
    with pytest.raises(UserError, match="names no numbers of videos"):
        data_scale([make_run()])


def test_differences_between_models_are_paired_by_question(make_run, tmp_path):
    a = make_run("a", shares={"sft": 0.3})
    b = make_run("b", shares={"sft": 0.8})
    r5, r3, r2 = tables.differences([a, b])
    assert "R5, minus sft of a@" in r5.title
    rows = {(row[0], row[-1].split("@")[0]): row for row in r5.rows}
    gain = rows["sft", "b"][r5.columns.index("All")]
    assert gain.low > 0
    assert gain.signed
    assert gain.n == 90
    assert len(r3.rows) == len(r2.rows) == len(r5.rows)
    evaluate(Knowing(0.5), Split.of([make_record(0)]), tmp_path / "only", "sft", WordJudge(), make_config())
    with pytest.raises(UserError, match="one evaluation alone"):
        tables.differences([tmp_path / "only"])


def test_different_numbers_of_samples_are_refused(make_run):
    a, b = make_run("a"), make_run("b")
    for path in (b / "evaluation").glob("*/summary.json"):
        summary = json.loads(path.read_text())
        summary["protocol"]["samples"] = 4
        path.write_text(json.dumps(summary))
    with pytest.raises(UserError, match=r"protocol\.samples"):
        tables.main([a, b])


class Missing(list):
    """Videos of which the first is missing."""

    def __getitem__(self, index):
        if index == 0:
            raise NoVideo("missing: no such file")
        return super().__getitem__(index)


def test_the_main_table_leaves_nothing_out_where_videos_are_missing(tmp_path):
    records = [make_record(n) for n in range(6)]
    split = Split.annotated(Missing(records), [tuple(record.examples()) for record in records])
    policy = Knowing(1.0, "w")
    evaluate(policy, split, tmp_path, "sft", WordJudge({("v1", "BP")}), make_config())
    assert len(policy.asked) == 25
    table = tables.main([tmp_path])[0]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["All"].value, row["All"].n, row["All"].missing) == (1.0, 24, 6)
    assert row["All, nothing left out"].startswith("0.800 to 0.833 [")
    assert "1 of 30 verdicts missing; 5 answers without video, counted 0; " in table.notes[1]
    again = Knowing(1.0, "w")
    evaluate(again, split, tmp_path, "sft", WordJudge(), make_config())
    assert again.asked == []
