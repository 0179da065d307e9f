"""A table of figures with intervals, and its three written forms: Markdown, CSV, LaTeX."""

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evads_jax.benchmark.files import write
from evads_jax.benchmark.statistics import Interval


@dataclasses.dataclass(frozen=True)
class Cell:
    """A figure.

    Attributes:
      value: the figure; None prints as a dash.
      low: lower end of its 95 % interval; None when it has none.
      high: upper end.
      n: what it rests on: questions, or facts.
      missing: verdicts that are missing from it.
      signed: whether to print a sign, as for differences.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    missing: int = 0
    signed: bool = False

    @classmethod
    def of(cls, interval: Interval, signed: bool = False) -> "Cell":
        """The cell of an interval."""
        value, low, high = (None if math.isnan(x) else x for x in (interval.mean, interval.low, interval.high))
        return cls(value, low, high, interval.n, signed=signed)

    @classmethod
    def read(cls, entry: Mapping[str, Any] | None) -> "Cell":
        """The cell of an entry of `summary.json`; None gives an empty cell."""
        if entry is None:
            return cls(None)
        low, high = entry["ci95"] or (None, None)
        value = entry["mean_valid"] if "mean_valid" in entry else entry["mean"]
        return cls(value, low, high, entry["n"] - entry.get("n_missing", 0), entry.get("n_missing", 0))

    def text(self) -> str:
        """The figure and its interval, e.g. «0.412 [0.380, 0.447] n=1200», with the number missing if there are any."""
        if self.value is None:
            return "–"
        parts = [self._number(self.value)]
        if self.low is not None and self.high is not None:
            parts.append(f"[{self._number(self.low)}, {self._number(self.high)}]")
        parts += [f"n={self.n}"] * (self.n is not None) + [f"({self.missing} missing)"] * bool(self.missing)
        return " ".join(parts)

    def _number(self, x: float) -> str:
        digits = 3 if abs(x) < 10 else 1
        return f"{x:{'+' if self.signed else ''}.{digits}f}".replace("-", "−")


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text and figures.

    Attributes:
      name: file name without ending.
      title: one line.
      columns: column headings.
      rows: cells, as many as there are columns.
      notes: what a reader must know; printed under the table.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The table as Markdown."""
        head = [_row(self.columns), _row(["---"] * len(self.columns))]
        body = [_row([_escape_markdown(c if isinstance(c, str) else c.text()) for c in row]) for row in self.rows]
        notes = ["", *self.notes] if self.notes else []
        return "\n".join([f"**{self.title}**", "", *head, *body, *notes]) + "\n"

    def csv(self) -> str:
        """The table as CSV, full precision; a column of figures becomes value, low, high, n, missing."""
        figures = [any(isinstance(row[i], Cell) for row in self.rows) for i in range(len(self.columns))]
        parts = ("", " low", " high", " n", " missing")
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([c + p for c, f in zip(self.columns, figures, strict=True) for p in (parts if f else ("",))])
        for row in self.rows:
            values: list[Any] = []
            for cell, figure in zip(row, figures, strict=True):
                if isinstance(cell, Cell):
                    values += [cell.value, cell.low, cell.high, cell.n, cell.missing]
                else:
                    values += [cell, *[None] * 4] if figure else [cell]
            writer.writerow(values)
        return out.getvalue()

    def tex(self) -> str:
        """The table as a LaTeX `tabular` with booktabs rules; intervals are small."""
        rows = [" & ".join(_tex_cell(cell) for cell in row) + r" \\" for row in self.rows]
        head = " & ".join(_escape_tex(c) for c in self.columns) + r" \\"
        notes = [f"% {note}" for note in self.notes]
        lines = [
            f"% {self.title}",
            *notes,
            r"\begin{tabular}{l" + "r" * (len(self.columns) - 1) + "}",
            r"\toprule",
            head,
        ]
        return "\n".join([*lines, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"]) + "\n"


def write_tables(folder: Path, name: str, tables: Sequence[Table]) -> list[Path]:
    """Writes `<name>.md` with all tables, and each table as `<table.name>.csv` and `.tex`."""
    paths = [folder / f"{name}.md"]
    write(paths[0], "\n".join(table.markdown() for table in tables))
    for table in tables:
        for ending, text in (("csv", table.csv()), ("tex", table.tex())):
            paths.append(folder / f"{table.name}.{ending}")
            write(paths[-1], text)
    return paths


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape_markdown(text: str) -> str:
    for a, b in (("&", "&amp;"), ("<", "&lt;"), ("|", r"\|"), ("`", r"\`"), ("*", r"\*"), ("_", r"\_"), ("\n", " ")):
        text = text.replace(a, b)
    return text


def _escape_tex(text: str) -> str:
    special = {c: "\\" + c for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\^{}"}
    special |= {"−": "$-$", "–": "--", "≤": r"$\leq$", "·": r"$\cdot$"}
    return "".join(special.get(c, c) for c in text)


def _tex_cell(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return _escape_tex(cell)
    figure, _, rest = cell.text().partition(" ")
    return _escape_tex(figure) + (rf" {{\scriptsize {_escape_tex(rest)}}}" if rest else "")
