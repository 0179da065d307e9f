"""Shapes as signed distances, so that one description can be photographed, drawn in ink or seen by its warmth.

A shape is a union of parts in a unit square (x right, y down, −1 … 1), some of them accents of another colour, some of
them holes. A distance is negative inside. Every picture of a class shows the parts a little changed, from a view of
its own.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

Field = np.ndarray  # float32 [H, W]
Distance = Callable[..., Field]


@dataclasses.dataclass(frozen=True)
class Part:
    """One piece of a shape.

    Attributes:
      distance: (x, y, *numbers) → signed distance.
      numbers: places and lengths in units of the square.
      role: what it is in the shape.
    """

    distance: Distance
    numbers: tuple[float, ...]
    role: Literal["body", "accent", "hole"] = "body"


@dataclasses.dataclass(frozen=True)
class View:
    """From where a shape is seen: the shape's coordinates of every pixel.

    Attributes:
      x: float32 [H, W].
      y: float32 [H, W].
      pixel: the width of a pixel in units of the shape.
    """

    x: Field
    y: Field
    pixel: float


@dataclasses.dataclass(frozen=True)
class Solid:
    """A shape seen from a view; distances in pixels.

    Attributes:
      body: to the whole shape, float32 [H, W], negative inside.
      accent: to its accents; far away where it has none.
      edge: to the nearest outline of any part that shows, never negative.
    """

    body: Field
    accent: Field
    edge: Field


def oval(x: float, y: float, rx: float, ry: float) -> Part:
    """An ellipse around (x, y)."""
    return Part(_oval, (x, y, rx, ry))


def box(x: float, y: float, half_width: float, half_height: float, corner: float = 0.05) -> Part:
    """A rectangle around (x, y) with rounded corners."""
    return Part(_box, (x, y, half_width, half_height, corner))


def bar(x0: float, y0: float, x1: float, y1: float, radius: float) -> Part:
    """A stroke from one point to another with round ends."""
    return Part(_bar, (x0, y0, x1, y1, radius))


def arc(x: float, y: float, radius: float, thickness: float, start: float = 0.0, stop: float = 360.0) -> Part:
    """A stroke along a circle, from `start` to `stop` degrees (0 right, 90 down)."""
    return Part(_arc, (x, y, radius, thickness, start, stop))


def taper(x: float, top: float, bottom: float, half_top: float, half_bottom: float) -> Part:
    """A symmetric trapezoid between two heights."""
    return Part(_taper, (x, top, bottom, half_top, half_bottom))


def accent(part: Part) -> Part:
    """The part, in the shape's other colour."""
    return dataclasses.replace(part, role="accent")


def hole(part: Part) -> Part:
    """The part, cut out of what was added before it."""
    return dataclasses.replace(part, role="hole")


def look(size: int, rng: np.random.Generator, turn: float, scale: tuple[float, float], shift: float) -> View:
    """A random view.

    Args:
      size: pixels of a side.
      rng: decides it.
      turn: the largest turn, degrees either way.
      scale: least and largest half-width of the shape's square, as a share of the picture's.
      shift: the farthest its middle lies from the picture's, as a share of half a side.
    """
    across = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    right, down = np.meshgrid(across, across)
    at = rng.uniform(-shift, shift, 2)
    angle = math.radians(rng.uniform(-turn, turn))
    whole, aspect = rng.uniform(*scale), math.exp(rng.uniform(-0.16, 0.16))
    cos, sin = math.cos(angle), math.sin(angle)
    x = (cos * (right - at[0]) + sin * (down - at[1])) / (whole * aspect) * rng.choice([-1, 1])
    y = (-sin * (right - at[0]) + cos * (down - at[1])) / (whole / aspect)
    return View((x + rng.uniform(-0.15, 0.15) * y).astype(np.float32), y.astype(np.float32), 2 / size / whole)


def see(parts: Sequence[Part], view: View, rng: np.random.Generator, change: float = 0.05) -> Solid:
    """A shape from a view, each number of its parts a little changed.

    Args:
      parts: the shape.
      view: from where.
      rng: of the changes.
      change: their size: a standard deviation of this share, and of half of it in units of the square.
    """
    body = np.full_like(view.x, np.inf)
    accents, edge = body, body
    for part in parts:
        numbers = np.array(part.numbers)
        angles = 2 if part.distance is _arc else 0  # the last two numbers of an arc are degrees
        lengths = len(numbers) - angles
        numbers[:lengths] *= 1 + change * rng.standard_normal(lengths)
        numbers[:lengths] += change / 2 * rng.standard_normal(lengths)
        distance = part.distance(view.x, view.y, *numbers) / view.pixel
        if part.role == "hole":
            # An outline inside the hole is gone; the hole's own shows where there was something to cut.
            edge = np.maximum(edge, -distance)
            edge = np.minimum(edge, np.maximum(np.abs(distance), body))
            body, accents = np.maximum(body, -distance), np.maximum(accents, -distance)
        else:
            edge = np.minimum(edge, np.abs(distance))
            body = np.minimum(body, distance)
            if part.role == "accent":
                accents = np.minimum(accents, distance)
    return Solid(body.astype(np.float32), accents.astype(np.float32), np.abs(edge).astype(np.float32))


def coverage(distance: Field) -> Field:
    """How much of each pixel lies inside, 0 … 1; distances in pixels."""
    return np.clip(0.5 - distance, 0, 1)


def _oval(x: Field, y: Field, cx: float, cy: float, rx: float, ry: float) -> Field:
    # Not the exact distance, but exact on the outline and of slope about one near it.
    rx, ry = max(abs(rx), 0.02), max(abs(ry), 0.02)
    u, v = (x - cx) / rx, (y - cy) / ry
    radius = np.sqrt(u * u + v * v) + 1e-9
    slope = np.sqrt((u / rx) ** 2 + (v / ry) ** 2) + 1e-9 / min(rx, ry)
    return radius * (radius - 1) / slope


def _box(x: Field, y: Field, cx: float, cy: float, width: float, height: float, corner: float) -> Field:
    corner = min(abs(corner), abs(width), abs(height))
    u, v = np.abs(x - cx) - abs(width) + corner, np.abs(y - cy) - abs(height) + corner
    outside = np.sqrt(np.maximum(u, 0) ** 2 + np.maximum(v, 0) ** 2)
    return outside + np.minimum(np.maximum(u, v), 0) - corner


def _bar(x: Field, y: Field, x0: float, y0: float, x1: float, y1: float, radius: float) -> Field:
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-6), 0, 1)
    return np.hypot(x - x0 - along * dx, y - y0 - along * dy) - abs(radius)


def _arc(x: Field, y: Field, cx: float, cy: float, radius: float, thickness: float, start: float, stop: float) -> Field:
    u, v = x - cx, y - cy
    ring = np.abs(np.hypot(u, v) - radius)
    if stop - start < 360:
        middle, half = math.radians((start + stop) / 2), math.radians((stop - start) / 2)
        off = np.abs((np.arctan2(v, u) - middle + math.pi) % (2 * math.pi) - math.pi)
        ends = [np.hypot(u - radius * math.cos(a), v - radius * math.sin(a)) for a in (middle - half, middle + half)]
        ring = np.where(off <= half, ring, np.minimum(*ends))
    return ring - abs(thickness)


def _taper(x: Field, y: Field, cx: float, top: float, bottom: float, half_top: float, half_bottom: float) -> Field:
    height = max(bottom - top, 0.05)
    lean = (half_bottom - half_top) / height
    side = (np.abs(x - cx) - half_top - lean * (y - top)) / math.hypot(1, lean)
    return np.maximum(side, np.abs(y - (top + bottom) / 2) - height / 2)
