"""The density tables as Markdown, CSV, LaTeX and HTML, from one list of rows."""

import csv
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

from evads_jax.density.published import PUBLISHED

Rows = list[list[str]]
HEAD = ["corpus", "metric", "mean", "95 % interval", "SE", "median", "n", "missing", "rule"]
PUBLISHED_HEAD = ["benchmark", "V_den", "A_den", "O_den"]
DIFFERENCE_HEAD = ["metric", "difference of the means", "95 % interval", "p", "n here", "n there", "how"]
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\^{}"}


def density_rows(name: str, summary: Mapping[str, Mapping[str, Any]], categories: bool = False) -> Rows:
    """The corpus's rows: a metric each (with `categories`, one for each category and metric)."""
    rows = []
    for metric, found in summary.items():
        parts = {f"{name} / {k}": v for k, v in found["categories"].items()} if categories else {name: found}
        for label, values in parts.items():
            rows.append(
                [
                    label,
                    metric,
                    number(values["mean"]),
                    interval(values["ci95"]),
                    number(values["standard_error"]),
                    number(values["median"]),
                    str(values["n"]),
                    str(values["n_missing"]),
                    found["rule"],
                ]
            )
    return rows


def comparison_rows(name: str, summary: Mapping[str, Mapping[str, Any]]) -> Rows:
    """V, A and O of this corpus beside the published benchmarks."""
    ours = [number(summary[m]["mean"]) for m in ("V_den", "A_den", "O_den")]
    return [[p.name, f"{p.v:.2f}", f"{p.a:.2f}", f"{p.o:.2f}"] for p in PUBLISHED] + [[name, *ours]]


def difference_rows(compared: Mapping[str, Mapping[str, Any]]) -> Rows:
    """How far this corpus lies above the one it is compared with, a metric each."""
    rows = []
    for metric, found in compared.items():
        there, here = found["n"]
        p = "–" if found["p_value"] is None else f"{found['p_value']:.4f}"
        how = "video by video" if found["paired"] else "two samples"
        rows.append([metric, number(found["mean"]), interval(found["ci95"]), p, str(here), str(there), how])
    return rows


def interval(ends: Sequence[float] | None) -> str:
    """Both ends with two digits, or a dash."""
    return f"[{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "–"


def number(value: float | None) -> str:
    """Two digits, or a dash for what is missing."""
    return "–" if value is None else f"{value:.2f}"


def as_markdown(head: Sequence[str], rows: Rows) -> str:
    """A pipe table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def as_csv(head: Sequence[str], rows: Rows) -> str:
    """Comma-separated, quoted where needed."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([head, *rows])
    return buffer.getvalue()


def as_tex(head: Sequence[str], rows: Rows) -> str:
    """A LaTeX tabular with booktabs rules."""
    lines = [" & ".join("".join(_LATEX.get(c, c) for c in cell) for cell in line) + r" \\" for line in [head, *rows]]
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    return f"\\begin{{tabular}}{{{'l' * len(head)}}}\n{body}\n\\end{{tabular}}\n"


def as_html(head: Sequence[str], rows: Rows) -> str:
    """An HTML table; every cell is escaped."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    return "<table>\n" + "\n".join([line(head, "th"), *(line(row, "td") for row in rows)]) + "\n</table>\n"


FORMATS = {"md": as_markdown, "csv": as_csv, "tex": as_tex, "html": as_html}
