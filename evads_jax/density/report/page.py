"""The report: one HTML page that needs no other file."""

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from evads_jax.data import media
from evads_jax.density.measurement import VISUAL, Measurement
from evads_jax.density.report import figures, tables

STRIP_FRAMES, STRIP_SIDE = 8, 112
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-size:13px;margin:.6rem 0}td,th{padding:.2rem .6rem;border-bottom:1px solid #ddd;
text-align:left}img{max-width:100%}h2{margin-top:2rem}.note{color:#666;font-size:13px}
"""


def render_page(
    name: str,
    videos: int,
    summary: Mapping[str, Mapping[str, Any]],
    rows: Mapping[str, tuple[list[str], tables.Rows]],
    extremes: Mapping[str, Sequence[Measurement]],
    strips: Mapping[str, Sequence[np.ndarray]],
    notes: Sequence[str],
    drawn: Mapping[str, bytes],
) -> str:
    """The page.

    Args:
        name: of the corpus.
        videos: how many were to be measured.
        summary: from `corpus_summary`.
        rows: head and rows of the tables "density", "published", "categories" and, where two corpora are compared,
            "comparison".
        extremes: heading → the videos shown under it.
        strips: video → a few of its frames; absent for videos without media.
        notes: lines for the reader: what was left out and why.
        drawn: PNG files "scatter" and, where something was measured, "histograms".
    """
    parts = [f"<h1>Information density: {html.escape(name)}</h1>"]
    parts.append(f"<p>{videos} videos. A dash is a value that is missing, with its reason below.</p>")
    parts.append(tables.as_html(*rows["density"]))
    reasons = [[m, why, str(count)] for m, found in summary.items() for why, count in found["missing"].items()]
    if reasons:
        parts += ["<h2>Missing values</h2>", tables.as_html(["metric", "reason", "videos"], reasons)]
    parts.append("<h2>Beside the published benchmarks</h2>" + _image(drawn["scatter"]))
    parts.append(tables.as_html(*rows["published"]))
    if "comparison" in rows:
        parts.append("<h2>Above the corpus that it is compared with</h2>" + tables.as_html(*rows["comparison"]))
    if "histograms" in drawn:
        parts.append("<h2>Distribution</h2>" + _image(drawn["histograms"]))
    parts.append(tables.as_html(*rows["categories"]))
    for heading, shown in extremes.items():
        parts.append(f"<h2>{html.escape(heading)}</h2>")
        parts += [_video(m, strips.get(m.video, ())) for m in shown]
    if notes:
        lines = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
        parts.append(f"<h2>Notes</h2><ul class=note>{lines}</ul>")
    body = "\n".join(parts)
    return f"<!doctype html><meta charset=utf-8><title>{html.escape(name)}</title><style>{STYLE}</style>\n{body}\n"


def pick_extremes(measurements: Sequence[Measurement], count: int) -> dict[str, list[int]]:
    """Heading → places of the densest and sparsest videos by V (or its substitute), or by O where there is no V."""
    metrics = {k for m in measurements for k in m.values}
    by = next((k for k in (*VISUAL, "O_den", "A_den") if k in metrics), None)
    if by is None or count < 1:
        return {}
    known = [i for i, m in enumerate(measurements) if by in m.values]
    known.sort(key=lambda i: (measurements[i].values[by], measurements[i].video))
    return {f"Densest videos by {by}": known[::-1][:count], f"Sparsest videos by {by}": known[:count]}


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
