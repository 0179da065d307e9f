"""The job `density_table`: V, A and O of measured corpora beside the published ones.

    python -m evads_jax.main --config=configs/tables.py:density --config.runs='runs/density*' --workdir=runs/tables

It stands in `train`, the one package that may know both `density` and `benchmark`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evads_jax import storage
from evads_jax.benchmark import files, tables
from evads_jax.benchmark.table import Cell, Table
from evads_jax.density.published import PUBLISHED
from evads_jax.errors import UserError

METRICS = ("V_den", "A_den", "O_den")
CORPUS = Path("density") / "corpus.json"
_WANTED = tuple(CORPUS.with_name(name).as_posix() for name in ("corpus.json", "config.json"))


def run(config: Mapping[str, Any], workdir: Path) -> None:
    """Writes W/tables/density.{md,csv,tex,html} and prints the Markdown.

    Args:
      config: `runs`: folders of density runs, as in `benchmark.tables`.
      workdir: W.

    Raises:
      UserError: no runs, or one without a measured corpus.
    """
    paths = tables.write(workdir / "tables", "density", [density(tables.find_runs(config["runs"], _WANTED))])
    print(paths[0].read_text(encoding="utf-8"))
    print(f"written: {paths[0]} and csv, tex and html files beside it")


def density(folders: Sequence[Path]) -> Table:
    """A row per corpus, then the published ones, marked as such.

    Raises:
      UserError: a folder holds no measured corpus.
    """
    rows: list[tuple[Cell | str, ...]] = []
    notes: dict[str, None] = {}
    for folder in folders:
        corpora, config = _read(folder / CORPUS), _read(folder / CORPUS.with_name("config.json"))
        for name, summary in corpora.items():
            if name == "comparison":
                continue
            cells = [_cell(summary.get(metric)) for metric in METRICS]
            rows.append((name, *cells, f"{folder.resolve().name}@{files.config_hash(config)}"))
            notes |= {f"{name}, {m}: {summary[m]['rule']}": None for m in METRICS if m in summary}
    rows += [(f"{p.name} (published)", *(f"{x:.2f}" for x in (p.v, p.a, p.o)), "published") for p in PUBLISHED]
    first = (
        "[low, high]: 95 % interval, bootstrap over videos. n: videos. Published: arXiv 2602.08355, without intervals."
    )
    return Table("density", "Information density", ("corpus", *METRICS, "run"), tuple(rows), (first, *notes))


def _cell(found: Mapping[str, Any] | None) -> Cell:
    if found is None or found["mean"] is None:
        return Cell(None)
    low, high = found["ci95"] or (None, None)
    return Cell(found["mean"], low, high, found["n"], found["n_missing"])


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        where = storage.name_of(path.parent.parent)
        raise UserError("no measured corpus", where, "give the folder of a density run") from error
