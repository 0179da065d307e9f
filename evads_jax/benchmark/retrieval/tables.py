"""Tables of retrieval: models by direction, the paired differences to COPE, and the sweep of the loss weights.

A run's model is called by what its config says of it; runs of several seeds are averaged (`benchmark.statistics`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evads_jax import workdir as run_folder
from evads_jax.benchmark import files
from evads_jax.benchmark.retrieval.score import ALL, MEANS, name_direction
from evads_jax.benchmark.retrieval.store import Result, folder, read_result
from evads_jax.benchmark.statistics import Estimate, across_seeds, average
from evads_jax.benchmark.table import Cell, Table
from evads_jax.errors import UserError

FLOOR, TRAINED = "init", "trained"
COPE = "COPE"
_SHORT = {"page": "P", "video": "V", "live": "L"}
_TRAINED_BY = ("run", "data", "tokenizer", "model", "start", "loss", "cope")  # sections that decide what is learned
_NOTE = (
    "[low, high]: 95 % interval, bootstrap over products, averaged over the seeds; n: queries of all seeds. Ties count "
    "with their expected value. Galleries hold every clip of the other domain of the same split."
)


def model_name(config: Mapping) -> str:
    """How the model of a run is called in tables."""
    model = config["model"]
    if model["modality"] != "both":
        return f"{model['modality']} only"
    name = COPE if model["form"] == "paper" else f"{COPE}, {model['form']} form"
    return name if model["shared"] else f"{name}, encoders per domain"


def models(folders: Sequence[Path], split: str = "test") -> list[Table]:
    """Models by direction (R@1), their other metrics, and the paired differences COPE − model.

    Args:
      folders: one run per model and seed; runs of one seed have the same products.
      split: which evaluation is shown.

    Raises:
      UserError: a run without the evaluation, two runs of one model and seed, runs of one model that differ in more
        than their seed, runs of one seed on other products, or runs that were asked differently.
    """
    groups, ids = _read(folders, split)
    rows: list[tuple[Cell | str, ...]] = []
    more: list[tuple[Cell | str, ...]] = []
    for name, runs in groups.items():
        seeds = ", ".join(str(seed) for seed in sorted(runs))
        results = [runs[seed] for seed in sorted(runs)]
        each = [_cell(results, "R@1", (d,)) for d in ALL]
        rows.append((name, _cell(results, "R@1", ALL), *each, seeds))
        median = [entry["directions"]["mean"]["median_rank"] for entry in (r.summary for r in results)]
        rank = Cell(float(np.mean(median)) if None not in median else None)
        more.append((name, *(_cell(results, metric, ALL) for metric in MEANS), rank))
    directions = [_arrow(d) for d in ALL]
    label = f"{split} products"
    return [
        Table("retrieval_r1", f"R@1, {label}", ("model", "mean", *directions, "seeds"), tuple(rows), (_NOTE, ids)),
        Table(
            "retrieval_means",
            f"Means of the six directions, {label}",
            ("model", "R@1", "R@5", "R@10", "mAP", "one-shot", "median rank"),
            tuple(more),
            (
                _NOTE,
                "one-shot: accuracy of the nearest example, one drawn from each product. Median rank of the first "
                "right clip: mean of the directions' medians and of the seeds, without interval.",
                ids,
            ),
        ),
        *_differences(groups, label, ids),
    ]


def weights(folders: Sequence[Path], split: str = "validation") -> Table:
    """What the loss weights do: a row per run, on validation products.

    Args:
      folders: one run per setting, of one seed.
      split: which evaluation is shown.

    Raises:
      UserError: a run without the evaluation.
    """
    rows: list[tuple[Cell | str, ...]] = []
    first: Estimate | None = None
    for path in folders:
        result, config = read_result(folder(path, TRAINED, split)), run_folder.read(path)
        loss = config["loss"]
        pairs = ", ".join(f"{name} {weight:g}" for name, weight in sorted(loss["pairs"].items()) if weight != 1)
        cells = [_cell([result], metric, ALL) for metric in ("R@1", "R@5", "mAP", "one_shot")]
        (mine,) = _estimates([result], "R@1", ALL)
        gap = Cell(None) if first is None else Cell.of((mine - first).intervals()[0], signed=True)
        first = first or mine
        weighed = pairs or "all 1", f"{loss['classification']:g}", f"{loss['temperature']:g}"
        rows.append((path.name, *weighed, *cells, gap))
    columns = ("setting", "pair weights", "classification", "τ", "R@1", "R@5", "mAP", "one-shot", "R@1 − first, paired")
    notes = (_NOTE, "Means of the six directions; one seed, chosen from on validation products only.")
    return Table("retrieval_weights", f"Loss weights, {split} products", columns, tuple(rows), notes)


def _read(folders: Sequence[Path], split: str) -> tuple[dict[str, dict[int, Result]], str]:
    """Model → seed → result; the floor, a model before training, is a model of its own."""
    groups: dict[str, dict[int, Result]] = {}
    splits: dict[int, tuple[str, Path]] = {}
    recipes: dict[str, tuple[str, Path]] = {}
    protocols: list[tuple[dict[str, Any], Path]] = []
    ids = []
    for path in folders:
        config = run_folder.read(path)
        name, seed = model_name(config), config["run"]["seed"]
        ids.append(f"{path.resolve().name}@{files.config_hash(config)}")
        recipe, other = recipes.setdefault(name, (_recipe(config), path))
        if recipe != _recipe(config):
            raise UserError(f"two runs of {name} differ in more than their seed", f"{other}, {path}", "leave one out")
        for stage, called in ((TRAINED, name), (FLOOR, f"{name}, untrained")):
            where = folder(path, stage, split)
            if stage == FLOOR and not (where / "summary.json").is_file():
                continue
            result = read_result(where)
            protocols.append((_protocol(result), where))
            if protocols[0][0] != protocols[-1][0]:
                what = f"evaluated differently: {protocols[0][0]} and {protocols[-1][0]}"
                raise UserError(what, f"{protocols[0][1]}, {where}", "start the runs again with one config.eval")
            known, other = splits.setdefault(seed, (result.scores.split, where))
            if known != result.scores.split:
                raise UserError("runs of one seed were evaluated on different products", f"{other} and {where}")
            if seed in groups.setdefault(called, {}):
                raise UserError(f"two runs of {called} and seed {seed}", str(path), "leave one out")
            groups[called][seed] = result
    if not groups:
        raise UserError("no runs to tabulate", "config.runs", "name their folders")
    order = sorted(groups, key=lambda name: (name.endswith("untrained"), name != COPE))
    return {name: groups[name] for name in order}, "Runs: " + ", ".join(ids) + "."


def _recipe(config: Mapping) -> str:
    """Names everything of a config that a row's runs must share: all but seed, places and what is asked."""
    sections = {name: dict(config[name]) for name in _TRAINED_BY if name in config}
    for section, field in (("run", "seed"), ("data", "shards")):
        sections.get(section, {}).pop(field, None)
    return files.config_hash(sections)


def _protocol(result: Result) -> dict[str, Any]:
    """How often examples and products were drawn: figures of other numbers of draws cannot be paired."""
    return {name: result.summary["protocol"][name] for name in ("draws", "replicates")}


def _estimates(results: Sequence[Result], metric: str, directions: Sequence[str]) -> list[Estimate]:
    return [r.scores.estimate(metric, directions, r.summary["bootstrap"]["replicates"]) for r in results]


def _cell(results: Sequence[Result], metric: str, directions: Sequence[str]) -> Cell:
    return Cell.of(average(_estimates(results, metric, directions)).intervals()[0])


def _differences(groups: Mapping[str, Mapping[int, Result]], label: str, ids: str) -> list[Table]:
    """COPE (or its released form, where that alone was trained) minus every other model, over the seeds of both."""
    reference = next((name for name in groups if name.startswith(COPE) and not name.endswith("untrained")), None)
    if reference is None:
        return []
    rows: list[tuple[Cell | str, ...]] = []
    for name, runs in groups.items():
        if name == reference or not (shared := sorted(runs.keys() & groups[reference].keys())):
            continue
        pairs = [[group[seed] for seed in shared] for group in (groups[reference], runs)]
        cells = []
        for metric in MEANS:
            ours, theirs = (_estimates(results, metric, ALL) for results in pairs)
            gaps = [a - b for a, b in zip(ours, theirs, strict=True)]
            cells.append(Cell.of(average(gaps).intervals()[0], signed=True))
            if metric == "R@1":
                (wide,) = across_seeds(gaps)
                drawn = Cell.of(wide, signed=True)
        rows.append((f"{reference} − {name}", *cells, drawn))
    if not rows:
        return []
    columns = ("difference", "R@1", "R@5", "R@10", "mAP", "one-shot", "R@1, seeds drawn too")
    notes = (
        _NOTE + " Differences are paired by query; the seeds are fixed, but for the last column (Student's).",
        ids,
    )
    return [Table("retrieval_differences", f"Paired differences, {label}", columns, tuple(rows), notes)]


def _arrow(direction: str) -> str:
    for query, short in _SHORT.items():
        for gallery, other in _SHORT.items():
            if direction == name_direction(query, gallery):
                return f"{short}→{other}"
    raise ValueError(direction)
