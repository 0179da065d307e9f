"""The report: one HTML page that needs no other file."""

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from evads_jax.data import media
from evads_jax.density.measurement import Measurement
from evads_jax.density.report import figures, tables

STRIP_FRAMES, STRIP_SIDE = 8, 112
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-size:13px;margin:.6rem 0}td,th{padding:.2rem .6rem;border-bottom:1px solid #ddd;
text-align:left}img{max-width:100%}h2{margin-top:2rem}.note{color:#666;font-size:13px}
"""


def render_page(
    name: str,
    measurements: Sequence[Measurement],
    summary: Mapping[str, Mapping[str, Any]],
    extremes: Mapping[str, Sequence[Measurement]],
    strips: Mapping[str, Sequence[np.ndarray]],
    notes: Sequence[str],
    drawn: Mapping[str, bytes],
) -> str:
    """The page.

    Args:
        name: of the corpus.
        measurements: all videos.
        summary: from `corpus_summary`.
        extremes: heading → the videos shown under it.
        strips: video → a few of its frames; absent for videos without media.
        notes: lines for the reader: what was left out and why.
        drawn: PNG files "scatter" and, where something was measured, "histograms".
    """
    parts = [f"<h1>Information density: {html.escape(name)}</h1>"]
    parts.append(f"<p>{len(measurements)} videos. A dash is a value that is missing, with its reason below.</p>")
    parts.append(tables.as_html(tables.HEAD, tables.density_rows(name, summary)))
    reasons = [[m, why, str(count)] for m, found in summary.items() for why, count in found["missing"].items()]
    if reasons:
        parts += ["<h2>Missing values</h2>", tables.as_html(["metric", "reason", "videos"], reasons)]
    parts.append("<h2>Beside the published benchmarks</h2>" + _image(drawn["scatter"]))
    parts.append(tables.as_html(["benchmark", "V_den", "A_den", "O_den"], tables.comparison_rows(name, summary)))
    if "histograms" in drawn:
        parts.append("<h2>Distribution</h2>" + _image(drawn["histograms"]))
    parts.append(tables.as_html(tables.HEAD, tables.density_rows(name, summary, categories=True)))
    for heading, shown in extremes.items():
        parts.append(f"<h2>{html.escape(heading)}</h2>")
        parts += [_video(m, strips.get(m.video, ())) for m in shown]
    if notes:
        lines = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
        parts.append(f"<h2>Notes</h2><ul class=note>{lines}</ul>")
    body = "\n".join(parts)
    return f"<!doctype html><meta charset=utf-8><title>{html.escape(name)}</title><style>{STYLE}</style>\n{body}\n"


def pick_extremes(measurements: Sequence[Measurement], count: int) -> dict[str, list[Measurement]]:
    """The densest and sparsest videos by V (or its substitute), or by O where there is no V."""
    metrics = {k for m in measurements for k in m.values}
    by = next((k for k in ("V_den", "V_random", "V_blocks", "O_den", "A_den") if k in metrics), None)
    if by is None or count == 0:
        return {}
    ordered = sorted((m for m in measurements if by in m.values), key=lambda m: (m.values[by], m.video))
    dense = ordered[::-1][:count]
    return {f"Densest videos by {by}": dense, f"Sparsest videos by {by}": ordered[:count]}


def strip(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """A few frames, evenly spaced and small."""
    chosen = [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, STRIP_FRAMES).round().astype(int))]
    small = []
    for frame in chosen:
        image = Image.fromarray(frame)
        image.thumbnail((STRIP_SIDE, STRIP_SIDE))
        small.append(np.asarray(image))
    return small


def _video(m: Measurement, frames: Sequence[np.ndarray]) -> str:
    values = ", ".join(f"{k} {v:.2f}" for k, v in m.values.items())
    images = "".join(_image(media.encode_jpeg(frame), "jpeg") for frame in frames)
    curve = _image(figures.png(figures.curves(m))) if any(m.curves.values()) else ""
    return f"<h3>{html.escape(m.video)}</h3><p>{html.escape(values)}</p><div>{images}</div>{curve}"


def _image(data: bytes, kind: str = "png") -> str:
    return f'<img alt="" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'
