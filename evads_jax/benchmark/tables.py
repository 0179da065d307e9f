"""The tables of one or more runs.

    python -m evads_jax.main --config=configs/tables.py:main --config.runs='runs/a,runs/b' --workdir=runs/tables

- `main`: stages × tasks under R5, R3 and R2, with the dimensions' means.
- `reward_ablation`: the reward grains strict, R3, R5 and MG, each over its seeds.
- `learning`: what the stages learned, over seeds (`benchmark.learning`).
"""

import glob
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from evads_jax.benchmark.compare import Run, check_comparable, fact_columns, paired, score_columns
from evads_jax.benchmark.files import Evaluation, load
from evads_jax.benchmark.learning import learning
from evads_jax.benchmark.score import ALL, METRICS
from evads_jax.benchmark.statistics import across_seeds, average
from evads_jax.benchmark.table import Cell, Table, write_tables
from evads_jax.data.records import DIMENSIONS
from evads_jax.errors import UserError

# Tasks in the order of their dimension, each dimension's mean after its tasks.
COLUMNS = (*(c for name, tasks in DIMENSIONS.items() for c in (*tasks, name)), ALL)
SHORT = {"Cognition & Reasoning": "Cognition", ALL: "All"}
INTERVAL_NOTE = "[low, high]: 95 % interval, bootstrap over videos. n: questions with a verdict."
_GRAINS = ("strict", "r3", "r5", "mg")
_STAGE = "mg_grpo"


def run(config: Mapping[str, Any], workdir: Path) -> None:
    """The job `tables`: writes W/tables/<table>.{md,csv,tex} and prints the Markdown.

    Args:
      config: `table`: main, reward_ablation or learning; `runs`: folders of runs, a list or a string with commas, each
        a path or a pattern.
      workdir: W.

    Raises:
      UserError: an unknown table, no runs, or runs that cannot be compared.
    """
    if config["table"] not in TABLES:
        raise UserError(f"unknown table {config['table']!r}", "config.table", "one of " + ", ".join(TABLES))
    tables = TABLES[config["table"]](find_runs(config["runs"]))
    paths = write_tables(workdir / "tables", config["table"], tables)
    print(paths[0].read_text(encoding="utf-8"))
    print(f"written: {paths[0]} and {len(paths) - 1} csv and tex files beside it")


def write_run_tables(workdir: Path) -> list[Path]:
    """Writes the tables of one run, `main` and `learning`, into W/tables.

    Raises:
      UserError: the run has no evaluation, or its evaluations cannot be compared.
    """
    folder = workdir / "tables"
    return write_tables(folder, "main", main([workdir])) + write_tables(folder, "learning", learning([workdir]))


def find_runs(runs: str | Sequence[str] | None) -> list[Path]:
    """The folders that a field names: paths or patterns, as a list or separated by commas.

    Raises:
      UserError: none is named, or a pattern matches nothing.
    """
    patterns = [p.strip() for p in (runs.split(",") if isinstance(runs, str) else runs or ()) if p.strip()]
    if not patterns:
        raise UserError("no runs to tabulate", "config.runs", "name their folders, e.g. --config.runs='runs/seed*'")
    found: dict[Path, None] = {}
    for pattern in patterns:
        matches = sorted(p for p in map(Path, glob.glob(pattern)) if p.is_dir())
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
    tables = []
    for kind in METRICS:
        present = [c for c in COLUMNS if any(_entry(e, c) for r in runs for e in r.evaluations.values())]
        rows: list[tuple[Cell | str, ...]] = [
            (_label(evaluation), *(Cell.read(_entry(evaluation, c, kind)) for c in present), run.id)
            for run in runs
            for evaluation in run.evaluations.values()
        ]
        columns = ("stage", *(SHORT.get(c, c) for c in present), "run")
        notes = (INTERVAL_NOTE, *_bounds(runs, kind))
        tables.append(Table(f"main_{kind}", f"{kind} by stage and task", columns, tuple(rows), notes))
    return tables


def reward_ablation(folders: Sequence[Path]) -> list[Table]:
    """MG-GRPO under the reward grains strict, R3, R5 and MG, averaged over seeds, with the paired difference to MG.

    Raises:
      UserError: a run has no such stage or no known grain, or runs of one seed differ in protocol, judge or split.
    """
    runs = [Run.read(folder) for folder in folders]
    check_comparable(runs, same_split=False)
    groups: dict[str, dict[int, Run]] = defaultdict(dict)
    for run in runs:
        if _STAGE not in run.evaluations:
            raise UserError(f"the run has no {_STAGE} evaluation", str(run.folder), "finish it, or leave it out")
        if run.reward not in _GRAINS:
            raise UserError(f"unknown reward grain {run.reward!r}", str(run.folder), "one of " + ", ".join(_GRAINS))
        if run.seed in groups[run.reward]:
            raise UserError(f"two runs of reward {run.reward} and seed {run.seed}", str(run.folder), "leave one out")
        groups[run.reward][run.seed] = run
    rows = [_ablation_row(grain, groups) for grain in _GRAINS if grain in groups]
    columns = ("reward", *(f"{kind} all" for kind in METRICS), *(f"R5 {SHORT.get(d, d)}" for d in DIMENSIONS))
    columns += ("facts right", "facts wrong", "R5 − mg, paired", "R5, seeds drawn too", "seeds", "runs")
    notes = (
        INTERVAL_NOTE + " Averages over seeds; n counts the questions of all seeds.",
        "«R5 − mg»: over the seeds that both have. «seeds drawn too»: interval with seeds resampled as well.",
    )
    return [Table("reward_ablation", "Reward grain, stage mg_grpo", columns, tuple(rows), notes)]


def _ablation_row(grain: str, groups: Mapping[str, Mapping[int, Run]]) -> tuple[Cell | str, ...]:
    mine = [groups[grain][seed] for seed in sorted(groups[grain])]
    by_metric = [average(paired(mine, _STAGE, None, score_columns(kind, [ALL]))) for kind in METRICS]
    dimensions = average(paired(mine, _STAGE, None, score_columns("R5", list(DIMENSIONS))))
    facts = average(paired(mine, _STAGE, None, fact_columns))
    cells = [Cell.of(i) for e in (*by_metric, dimensions, facts) for i in e.intervals()]
    shared = sorted(groups[grain].keys() & groups.get("mg", {}).keys())
    difference = Cell(None)
    if shared and grain != "mg":
        one = score_columns("R5", [ALL])
        ours = paired([groups[grain][s] for s in shared], _STAGE, None, one)
        theirs = paired([groups["mg"][s] for s in shared], _STAGE, None, one)
        if all(a.draws == b.draws for a, b in zip(ours, theirs, strict=True)):
            difference = Cell.of(average([a - b for a, b in zip(ours, theirs, strict=True)]).intervals()[0], True)
    (wide,) = across_seeds(paired(mine, _STAGE, None, score_columns("R5", [ALL])))
    seeds = ", ".join(str(run.seed) for run in mine)
    return (grain, *cells, difference, Cell.of(wide), seeds, ", ".join(run.id for run in mine))


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
        style = "bold" if evaluation.name == _STAGE else "dim" if evaluation.name not in _MAIN_ROWS else ""
        table.add_row(Text(_label(evaluation)), *cells, style=style)
    return table


def print_stage_table(workdir: Path, console: Console | None = None) -> None:
    """Prints `stage_table`, never narrower than its cells where the output is no terminal."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=140)
    console.print(stage_table(workdir))


TABLES = {"main": main, "reward_ablation": reward_ablation, "learning": learning}
_MAIN_ROWS = ("base", "sft", "control", "mg_grpo")


def _entry(evaluation: Evaluation, column: str, kind: str = "R5") -> Mapping[str, Any] | None:
    summary = evaluation.summary
    return (summary["tasks"] | summary["dimensions"]).get(column, {}).get(kind)


def _bounds(runs: Sequence[Run], kind: str) -> list[str]:
    """One line per evaluation with missing verdicts: what the mean over all questions could be."""
    lines = []
    for run in runs:
        for evaluation in run.evaluations.values():
            entry = evaluation.summary["tasks"][ALL][kind]
            if entry["n_missing"]:
                low, high = entry["mean_all_bounds"]
                lines.append(
                    f"{_label(evaluation)}, {run.id}: {entry['n_missing']} of {entry['n']} verdicts missing; "
                    f"over all questions {kind} lies between {low:.3f} and {high:.3f}."
                )
    return lines


def _label(evaluation: Evaluation) -> str:
    return "best constant answer" if evaluation.name == "chance" else evaluation.name.replace("_blanked", ", blanked")


def _short(cell: Cell, half: bool) -> str:
    if cell.value is None:
        return "–"
    width = f" ± {(cell.high - cell.low) / 2:.3f}" if half and cell.low is not None and cell.high is not None else ""
    return f"{cell.value:.3f}{width}"
