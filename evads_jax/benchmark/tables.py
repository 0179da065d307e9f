"""The tables of one or more runs.

    python -m evads_jax.main --config=configs/tables.py:main --config.runs='runs/a,runs/b' --workdir=runs/tables

- `main`: stages or models × tasks under R5, R3 and R2, with the dimensions' means.
- `differences`: each evaluation minus the first, paired by question.
- `reward_ablation`: the reward grains strict, R3, R5 and MG, each over its seeds (`benchmark.ablation`).
- `data_scale`: numbers of training videos, each over its seeds (`benchmark.ablation`).
- `learning`: what the stages learned, over seeds (`benchmark.learning`); `learning_summary`: the same in short.
- `flor`: few-shot accuracies by norm and target, over seeds (`benchmark.fewshot.tables`).

Runs may lie in a bucket (`gs://BUCKET/study/seed*/mg`): their configs and evaluations are brought here.

The table `density` is a job of its own (`train.density_table`). A published figure would stand in a row of its own,
marked as published; the paper gives none for scores but one headline (`PUBLISHED_NOTE`).
"""

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from evads_jax import storage
from evads_jax.benchmark import files, html
from evads_jax.benchmark.ablation import data_scale, reward_ablation
from evads_jax.benchmark.compare import INTERVAL_NOTE, SHORT, Run, check_comparable, figures, score_columns
from evads_jax.benchmark.fewshot.tables import flor
from evads_jax.benchmark.files import CHANCE, Evaluation, load
from evads_jax.benchmark.learning import learning, learning_summary
from evads_jax.benchmark.score import ALL, METRICS
from evads_jax.benchmark.table import Cell, Table, write_tables
from evads_jax.data.records import DIMENSIONS
from evads_jax.errors import UserError

WANTED = ("config.json", "evaluation")  # what tables are made from
# Tasks in the order of their dimension, each dimension's mean after its tasks.
COLUMNS = (*(c for name, tasks in DIMENSIONS.items() for c in (*tasks, name)), ALL)
PUBLISHED_NOTE = (
    "Published: of arXiv 2602.08355 only a headline is at hand, +109.2 % (relative) on commercial-intent reasoning for "
    "E-VAds-R1; it has no cell here."
)


def run(config: Mapping[str, Any], workdir: Path) -> None:
    """The job `tables`: writes W/tables/<table>.{md,csv,tex,html} and prints the Markdown.

    Args:
      config: `table`: one of `TABLES`; `runs`: folders of runs, a list or a string with commas, each a path or a
        pattern.
      workdir: W.

    Raises:
      UserError: an unknown table, no runs, or runs that cannot be compared.
    """
    if config["table"] not in TABLES:
        raise UserError(f"unknown table {config['table']!r}", "config.table", "one of " + ", ".join(TABLES))
    paths = write(workdir / "tables", config["table"], TABLES[config["table"]](find_runs(config["runs"])))
    print(paths[0].read_text(encoding="utf-8"))
    print(f"written: {paths[0]} and {len(paths) - 1} csv, tex and html files beside it")


def write(folder: Path, name: str, tables: Sequence[Table]) -> list[Path]:
    """Writes tables in all forms: `<name>.md` and `<name>.html` with all of them, a csv and a tex file of each."""
    page = folder / f"{name}.html"
    files.write(page, html.tables_page(name, tables))
    return [*write_tables(folder, name, tables), page]


def write_run_tables(workdir: Path) -> list[Path]:
    """Writes the tables of one run, `main` and `learning`, into W/tables.

    Raises:
      UserError: the run has no evaluation, or its evaluations cannot be compared.
    """
    folder = workdir / "tables"
    return write_tables(folder, "main", main([workdir])) + write_tables(folder, "learning", learning([workdir]))


def find_runs(runs: str | Sequence[str] | None, wanted: Sequence[str] = WANTED) -> list[Path]:
    """The folders that a field names: paths or patterns, as a list or separated by commas.

    Args:
      runs: the field; its paths may be of a bucket.
      wanted: of a run in a bucket, the files and folders that are brought here.

    Raises:
      UserError: none is named, a pattern matches nothing, or a run in a bucket has nothing that is wanted.
    """
    patterns = [p.strip() for p in (runs.split(",") if isinstance(runs, str) else runs or ()) if p.strip()]
    if not patterns:
        raise UserError("no runs to tabulate", "config.runs", "name their folders, e.g. --config.runs='runs/seed*'")
    found: dict[Path, None] = {}
    for pattern in patterns:
        if storage.url_of(pattern) is None:
            matches = sorted(p for p in map(Path, glob.glob(pattern)) if p.is_dir())
        else:
            matches = [storage.fetched(url, *wanted) for url in storage.matching(pattern)]
        if not matches:
            raise UserError("no such run", pattern, "give the folder of a finished run")
        found |= dict.fromkeys(matches)
    return list(found)


def main(folders: Sequence[Path]) -> list[Table]:
    """Stages × tasks, one table per metric.

    Raises:
      UserError: protocols, judges or splits differ.
    """
    runs = [Run.read(folder) for folder in folders]
    check_comparable(runs)
    evaluations = [(run, evaluation) for run in runs for evaluation in run.evaluations.values()]
    lacking = any(e.summary["tasks"][ALL]["R5"]["n_missing"] for _, e in evaluations)
    tables = []
    for kind in METRICS:
        present = [c for c in COLUMNS if any(_entry(e, c) for _, e in evaluations)]
        rows: list[tuple[Cell | str, ...]] = []
        for run, evaluation in evaluations:
            cells = [Cell.read(_entry(evaluation, c, kind)) for c in present]
            rows.append((_label(evaluation), *cells, *[_everything(evaluation, kind)] * lacking, run.id))
        columns = ("stage", *(SHORT.get(c, c) for c in present), *["All, nothing left out"] * lacking, "run")
        notes = (INTERVAL_NOTE, *_bounds(runs, kind), *[PUBLISHED_NOTE] * (len(runs) > 1))
        tables.append(Table(f"main_{kind}", f"{kind} by stage and task", columns, tuple(rows), notes))
    return tables


def differences(folders: Sequence[Path]) -> list[Table]:
    """Every evaluation minus the first one of the first run, paired by question, under R5, R3 and R2.

    Raises:
      UserError: there is nothing to compare, or protocols, judges or splits differ.
    """
    runs = [Run.read(folder) for folder in folders]
    check_comparable(runs)
    (base, first), *others = [(r, e) for r in runs for e in r.evaluations.values() if e.name != CHANCE]
    if not others:
        raise UserError("one evaluation alone", "config.runs", "name another run to compare it with")
    tables = []
    for kind in METRICS:
        present = [c for c in COLUMNS if _entry(first, c)]
        columns = score_columns(kind, present)
        rows: list[tuple[Cell | str, ...]] = [
            (_label(e), *(Cell.of(i, True) for i in figures(e, first, columns).intervals()), run.id)
            for run, e in others
        ]
        title = f"{kind}, minus {_label(first)} of {base.id}, paired by question"
        heads = ("stage", *(SHORT.get(c, c) for c in present), "run")
        note = INTERVAL_NOTE.replace("with a verdict", "with a verdict on both sides")
        tables.append(Table(f"differences_{kind}", title, heads, tuple(rows), (note,)))
    return tables


def stage_table(workdir: Path) -> RichTable:
    """The table that ends a run: for each stage R5 by task, R5, R3, R2, facts, answers.

    Raises:
      UserError: the run has no evaluation.
    """
    evaluations = load(workdir)
    labels = [c for c in COLUMNS if c not in DIMENSIONS and any(_entry(e, c) for e in evaluations.values())]
    table = RichTable(box=box.SIMPLE_HEAD, caption="mean ± half the 95 % interval (bootstrap over videos)")
    table.add_column("stage", no_wrap=True)
    headings = [c for c in labels if c != ALL] + ["R5", "R3", "R2", "facts", "wrong", "words", "distinct", "n"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for evaluation in evaluations.values():
        s = evaluation.summary
        facts, answers = (s["facts"] or {}).get(ALL), s["answers"][ALL]
        cells = [_short(Cell.read(_entry(evaluation, c)), half=False) for c in labels if c != ALL]
        cells += [_short(Cell.read(_entry(evaluation, ALL, kind)), half=kind == "R5") for kind in METRICS]
        cells += [_short(Cell.read(facts[side]) if facts else Cell(None), half=False) for side in ("right", "wrong")]
        missing = s["tasks"][ALL]["R5"]["n_missing"]
        mean_length = answers["length"]["mean"]
        cells += ["–" if mean_length is None else f"{mean_length:.1f}", str(answers["distinct"])]
        cells += [f"{s['n']}" + (f" ({missing} missing)" if missing else "")]
        style = "bold" if evaluation.name == _MAIN_ROWS[-1] else "dim" if evaluation.name not in _MAIN_ROWS else ""
        table.add_row(Text(_label(evaluation)), *cells, style=style)
    return table


def print_stage_table(workdir: Path, console: Console | None = None) -> None:
    """Prints `stage_table`, never narrower than its cells where the output is no terminal."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=140)
    console.print(stage_table(workdir))


TABLES = {
    "main": main,
    "differences": differences,
    "reward_ablation": reward_ablation,
    "data_scale": data_scale,
    "learning": learning,
    "learning_summary": learning_summary,
    "flor": flor,
}
_MAIN_ROWS = ("base", "sft", "control", "mg_grpo")


def _entry(evaluation: Evaluation, column: str, kind: str = "R5") -> Mapping[str, Any] | None:
    summary = evaluation.summary
    return (summary["tasks"] | summary["dimensions"]).get(column, {}).get(kind)


def _everything(evaluation: Evaluation, kind: str) -> str:
    """The mean with nothing left out: failures as 0, missing verdicts as 0 and as 1."""
    low, high = evaluation.summary["tasks"][ALL][kind]["mean_all_bounds"]
    interval = evaluation.summary.get("without_score", {}).get("tasks", {}).get(ALL, {}).get(kind)
    about = " [{:.3f}, {:.3f}]".format(*interval) if interval else ""
    return (f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}") + about


def _bounds(runs: Sequence[Run], kind: str) -> list[str]:
    """One line per evaluation in which answers have no score: why, and what the mean over all questions could be."""
    lines = []
    for run in runs:
        for evaluation in run.evaluations.values():
            entry = evaluation.summary["tasks"][ALL][kind]
            if entry["n_missing"]:
                low, high = entry["mean_all_bounds"]
                counts = evaluation.summary.get("without_score", {}).get("tasks", {}).get(ALL, {})
                failed = {"videos": counts.get("videos", 0), "predictions": counts.get("predictions", 0)}
                verdicts = entry["n_missing"] - sum(failed.values())
                lines.append(
                    f"{_label(evaluation)}, {run.id}: {verdicts} of {entry['n']} verdicts missing; "
                    + "".join(
                        f"{count} answers without {what[:-1]}, counted 0; " for what, count in failed.items() if count
                    )
                    + f"over all questions {kind} lies between {low:.3f} and {high:.3f}."
                )
    return lines


def _label(evaluation: Evaluation) -> str:
    return "best constant answer" if evaluation.name == "chance" else evaluation.name.replace("_blanked", ", blanked")


def _short(cell: Cell, half: bool) -> str:
    if cell.value is None:
        return "–"
    width = f" ± {(cell.high - cell.low) / 2:.3f}" if half and cell.low is not None and cell.high is not None else ""
    return f"{cell.value:.3f}{width}"
