"""The tables of few-shot runs: accuracies by norm and target, paired differences to FLoR's, the published figures.

Runs that differ in nothing but their seed are one row, the average of the seeds, with an interval over episodes and
seeds (`statistics.across_seeds`); of a difference there is also the one over episodes with the seeds fixed.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evads_jax.benchmark.fewshot.evaluation import ACCURACIES, METHODS, SUMMARY
from evads_jax.benchmark.fewshot.intervals import estimate
from evads_jax.benchmark.fewshot.published import DATASETS, PUBLISHED
from evads_jax.benchmark.files import config_hash, read_arrays
from evads_jax.benchmark.statistics import Estimate, across_seeds, average
from evads_jax.benchmark.table import Cell, Table
from evads_jax.errors import UserError

NETWORKS = {"resnet10": "ResNet10", "vit": "ViT"}
NORMS = {
    "batch": "batch (BN)",
    "instance": "instance (IN)",
    "layer": "layer (LN)",
    "fixed": "fixed mix",
    "flor": "FLoR",
}
_FLOR = "flor"
_EVALUATION = "evaluation"


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished few-shot run.

    Attributes:
      folder: its folder.
      config: its `config.json`.
      figures: (set, `<method>_<shots>`) → the figure with its protocol and the set's digest.
      accuracies: the same keys → float32 [E].
    """

    folder: Path
    config: Mapping[str, Any]
    figures: Mapping[tuple[str, str], Mapping[str, Any]]
    accuracies: Mapping[tuple[str, str], np.ndarray]

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config["run"]["seed"]

    @property
    def kind(self) -> tuple[str, str]:
        """Network and norm."""
        return self.config["model"]["network"], self.config["model"]["norm"]

    @property
    def budget(self) -> str:
        """Names everything that the norms of one network must share: the recipe without the norm."""
        return self._hash(without=(("model", "norm"),))

    @property
    def recipe(self) -> str:
        """Names everything of the config that a row's runs must share: all but seed, places and what is asked."""
        return self._hash()

    def _hash(self, without: Sequence[tuple[str, str]] = ()) -> str:
        config = {name: dict(section) for name, section in self.config.items() if isinstance(section, Mapping)}
        for section, field in (("run", "seed"), ("data", "images"), *without):
            config[section].pop(field)
        return config_hash({name: config[name] for name in ("run", "data", "model", "train", "augmentation")})


def read(folder: Path) -> Run:
    """Reads a run.

    Raises:
      UserError: the folder holds no evaluated few-shot run.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        summaries = [
            (json.loads(path.read_text(encoding="utf-8")), path.with_name(ACCURACIES))
            for path in sorted((folder / _EVALUATION).glob(f"*/{SUMMARY}"))
        ]
        if config["job"] != "flor" or not summaries:
            raise ValueError
        figures, accuracies = {}, {}
        for summary, path in summaries:
            arrays = read_arrays(path)
            for name, figure in summary["figures"].items():
                key = summary["set"]["name"], name
                figures[key] = {**figure, "digest": summary["set"]["digest"]}
                accuracies[key] = arrays[name]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            "no evaluated few-shot run", str(folder), "give the folder of a run of configs/flor.py"
        ) from error
    return Run(folder, config, figures, accuracies)


def flor(folders: Sequence[Path]) -> list[Table]:
    """Accuracies, differences to FLoR, published figures.

    Raises:
      UserError: a folder holds no run, runs of one row differ in more than their seed, those of one network in more
        than seed and norm, or two have the same seed.
    """
    groups = _groups([read(folder) for folder in folders])
    tables = [_accuracies(groups), _differences(groups), _published(groups)]
    return [table for table in tables if table.rows]


Groups = Mapping[tuple[str, str], Sequence[Run]]
Columns = Sequence[tuple[str, str]]


def _groups(runs: Sequence[Run]) -> Groups:
    """(network, norm) → its runs by seed, norms in their order."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda r: (list(NETWORKS).index(r.kind[0]), list(NORMS).index(r.kind[1]), r.seed)):
        found.setdefault(run.kind, []).append(run)
    asked: dict[tuple[str, str], Any] = {}
    budgets: dict[str, str] = {}
    for (network, norm), group in found.items():
        seeds = [run.seed for run in group]
        if len(set(seeds)) < len(seeds):
            raise UserError(
                f"two runs of {network}, {norm} have the same seed", str(group[0].folder), "give one a seed"
            )
        for run in group:
            if run.recipe != group[0].recipe:
                what = f"two runs of {network}, {norm} differ in more than their seed"
                raise UserError(what, f"{group[0].folder}, {run.folder}", "give runs of one config")
            if budgets.setdefault(network, run.budget) != run.budget:
                what = f"norms of {network} were trained differently"
                raise UserError(what, str(run.folder), "give runs that differ in seed and norm only")
            for key, figure in run.figures.items():
                protocol = figure["digest"], figure["protocol"]
                if asked.setdefault(key, protocol) != protocol:
                    what = f"{' '.join(key)} was asked differently, or of other images"
                    raise UserError(what, str(run.folder), "evaluate the runs alike")
    return found


def _columns(groups: Groups, method: str) -> list[tuple[str, str]]:
    """(set, figure) of a method, sets in the order of the first run's targets, shots rising."""
    present = {
        key for runs in groups.values() for run in runs for key in run.figures if key[1].startswith(method + "_")
    }
    order = {name: i for i, name in enumerate(next(iter(groups.values()))[0].config["data"]["targets"])}
    return sorted(present, key=lambda key: (order.get(key[0], len(order)), key[0], _shots(key[1])))


def _shots(figure: str) -> int:
    return int(figure.rpartition("_")[2])


def _estimates(runs: Sequence[Run], key: tuple[str, str]) -> list[Estimate] | None:
    """The estimate of every run in %, or None where one lacks it."""
    if not all(key in run.accuracies for run in runs):
        return None
    return [estimate(100 * run.accuracies[key].astype(np.float64), " ".join(key)) for run in runs]


def _cell(runs: Sequence[Run], key: tuple[str, str]) -> Cell:
    found = _estimates(runs, key)
    if found is None:
        return Cell(None)
    (interval,) = across_seeds(found) if len(found) > 1 else average(found).intervals()
    return _without_n(Cell.of(interval))


def _without_n(cell: Cell) -> Cell:
    return dataclasses.replace(cell, n=None)


def _label(groups: Groups) -> str:
    seeds = sorted({run.seed for runs in groups.values() for run in runs})
    return f"{len(seeds)} seed{'s' * (len(seeds) > 1)}: {', '.join(map(str, seeds))}"


def _accuracies(groups: Groups) -> Table:
    shown = [
        (method, shots) for method in METHODS for shots in sorted({_shots(f) for _, f in _columns(groups, method)})
    ]
    sets = list(dict.fromkeys(key[0] for method in METHODS for key in _columns(groups, method)))
    rows: list[tuple[Cell | str, ...]] = []
    for (network, norm), runs in groups.items():
        for method, shots in shown:
            cells = [_cell(runs, (name, f"{method}_{shots}")) for name in sets]
            if any(cell.value is not None for cell in cells):
                rows.append((NETWORKS[network], NORMS[norm], method, str(shots), *cells))
    figures = [f for runs in groups.values() for run in runs for f in run.figures.values()]
    asked = [
        ", ".join(map(str, sorted({f["protocol"][field] for f in figures})))
        for field in ("ways", "queries", "episodes")
    ]
    notes = (
        f"Accuracy in %; {asked[0]}-way, {asked[1]} queries a class; chance is 100 / ways. [low, high]: 95 % interval "
        f"over {asked[2]} episodes and, where there are several, over seeds (Student's). The step is chosen on "
        "validation classes of the source domain, never on a target.",
        *_left_out(groups),
        *_fewer_seeds(groups),
        "Runs: "
        + ", ".join(f"{run.folder.resolve().parent.name}/{run.folder.name}" for r in groups.values() for run in r)
        + ".",
    )
    columns = ("network", "norm", "method", "shots", *sets)
    return Table("flor_accuracy", f"Few-shot accuracy, {_label(groups)}", columns, tuple(rows), notes)


def _left_out(groups: Groups) -> list[str]:
    """One line for every set that lacks classes in some of its episodes."""
    lines: dict[str, None] = {}
    for runs in groups.values():
        for (name, figure), values in runs[0].figures.items():
            if values["left_out"]:
                classes = ", ".join(f"{c} ({n})" for c, n in values["left_out"].items())
                lines[f"{name}, {_shots(figure)} shots: left out for too few images: {classes}."] = None
    return list(lines)


def _fewer_seeds(groups: Groups) -> list[str]:
    """One line for every row that rests on fewer seeds than the title names."""
    seeds = {kind: [run.seed for run in runs] for kind, runs in groups.items()}
    whole = len({seed for found in seeds.values() for seed in found})
    return [
        f"{NETWORKS[network]}, {NORMS[norm]}: only seed{'s' * (len(found) > 1)} {', '.join(map(str, found))}."
        for (network, norm), found in seeds.items()
        if len(found) < whole
    ]


def _differences(groups: Groups) -> Table:
    """FLoR minus every other norm of the same network, by nearest prototypes, paired by seed and episode."""
    columns = _columns(groups, "prototypes")
    rows: list[tuple[Cell | str, ...]] = []
    for (network, norm), runs in groups.items():
        ours = groups.get((network, _FLOR))
        if norm == _FLOR or ours is None:
            continue
        seeds = sorted({r.seed for r in runs} & {r.seed for r in ours})
        pairs = [[next(r for r in side if r.seed == seed) for seed in seeds] for side in (ours, runs)]
        title = f"{NETWORKS[network]}: FLoR − {NORMS[norm]}"
        fixed: list[Cell] = []
        drawn: list[Cell] = []
        for key in columns:
            a, b = (_estimates(side, key) if side else None for side in pairs)
            if a is None or b is None:
                fixed.append(Cell(None))
                drawn.append(Cell(None))
                continue
            differences = [one - other for one, other in zip(a, b, strict=True)]
            fixed.append(_without_n(Cell.of(average(differences).intervals()[0], True)))
            drawn.append(_without_n(Cell.of(across_seeds(differences)[0], True)))
        rows.append((title, *fixed))
        if len(seeds) > 1:
            rows.append((f"{title}, seeds drawn too", *drawn))
    heads = ("difference", *(f"{name}, {_shots(figure)}-shot" for name, figure in columns))
    note = (
        "In percentage points, by prototypes; runs of the same seed saw the same batches, all saw the same episodes. "
        "[low, high]: 95 % interval over episodes, the seeds fixed; in «seeds drawn too» over both (Student's)."
    )
    return Table("flor_differences", f"FLoR minus the other norms, {_label(groups)}", heads, tuple(rows), (note,))


def _published(groups: Groups) -> Table:
    """The paper's figures, and the measured ones where a run was evaluated on the paper's sets."""
    rows: list[tuple[Cell | str, ...]] = []
    for p in PUBLISHED:
        figures = [f"{x:.2f}" for x in p.accuracies]
        rows.append((p.network, "FLoR", p.method, str(p.shots), *figures, "published"))
    for (network, norm), runs in groups.items():
        for method in METHODS:
            for shots in sorted({_shots(f) for _, f in _columns(groups, method)}):
                cells = [_cell(runs, (name, f"{method}_{shots}")) for name in DATASETS.values()]
                if any(cell.value is not None for cell in cells):
                    rows.append((NETWORKS[network], NORMS[norm], method, str(shots), *cells, runs[0].folder.name))
    note = (
        "Published: arXiv 2403.00567, on its datasets, base training on miniImageNet at 224 pixels, 16,000 episodes, "
        "without intervals here; its released code chooses the step on each target's test split. They are no "
        "yardstick for accuracies on other images."
    )
    columns = ("network", "norm", "method", "shots", *DATASETS, "run")
    return Table("flor_published", "Published accuracies, on the paper's datasets", columns, tuple(rows), (note,))
