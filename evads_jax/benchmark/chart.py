"""Line charts as inline SVG, coloured by the page's style so that they follow its dark mode."""

import dataclasses
import math
from collections.abc import Sequence

from evads_jax.benchmark.html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 220, 50, 10, 10, 24
COLOURS = 6
_MOST_POINTS = 240


@dataclasses.dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
      name: in the legend.
      points: (step, value) in order of step; values that are not finite break the line.
    """

    name: str
    points: tuple[tuple[float, float], ...]


def line_chart(title: str, series: Sequence[Series]) -> str:
    """A figure with title, lines, axes and, for more than one line, a legend; long lines are averaged in buckets."""
    series = [Series(s.name, thin(s.points)) for s in series]
    known = [(x, y) for s in series for x, y in s.points if math.isfinite(y)]
    if not known:
        return ""
    x_ticks = ticks(min(x for x, _ in known), max(x for x, _ in known), 4)
    y_ticks = ticks(min(y for _, y in known), max(y for _, y in known), 4)
    x0, x1 = min(x for x, _ in known), max(x for x, _ in known)
    x1 += x1 == x0
    y0, y1 = y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - x0) / (x1 - x0), (y - y0) / (y1 - y0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = []
    for y in y_ticks:
        _, at = place(x0, y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{escape(number(y))}</text>')
    for x in (x for x in x_ticks if x0 <= x <= x1):
        parts.append(
            f'<text x="{place(x, y0)[0]:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(number(x))}</text>'
        )
    for i, s in enumerate(series):
        colour = f"var(--c{i % COLOURS})"
        last = next((y for _, y in reversed(s.points) if math.isfinite(y)), math.nan)
        tip = f"<title>{escape(s.name)}: last {escape(number(last))}</title>"
        parts.append(f'<path d="{_path(s.points, place)}" style="stroke: {colour}">{tip}</path>')
        if len(s.points) == 1:
            x, y = place(*s.points[0])
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" style="fill: {colour}"/>')
    legend = "".join(
        f'<span><i style="background: var(--c{i % COLOURS})"></i>{escape(s.name)}</span>' for i, s in enumerate(series)
    )
    frame = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)} by step"'
    head = f'<b>{escape(title)}</b><div class="legend">{legend}</div>'
    return f"<figure>{head}<svg {frame}>{''.join(parts)}</svg></figure>"


def thin(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """At most `_MOST_POINTS` points: means of equal runs of points."""
    size = -(-len(points) // _MOST_POINTS)
    if size <= 1:
        return tuple(points)
    runs = [points[i : i + size] for i in range(0, len(points), size)]
    return tuple((sum(x for x, _ in r) / len(r), sum(y for _, y in r) / len(r)) for r in runs)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, about `count` steps apart."""
    scale = max(abs(low), abs(high))
    if high - low <= 1e-9 * scale + 1e-200:  # flat: there is no step to speak of
        pad = scale / 10 if scale > 1e-100 else 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


def number(x: float) -> str:
    """A short form of a number."""
    return f"{x / 1000:g}k" if abs(x) >= 10_000 else f"{x:.4g}".replace("-", "−")


def _path(points: Sequence[tuple[float, float]], place) -> str:
    path, pen_down = [], False
    for x, y in points:
        if math.isfinite(y):
            px, py = place(x, y)
            path.append(f"{'L' if pen_down else 'M'}{px:.1f} {py:.1f}")
        pen_down = math.isfinite(y)
    return "".join(path)
