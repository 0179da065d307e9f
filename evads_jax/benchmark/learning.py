"""What the stages learned, over seeds: scores, facts, differences, and what the pixels are worth.

Three tables, all averages over the seeds of the runs (formula: `benchmark.statistics`):

1. each stage's R5 by task, facts right and wrong, answer length and distinct answers, with chance beside it;
2. the paired differences mg_grpo − sft and mg_grpo − control, of R5 and of the facts, also seed by seed;
3. R5 with the pixels, with blanked frames, and with either's answers shuffled among videos of the same question
   template: blanked answers that score above their own shuffling know their video from something else than its pixels.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evads_jax.benchmark.chance import PERMUTATIONS
from evads_jax.benchmark.compare import Run, check_comparable, fact_columns, paired, score_columns
from evads_jax.benchmark.files import CHANCE, STAGES, Evaluation
from evads_jax.benchmark.score import ALL, length
from evads_jax.benchmark.statistics import across_seeds, average
from evads_jax.benchmark.table import Cell, Table
from evads_jax.data.records import TASKS
from evads_jax.errors import UserError

_DIFFERENCES = (("mg_grpo", "sft"), ("mg_grpo", "control"))
_NOTE = (
    "[low, high]: 95 % interval, bootstrap over videos, averaged over the seeds; n: questions (facts: facts) "
    "of all seeds."
)


def learning(folders: Sequence[Path]) -> list[Table]:
    """The three tables, from one run per seed.

    Raises:
      UserError: two runs have the same seed, or runs differ in protocol, judge or stages.
    """
    read = _read(folders)
    return [table for table in (_stages(*read), _differences(*read), _pixels(*read)) if table.rows]


def learning_summary(folders: Sequence[Path]) -> list[Table]:
    """What a first page has room for: the stages and their differences over all tasks, and the table of the pixels.

    Raises:
      UserError: as `learning`.
    """
    runs, names, label, ids = _read(folders)
    rows: list[tuple[Cell | str, ...]] = []
    pairs = [pair for pair in _DIFFERENCES if set(pair) <= set(names)]
    shown = [name for name in names if name == CHANCE or name in STAGES]
    for a, b in [*((name, None) for name in shown), *pairs]:
        scores = average(paired(runs, a, b, score_columns("R5", [ALL]))).intervals()
        facts = average(paired(runs, a, b, fact_columns)).intervals()
        title = f"{_title(a)} − {b}" if b else _title(a)
        rows.append((title, *(dataclasses.replace(Cell.of(i, b is not None), n=None) for i in (*scores, *facts))))
    columns = ("", "R5", "facts right", "facts wrong")
    asked = ", ".join(str(run.evaluations[names[0]].summary["n"]) for run in runs)
    notes = (
        f"Questions, by seed: {asked}. [low, high]: 95 % interval, clustered by video. Differences are paired.",
        ids,
    )
    short = Table("learning_summary", f"What the stages learned, {label}", columns, tuple(rows), notes)
    return [short, *(table for table in (_pixels(runs, names, label, ids),) if table.rows)]


def _read(folders: Sequence[Path]) -> tuple[list[Run], list[str], str, str]:
    """The runs by seed, the names of their evaluations, and what to call them in a title and a note."""
    runs = sorted((Run.read(folder) for folder in folders), key=lambda run: run.seed)
    check_comparable(runs, same_split=False)
    seeds = [run.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        raise UserError("two runs have the same seed", ", ".join(str(run.folder) for run in runs), "give one per seed")
    names = [name for name in runs[0].evaluations if all(name in run.evaluations for run in runs)]
    for run in runs:
        if others := sorted(run.evaluations.keys() ^ set(names)):
            raise UserError(f"only some runs have {', '.join(others)}", str(run.folder), "evaluate them alike")
    label = f"{len(runs)} seed{'s' * (len(runs) > 1)}: {', '.join(map(str, seeds))}"
    return runs, names, label, "Runs: " + ", ".join(run.id for run in runs) + "."


def _title(name: str) -> str:
    return "best constant answer" if name == CHANCE else name


def _tasks(runs: Sequence[Run]) -> list[str]:
    present = {task for run in runs for e in run.evaluations.values() for task in e.summary["tasks"]}
    return [task for task in (*TASKS, ALL) if task in present]


def _stages(runs: Sequence[Run], names: Sequence[str], label: str, ids: str) -> Table:
    tasks = _tasks(runs)
    shown = [name for name in names if name == CHANCE or name in STAGES]
    rows: list[tuple[Cell | str, ...]] = []
    for name in shown:
        scores = average(paired(runs, name, None, score_columns("R5", tasks))).intervals()
        facts = average(paired(runs, name, None, fact_columns)).intervals()
        (words,) = average(paired(runs, name, None, _length_columns)).intervals()
        distinct = [run.evaluations[name].summary["answers"][ALL]["distinct"] for run in runs]
        rows.append(
            (
                _title(name),
                *map(Cell.of, (*scores, *facts, words)),
                ", ".join(map(str, distinct)),
            )
        )
    columns = ("stage", *(f"R5 {task}" for task in tasks), "facts right", "facts wrong", "answer length", "distinct")
    notes = (
        _NOTE,
        "Facts right: share of the script's facts that the reference states and the answer states too; facts wrong: "
        "share of the values an answer states that are not the script's; both from a matcher of their own, on which "
        "nothing is trained. Answer length in words (Chinese: characters). Distinct: different answers, per seed. Best "
        "constant answer: chosen per task on validation videos.",
        ids,
    )
    return Table("learning_stages", f"Stages, {label}", columns, tuple(rows), notes)


def _differences(runs: Sequence[Run], names: Sequence[str], label: str, ids: str) -> Table:
    tasks = [ALL, *(task for task in _tasks(runs) if task != ALL)]
    rows: list[tuple[Cell | str, ...]] = []
    for a, b in _DIFFERENCES:
        if a not in names or b not in names:
            continue
        title = f"{a} − {b}"
        scores, facts = paired(runs, a, b, score_columns("R5", tasks)), paired(runs, a, b, fact_columns)
        fixed = average(scores).intervals() + average(facts).intervals()
        rows.append((title, *(Cell.of(interval, True) for interval in fixed)))
        if len(runs) > 1:
            drawn = across_seeds(scores) + across_seeds(facts)
            rows.append((f"{title}, seeds drawn too", *(Cell.of(interval, True) for interval in drawn)))
            for run, score, fact in zip(runs, scores, facts, strict=True):
                each = score.intervals() + fact.intervals()
                rows.append((f"{title}, seed {run.seed}", *(Cell.of(interval, True) for interval in each)))
    columns = ("difference", *(f"R5 {task}" for task in tasks), "facts right", "facts wrong")
    notes = (
        _NOTE + " Differences are paired by question and clustered by video; the seeds are fixed, except in «seeds "
        "drawn too», Student's, on the wide side.",
        ids,
    )
    return Table("learning_differences", f"Paired differences, {label}", columns, tuple(rows), notes)


def _pixels(runs: Sequence[Run], names: Sequence[str], label: str, ids: str) -> Table:
    tasks = _tasks(runs)
    rows: list[tuple[Cell | str, ...]] = []
    for stage in STAGES:
        blanked = f"{stage}_blanked"
        if blanked not in names or stage not in names:
            continue
        for title, name, field in (
            (stage, stage, "score"),
            (f"{stage}, frames blanked", blanked, "score"),
            (f"{stage}, answers shuffled", stage, "shuffled"),
            (f"{stage}, frames blanked, answers shuffled", blanked, "shuffled"),
        ):
            figures = average(paired(runs, name, None, score_columns("R5", tasks, field))).intervals()
            rows.append((title, *map(Cell.of, figures)))
    notes = (
        _NOTE,
        "Shuffled: the stage's answers dealt out among the videos of the same question template; mean of "
        f"{PERMUTATIONS} permutations.",
        ids,
    )
    return Table("learning_pixels", f"R5 and the pixels, {label}", ("answers", *tasks), tuple(rows), notes)


def _length_columns(evaluation: Evaluation, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([length(row["answer"]) for row in evaluation.verdicts], dtype=np.float64)[:, None]
    return lengths, np.ones_like(lengths)
