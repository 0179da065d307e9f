"""Runs that differ in one thing, each value of it averaged over seeds: the reward's grain, the number of videos."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from evads_jax.benchmark.compare import (
    INTERVAL_NOTE,
    SHORT,
    Run,
    check_comparable,
    fact_columns,
    paired,
    score_columns,
)
from evads_jax.benchmark.score import ALL, METRICS
from evads_jax.benchmark.statistics import across_seeds, average
from evads_jax.benchmark.table import Cell, Table
from evads_jax.data.records import DIMENSIONS
from evads_jax.errors import UserError

GRAINS = ("strict", "r3", "r5", "mg")
STAGE = "mg_grpo"
_AVERAGES = INTERVAL_NOTE + " Averages over seeds; n counts the questions of all seeds."
_HEADS = (
    *(f"{kind} all" for kind in METRICS),
    *(f"R5 {SHORT.get(d, d)}" for d in DIMENSIONS),
    "facts right",
    "facts wrong",
)
_Key = TypeVar("_Key", bound=Hashable)


def reward_ablation(folders: Sequence[Path]) -> list[Table]:
    """MG-GRPO under the reward grains strict, R3, R5 and MG, averaged over seeds, with the paired difference to MG.

    Raises:
      UserError: a run has no such stage or no known grain, or runs of one seed differ in protocol, judge or split.
    """
    runs = [Run.read(folder) for folder in folders]
    check_comparable(runs, same_split=False)
    for run in runs:
        if STAGE not in run.evaluations:
            raise UserError(f"the run has no {STAGE} evaluation", str(run.folder), "finish it, or leave it out")
        if run.reward not in GRAINS:
            raise UserError(f"unknown reward grain {run.reward!r}", str(run.folder), "one of " + ", ".join(GRAINS))
    groups = _groups(runs, lambda run: run.reward, "reward {}")
    rows = [(grain, *_row(groups[grain], STAGE, groups.get("mg", {}))) for grain in GRAINS if grain in groups]
    columns = ("reward", *_HEADS, "R5 − mg, paired", "R5, seeds drawn too", "seeds", "runs")
    notes = (
        _AVERAGES,
        "«R5 − mg»: over the seeds that both have. «seeds drawn too»: Student's interval, on the wide side.",
    )
    return [Table("reward_ablation", "Reward grain, stage mg_grpo", columns, tuple(rows), notes)]


def data_scale(folders: Sequence[Path]) -> list[Table]:
    """SFT and MG-GRPO by the number of training videos, averaged over seeds, with the paired difference to the most.

    Raises:
      UserError: runs without their config or without either stage, or runs of one seed that differ in protocol, judge
        or split.
    """
    runs = [Run.read(folder) for folder in folders]
    check_comparable(runs, same_split=False)
    for run in runs:
        if not {"videos_sft", "videos_rl"} <= run.config.get("data", {}).keys():
            raise UserError("the run's config names no numbers of videos", str(run.folder), "leave it out")
        if not {"sft", STAGE} & run.evaluations.keys():
            raise UserError("the run has neither an sft nor an mg_grpo evaluation", str(run.folder), "leave it out")
    rows: list[tuple[Cell | str, ...]] = []
    for stage in ("sft", STAGE):
        having = [run for run in runs if stage in run.evaluations]
        groups = _groups(having, _scale, "videos (SFT, RL) {}")
        order = sorted(groups, key=lambda scale: [count or float("inf") for count in scale])
        for scale in order:
            videos = (str(count or "all") for count in scale)
            rows.append((stage, *videos, *_row(groups[scale], stage, groups[order[-1]])))
    columns = ("stage", "SFT videos", "RL videos", *_HEADS, "R5 − most, paired", "R5, seeds drawn too", "seeds", "runs")
    notes = (_AVERAGES, "«R5 − most»: minus the row with the most videos, over the seeds that both have.")
    return [Table("data_scale", "Number of training videos", columns, tuple(rows), notes)]


def _scale(run: Run) -> tuple[int, int]:
    return run.config["data"]["videos_sft"], run.config["data"]["videos_rl"]


def _groups(runs: Sequence[Run], key: Callable[[Run], _Key], name: str) -> dict[_Key, dict[int, Run]]:
    groups: dict[_Key, dict[int, Run]] = {}
    for run in runs:
        group = groups.setdefault(key(run), {})
        if run.seed in group:
            what = f"two runs of {name.format(key(run))} and seed {run.seed}"
            raise UserError(what, str(run.folder), "leave one out")
        group[run.seed] = run
    return groups


def _row(group: Mapping[int, Run], stage: str, base: Mapping[int, Run]) -> tuple[Cell | str, ...]:
    """Figures of a group of seeds, its paired difference to another group, and which runs they are."""
    mine = [group[seed] for seed in sorted(group)]
    by_metric = [average(paired(mine, stage, None, score_columns(kind, [ALL]))) for kind in METRICS]
    dimensions = average(paired(mine, stage, None, score_columns("R5", list(DIMENSIONS))))
    facts = average(paired(mine, stage, None, fact_columns))
    cells = [Cell.of(i) for e in (*by_metric, dimensions, facts) for i in e.intervals()]
    shared = sorted(group.keys() & base.keys())
    difference = Cell(None)
    if shared and group is not base:
        one = score_columns("R5", [ALL])
        ours = paired([group[s] for s in shared], stage, None, one)
        theirs = paired([base[s] for s in shared], stage, None, one)
        if all(a.draws == b.draws for a, b in zip(ours, theirs, strict=True)):
            difference = Cell.of(average([a - b for a, b in zip(ours, theirs, strict=True)]).intervals()[0], True)
    (wide,) = across_seeds(paired(mine, stage, None, score_columns("R5", [ALL])))
    seeds = ", ".join(str(run.seed) for run in mine)
    return (*cells, difference, Cell.of(wide), seeds, ", ".join(run.id for run in mine))
