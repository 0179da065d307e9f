import csv
import dataclasses
import io
import json

import pytest
from rich.console import Console

from evads_jax.benchmark import learning, readme, tables
from evads_jax.benchmark.evaluate import evaluate, evaluate_chance
from evads_jax.benchmark.files import Split, load
from evads_jax.benchmark.report import write_report
from evads_jax.benchmark.table import Cell, Table
from evads_jax.errors import UserError
from evads_jax.judge import make_judge

from .small_world import Knowing, make_config, make_record


def by_stage(table):
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


def test_the_main_table_shows_each_stage_with_interval_and_n(make_run):
    r5, r3, r2 = tables.main([make_run()])
    rows = by_stage(r5)
    assert list(rows) == ["best constant answer", "base", "sft", "control", "mg_grpo", "mg_grpo, blanked"]
    cell = rows["sft"]["BP"]
    assert (cell.n, cell.missing) == (18, 0)
    assert cell.low < cell.value < cell.high
    assert rows["sft"]["All"].n == 90
    assert rows["mg_grpo"]["run"].startswith("run@")
    assert rows["sft"]["Perception"].value == pytest.approx((cell.value + rows["sft"]["CM"].value) / 2)
    for table in (r3, r2):
        assert all(by_stage(table)[s]["All"].value <= rows[s]["All"].value for s in rows)  # R3 and R2 never exceed R5


@pytest.mark.parametrize(
    ("change", "named"),
    [({"format": "asr_ocr"}, "protocol.format"), ({"name": "paper"}, "protocol.name"), ({"videos": range(9)}, "split")],
)
def test_results_of_different_protocols_or_splits_are_refused_by_name(make_run, change, named):
    runs = [make_run("a"), make_run("b", **change)]
    with pytest.raises(UserError, match=named):
        tables.main(runs)


def test_results_of_different_judges_are_refused(make_run):
    runs = [make_run("a"), make_run("b")]
    path = runs[1] / "evaluation" / "sft" / "summary.json"
    summary = json.loads(path.read_text())
    summary["judge"]["name"] = "another"
    path.write_text(json.dumps(summary))
    with pytest.raises(UserError, match="judge"):
        tables.main(runs)


def test_seeds_may_have_videos_of_their_own_but_one_seed_may_not(make_run):
    own = [make_run("a", seed=1, videos=range(9)), make_run("b", seed=2, videos=range(9, 18))]
    assert learning.learning(own)
    with pytest.raises(UserError, match="split"):
        tables.main(own)
    with pytest.raises(UserError, match="same seed"):
        learning.learning([make_run("c", seed=1), make_run("d", seed=1)])


def test_missing_verdicts_are_named_with_their_bounds(make_run):
    r5 = tables.main([make_run(missing={("v0", "BP")})])[0]
    cell = by_stage(r5)["sft"]["BP"]
    assert (cell.n, cell.missing) == (17, 1)
    assert any("sft" in note and "1 of 90 verdicts missing" in note for note in r5.notes)


def test_learning_finds_a_real_difference_and_none_where_there_is_none(make_run):
    shares = {"base": 0.0, "sft": 0.4, "control": 0.4, "mg_grpo": 0.9}
    runs = [make_run(f"s{s}", seed=s, shares=shares, videos=range(18 * s, 18 * s + 18)) for s in range(3)]
    stages, differences, pixels = learning.learning(runs)
    rows = by_stage(differences)
    gain = rows["mg_grpo − sft"]
    assert gain["R5 all"].low > 0
    assert gain["R5 all"].n == 270
    assert gain["facts right"].value > 0.05
    each = [rows[f"mg_grpo − sft, seed {s}"]["R5 all"].value for s in range(3)]
    assert gain["R5 all"].value == pytest.approx(sum(each) / 3)
    assert rows["mg_grpo − sft, seeds drawn too"]["R5 all"].value == pytest.approx(gain["R5 all"].value)
    table = by_stage(stages)
    assert table["mg_grpo"]["facts right"].value > table["sft"]["facts right"].value
    assert table["mg_grpo"]["facts wrong"].value < table["sft"]["facts wrong"].value
    assert table["base"]["distinct"] == "1, 1, 1"
    of = [row[0].removeprefix("mg_grpo") for row in pixels.rows]
    assert of == ["", ", frames blanked", ", answers shuffled", ", frames blanked, answers shuffled"]
    assert pixels.rows[0][1].low > pixels.rows[2][1].high


def test_the_summary_of_learning_says_what_the_full_tables_say(make_run):
    shares = {"base": 0.0, "sft": 0.4, "mg_grpo": 0.9}
    runs = [make_run(f"s{s}", seed=s, shares=shares, videos=range(18 * s, 18 * s + 18)) for s in range(2)]
    short, pixels = learning.learning_summary(runs)
    full_tables = learning.learning(runs)
    assert pixels == full_tables[2]
    stages, differences = map(by_stage, full_tables[:2])
    rows = by_stage(short)
    assert list(rows) == ["best constant answer", "base", "sft", "mg_grpo", "mg_grpo − sft"]
    for name, row in rows.items():
        full = (stages | differences)[name]
        for column, there in (("R5", "R5 all"), ("facts right", "facts right"), ("facts wrong", "facts wrong")):
            assert dataclasses.replace(full[there], n=None) == row[column]
    assert any("90, 90" in note for note in short.notes)


def test_equal_stages_differ_by_exactly_nothing(make_run):
    run = make_run(shares={"sft": 0.5, "mg_grpo": 0.5})
    differences = learning.learning([run])[1]
    cell = differences.rows[0][1]
    assert (cell.value, cell.low, cell.high) == (0, 0, 0)


def test_the_reward_ablation_averages_seeds_and_pairs_with_mg(make_run):
    runs = [
        make_run(f"{reward}{seed}", seed=seed, reward=reward, shares={"mg_grpo": share})
        for reward, share in (("strict", 0.2), ("mg", 0.9))
        for seed in (0, 1)
    ]
    (table,) = tables.reward_ablation(runs)
    rows = by_stage(table)
    assert list(rows) == ["strict", "mg"]
    assert rows["mg"]["seeds"] == "0, 1"
    assert rows["strict"]["R5 − mg, paired"].high < 0
    assert rows["mg"]["R5 − mg, paired"].value is None
    with pytest.raises(UserError, match="two runs of reward mg"):
        tables.reward_ablation([*runs, make_run("again", seed=1)])


def test_unlabelled_rows_give_tables_without_tasks(make_run):
    run = make_run(labelled=False)
    r5 = tables.main([run])[0]
    assert r5.columns == ("stage", "All", "run")
    assert learning.learning([run])[0].columns[:2] == ("stage", "R5 all")


def test_the_job_writes_four_forms_and_says_what_is_wrong(make_run, tmp_path, capsys):
    run = make_run()
    tables.run({"table": "main", "runs": f"{run}, {run}*"}, tmp_path / "out")
    assert {p.suffix for p in (tmp_path / "out" / "tables").iterdir()} == {".md", ".csv", ".tex", ".html"}
    assert "R5 by stage and task" in capsys.readouterr().out
    for config, message in (
        ({"table": "none", "runs": "x"}, "unknown table"),
        ({"table": "main", "runs": ""}, "no runs"),
        ({"table": "main", "runs": "nowhere*"}, "no such run"),
        ({"table": "main", "runs": str(tmp_path)}, "no evaluation"),
    ):
        with pytest.raises(UserError, match=message):
            tables.run(config, tmp_path / "out")


def test_a_runs_own_tables_are_written_into_its_folder(make_run):
    run = make_run()
    names = {path.name for path in tables.write_run_tables(run)}
    assert names == {path.name for path in (run / "tables").iterdir()}
    assert {"main.md", "learning.md", "main_R5.csv", "learning_differences.tex"} <= names


def test_the_stage_table_prints_every_stage_on_one_line_each(make_run):
    out = io.StringIO()
    tables.print_stage_table(make_run(), Console(file=out))
    lines = out.getvalue().splitlines()
    for stage in ("base", "sft", "control", "mg_grpo", "best constant answer"):
        assert sum(line.strip().startswith(stage + " ") and "90" in line for line in lines) == 1


def test_the_written_forms_hold_the_same_figures_and_escape_their_text():
    cells = (Cell(0.25, 0.125, 0.5, 80, 2), Cell(None))
    table = Table("t", "T", ("a_b", "x", "y"), (("p|q <b> 5%", *cells),), ("a note",))
    assert r"p\|q &lt;b> 5%" in table.markdown()
    assert "0.250 [0.125, 0.500] n=80 (2 missing)" in table.markdown()
    (row,) = csv.DictReader(io.StringIO(table.csv()))
    assert (row["x"], row["x low"], row["x high"], row["x n"], row["x missing"]) == ("0.25", "0.125", "0.5", "80", "2")
    assert row["y"] == ""
    assert r"a\_b & x & y \\" in table.tex()
    assert r"p|q <b> 5\%" in table.tex()


def test_a_table_goes_between_its_markers_and_nowhere_else(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- begin t -->\nold\n<!-- end t -->\nafter\n")
    assert readme.insert(path, "t", "| new |\n")
    assert path.read_text() == "before\n<!-- begin t -->\n| new |\n<!-- end t -->\nafter\n"
    assert not readme.insert(path, "t", "| new |\n")
    with pytest.raises(UserError, match="begin other"):
        readme.insert(path, "other", "x")
    path.write_text("<!-- end t -->")
    with pytest.raises(UserError, match="begin t"):
        readme.insert(path, "t", "x")


def test_evaluations_are_read_in_the_order_of_the_stages(make_run):
    run = make_run()
    evaluations = load(run)
    assert list(evaluations)[:3] == ["chance", "base", "sft"]
    assert set(evaluations["sft"].completions()) == {q.id for n in range(18) for q in make_record(n).questions}


def test_annotated_rows_without_labels_rubric_or_templates_go_the_whole_way(tmp_path):
    config = make_config()
    config.judge.kind = "lexical"
    records = []
    for n in range(6):
        record = make_record(n, labelled=False)
        questions = tuple(
            dataclasses.replace(
                q, rubric=(), question=f"{q.question} {'abcdef'[n]}?", answer=f"answer {'abcdef'[n]} red"
            )
            for q in record.questions[:2]
        )
        records.append(dataclasses.replace(record, questions=questions, facts={}))
    split, judge = Split.of(records), make_judge(config.judge, "en")
    for stage, share in (("sft", 0.0), ("mg_grpo", 1.0)):
        summary = evaluate(Knowing(share, stage), split, tmp_path, stage, judge, config)
    assert summary["facts"] is None
    assert summary["shuffled"]["all"] == {"mean": None, "ci95": None, "n": 0}
    evaluate_chance(split, split, tmp_path, judge, config)
    tables.write_run_tables(tmp_path)
    tables.print_stage_table(tmp_path, Console(file=io.StringIO()))
    assert "–" in learning.learning([tmp_path])[0].markdown()
    assert write_report(tmp_path, records).exists()
