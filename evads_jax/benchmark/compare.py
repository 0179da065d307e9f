"""Which results may stand in one table, and the paired figures of several runs."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evads_jax.benchmark import files
from evads_jax.benchmark.files import CHANCE, Evaluation
from evads_jax.benchmark.score import ALL, members, metric
from evads_jax.benchmark.statistics import Estimate, Videos
from evads_jax.errors import UserError

SHORT = {"Cognition & Reasoning": "Cognition", ALL: "All"}
INTERVAL_NOTE = "[low, high]: 95 % interval, bootstrap over videos. n: questions with a verdict."
# An evaluation and the mask of usable rows → numerators and denominators, [N, K] each.
Columns = Callable[[Evaluation, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's folder and its evaluations.

    Attributes:
      folder: the folder.
      config: its `config.json`; empty where there is none.
      evaluations: name → evaluation (`files.load`).
    """

    folder: Path
    config: dict[str, Any]
    evaluations: dict[str, Evaluation]

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Reads a run's folder.

        Raises:
          UserError: it holds no evaluation.
        """
        path = folder / "config.json"
        config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return cls(folder, config, files.load(folder))

    @property
    def id(self) -> str:
        """The folder's name and the config's hash."""
        return f"{self.folder.resolve().name}@{next(iter(self.evaluations.values())).summary['config_hash']}"

    @property
    def seed(self) -> int:
        """The run's seed."""
        return next(iter(self.evaluations.values())).summary["seed"]

    @property
    def reward(self) -> str:
        """The grain of its reward."""
        return self.config.get("rl", {}).get("reward", "unknown")


def check_comparable(runs: Sequence[Run], same_split: bool = True) -> None:
    """Refuses results that were not made alike.

    Compared are the protocol (but for blanked frames and the constant answers), the judge, and the split: among all
    runs, or, as a seed may draw videos of its own, among the runs of one seed.

    Raises:
      UserError: two results differ; names the field and both folders.
    """
    seen: dict[str, tuple[Any, Path]] = {}
    for run in runs:
        for name, evaluation in run.evaluations.items():
            summary = evaluation.summary
            fields = {"judge": summary["judge"]}
            if name != CHANCE:
                protocol = {"samples": 1, **summary["protocol"]}
                fields |= {f"protocol.{k}": v for k, v in protocol.items() if k != "blank_frames"}
            fields["split" if same_split else f"split of seed {summary['seed']}"] = summary["split"]["hash"]
            for field, value in fields.items():
                other, where = seen.setdefault(field, (value, evaluation.folder))
                if other != value:
                    raise UserError(
                        f"results of different {field} do not go into one table: {other!r} and {value!r}",
                        f"{where} and {evaluation.folder}",
                        "evaluate them alike, or make two tables",
                    )


def paired(runs: Iterable[Run], a: str, b: str | None, columns: Columns) -> list[Estimate]:
    """For each run the figures of evaluation `a`, or their paired difference to `b`.

    With `b`, only questions with a verdict on both sides count.

    Args:
      runs: the runs; each has both evaluations.
      a: an evaluation's name.
      b: another's; None for the figures themselves.
      columns: what is averaged.
    """
    return [figures(run.evaluations[a], run.evaluations[b] if b else None, columns) for run in runs]


def figures(first: Evaluation, second: Evaluation | None, columns: Columns) -> Estimate:
    """The figures of an evaluation, or their paired difference to another one of the same split (see `paired`)."""
    bootstrap, split = first.summary["bootstrap"], first.summary["split"]["hash"]
    names = [row["video"] for row in first.verdicts]
    # One set of draws per split, whatever the run's seed: seeds that share videos are resampled together.
    videos = Videos(names, bootstrap["replicates"], 0, split)
    usable = valid(first) & valid(second or first)
    estimate = videos.ratio(names, *columns(first, usable))
    return estimate - videos.ratio(names, *columns(second, usable)) if second else estimate


def valid(evaluation: Evaluation) -> np.ndarray:
    """The rows that have a verdict."""
    return np.array([row["score"] is not None for row in evaluation.verdicts], dtype=bool)


def score_columns(kind: str, groups: Sequence[str], field: str = "score") -> Columns:
    """Columns for `paired`: the mean of R5, R3 or R2 in some tasks or dimensions.

    Args:
      kind: the metric.
      groups: tasks, dimensions, "all".
      field: "score", or "shuffled" (the mean over shuffled answers; R5 only).
    """

    def columns(evaluation: Evaluation, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = evaluation.verdicts
        scores = np.array([metric(kind, math.nan if row[field] is None else row[field]) for row in rows])
        grouped = members(rows)
        masks = grouped["tasks"] | grouped["dimensions"]
        usable = usable & ~np.isnan(scores)
        none = np.zeros(len(rows), dtype=bool)
        below = np.stack([(masks.get(group, none) & usable) for group in groups], axis=1).astype(np.float64)
        return np.where(below > 0, np.nan_to_num(scores)[:, None], 0.0), below

    return columns


def fact_columns(evaluation: Evaluation, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns for `paired`: facts right of those expected, and wrong of those stated; verdicts do not matter here."""
    expected, right, wrong = np.array([row["facts"] for row in evaluation.verdicts], dtype=np.float64).T
    return np.stack([right, wrong], axis=1), np.stack([expected, right + wrong], axis=1)
