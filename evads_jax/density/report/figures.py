"""The plots: histograms per category, V–A–O beside the published benchmarks, curves by second."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure

from evads_jax.density.measurement import Measurement
from evads_jax.density.published import PUBLISHED
from evads_jax.density.report.corpus import NO_CATEGORY

LABELS = {"A_den": "A_den, words heard per second", "O_den": "O_den, words read per second"}
OURS, THEIRS = "#c0392b", "#34495e"
_CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Source Han Sans CN")


def histograms(measurements: Sequence[Measurement], summary: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """A panel for each measured metric, the categories stacked; None where nothing was measured.

    Categories that no font at hand can write are numbered, in the order of the table.
    """
    shown = [metric for metric, found in summary.items() if found["n"]]
    if not shown:
        return None
    names = sorted({m.category or NO_CATEGORY for m in measurements})
    labels = names if _can_draw("".join(names)) else [f"category {i}" for i in range(1, len(names) + 1)]
    figure, axes = plt.subplots(1, len(shown), figsize=(4.6 * len(shown), 3.4), squeeze=False, layout="constrained")
    for axis, metric in zip(axes[0], shown, strict=True):
        edges = summary[metric]["histogram"]["edges"]
        groups = [
            np.clip(
                [m.values[metric] for m in measurements if (m.category or NO_CATEGORY) == n and metric in m.values],
                0,
                edges[-1],
            )
            for n in names
        ]
        axis.hist(groups, bins=edges, stacked=True, label=labels)
        axis.axvline(summary[metric]["mean"], color=OURS, linewidth=1.5)
        axis.set(xlabel=LABELS.get(metric, metric), ylabel="videos")
    if len(names) > 1:
        axes[0][-1].legend(fontsize=7)
    return figure


def scatter(name: str, summary: Mapping[str, Mapping[str, Any]]) -> Figure:
    """A against O, V against A, V against O: the published benchmarks, and this corpus where it has both values."""
    pairs = [("A_den", "O_den"), ("V_den", "A_den"), ("V_den", "O_den")]
    published = {
        "V_den": [p.v for p in PUBLISHED],
        "A_den": [p.a for p in PUBLISHED],
        "O_den": [p.o for p in PUBLISHED],
    }
    figure, axes = plt.subplots(1, 3, figsize=(13.5, 4), layout="constrained")
    for axis, (x, y) in zip(axes, pairs, strict=True):
        axis.scatter(published[x], published[y], color=THEIRS, s=22)
        for i, benchmark in enumerate(PUBLISHED):
            axis.annotate(
                benchmark.name, (published[x][i], published[y][i]), (4, 3), textcoords="offset points", fontsize=7
            )
        if summary[x]["n"] and summary[y]["n"]:
            at = summary[x]["mean"], summary[y]["mean"]
            bars = [
                np.abs(np.subtract(s["ci95"] or (m, m), m))[:, None]
                for s, m in zip((summary[x], summary[y]), at, strict=True)
            ]
            axis.errorbar(*at, xerr=bars[0], yerr=bars[1], fmt="*", markersize=12, color=OURS)
            axis.annotate(name, at, (6, -10), textcoords="offset points", fontsize=8, color=OURS)
        axis.margins(x=0.2, y=0.12)
        axis.set(xlabel=LABELS.get(x, x), ylabel=LABELS.get(y, y))
    return figure


def curves(measurement: Measurement) -> Figure:
    """One video by second: where in it the information sits."""
    shown = [k for k in measurement.curves if measurement.curves[k]]
    figure, axes = plt.subplots(
        len(shown), 1, figsize=(6, 0.9 * len(shown)), squeeze=False, sharex=True, layout="constrained"
    )
    for axis, metric in zip(axes[:, 0], shown, strict=True):
        values = np.array([np.nan if v is None else v for v in measurement.curves[metric]], float)
        axis.stairs(np.nan_to_num(values), np.arange(len(values) + 1), fill=True, color=THEIRS)
        axis.set_ylabel(metric, fontsize=7)
        axis.tick_params(labelsize=6)
    axes[-1, 0].set_xlabel("seconds", fontsize=7)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG file; it is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def _can_draw(text: str) -> bool:
    """Whether a font for the text is at hand; Chinese ones are taken where they are."""
    if text.isascii():
        return True
    known = {font.name for font in font_manager.fontManager.ttflist}
    found = next((font for font in _CJK_FONTS if font in known), None)
    if found:
        plt.rcParams["font.sans-serif"] = [found, "DejaVu Sans"]
    return found is not None
