"""The rendered domains: one shape as a photo, a line drawing and a thermal picture.

`photo` is the source domain: a product of any colour and surface, lit from one side, on a table before a wall, with a
shadow and the camera's noise. `line_drawing` keeps the outlines, in a hand's uncertain stroke. `thermal_picture` keeps
where it is warm: coarse, blurred, in a palette of false colours. Textures, which keep no shape, are in `textures.py`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from evads_jax.data.fewshot.noise import blur, colour, soft, stripes, to_bytes
from evads_jax.data.fewshot.shapes import Part, Solid, bar, coverage, look, see

_DIM = (0.15, 0.85)


def photo(parts: Sequence[Part], size: int, rng: np.random.Generator) -> np.ndarray:
    """A photo of a product, uint8 [size, size, 3].

    Args:
      parts: its shape.
      size: pixels of a side.
      rng: decides everything else.
    """
    view = look(size, rng, turn=30.0, scale=(0.5, 0.8), shift=0.16)
    solid = see(parts, view, rng)
    image = _scene(size, rng)
    # The shadow falls to one side, softer the farther it reaches.
    fall = np.round(rng.uniform(-0.09, 0.09, 2) * size).astype(int)
    shadow = blur(coverage(np.roll(solid.body, tuple(fall), (0, 1))), size * rng.uniform(0.02, 0.06))
    image = image * (1 - rng.uniform(0.2, 0.6) * shadow[..., None])
    shade, shine = _light(solid, size, rng)
    skin = _surface(view.x, view.y, size, rng)
    second = colour(rng, (0, 0.9), (0.1, 1)) * np.ones_like(skin)
    over = coverage(solid.accent)[..., None]
    lit = (skin * (1 - over) + second * over) * shade[..., None] + shine[..., None]
    over = coverage(solid.body)[..., None]
    image = image * (1 - over) + lit * over
    image = blur(image, rng.uniform(0, 0.012) * size)
    image = image * rng.uniform(0.85, 1.15, 3) + rng.normal(0, rng.uniform(0.01, 0.04), image.shape)
    return to_bytes(image)


def line_drawing(parts: Sequence[Part], size: int, rng: np.random.Generator) -> np.ndarray:
    """A drawing of a product in ink or pencil on paper, uint8 [size, size, 3].

    Args:
      parts: its shape.
      size: pixels of a side.
      rng: decides everything else.
    """
    view = look(size, rng, turn=30.0, scale=(0.5, 0.8), shift=0.16)
    wobble = rng.uniform(0.03, 0.07)
    view.x[:] += wobble * soft(size, 5, rng)
    view.y[:] += wobble * soft(size, 5, rng)
    solid = see(parts, view, rng)
    # Strokes that belong to nothing: the hand tries, and begins anew.
    ends = rng.uniform(-1.2, 1.2, (rng.integers(1, 5), 4)).tolist()
    stray = see([bar(x0, y0, x1, y1, 0.01) for x0, y0, x1, y1 in ends], view, rng)
    width = size / 64 * rng.uniform(0.4, 1.0) * (1 + 0.3 * soft(size, 6, rng))
    stroke = np.maximum(coverage(solid.edge - width), rng.uniform(0.4, 0.9) * coverage(stray.edge - width))
    if rng.uniform() < 0.5:
        hatched = solid.body if rng.uniform() < 0.5 else solid.accent
        lines = stripes(view.x, view.y, rng.uniform(0, np.pi), rng.uniform(0.14, 0.3)) > rng.uniform(0.5, 0.85)
        stroke = np.maximum(stroke, rng.uniform(0.4, 1) * lines * (hatched < 0))
    stroke = stroke * np.clip(0.95 + 0.55 * soft(size, 8, rng), 0, 1)  # the pen lifts here and there
    paper = rng.uniform(0.88, 1) * (1 - rng.uniform(0, 0.12, 3)) + 0.015 * soft(size, size // 4, rng)[..., None]
    if rng.uniform() < 0.5:
        ruled = stripes(view.x, view.y, rng.uniform(0, np.pi), rng.uniform(0.2, 0.5)) > 0.9
        paper = paper * (1 - rng.uniform(0.1, 0.3) * ruled[..., None])
    ink = colour(rng, (0, 0.5), (0, 0.35))
    image = paper * (1 - stroke[..., None]) + ink * stroke[..., None]
    return to_bytes(image + rng.normal(0, 0.015, image.shape))


def thermal_picture(parts: Sequence[Part], size: int, rng: np.random.Generator) -> np.ndarray:
    """A product as a thermal camera sees it, uint8 [size, size, 3].

    Args:
      parts: its shape.
      size: pixels of a side.
      rng: decides everything else.
    """
    view = look(size, rng, turn=30.0, scale=(0.5, 0.8), shift=0.16)
    solid = see(parts, view, rng)
    room = 0.2 * soft(size, 2, rng) + rng.uniform(-0.3, 0.3) * view.y
    inside = coverage(solid.body)
    warm = inside * (rng.uniform(0.5, 1) + 0.25 * soft(size, 3, rng)) + coverage(solid.accent) * rng.uniform(-0.6, 0.6)
    warm = blur(warm, size * rng.uniform(0.02, 0.045)) * rng.choice([-1, 1])
    field = room + warm
    # Few detectors: the field is measured on a coarse grid, with their noise.
    coarse = max(1, size // int(rng.integers(24, 40)))
    field = blur(field, coarse / 2) + rng.uniform(0.03, 0.09) * rng.standard_normal(field.shape)
    low, high = np.quantile(field, [0.01, 0.99])
    field = np.clip((field - low) / max(high - low, 1e-3), 0, 1)
    return to_bytes(_in_palette(field, list(PALETTES.values())[rng.integers(len(PALETTES))]))


# Colours from cold to warm.
PALETTES: Mapping[str, Sequence[tuple[float, float, float]]] = {
    "iron": ((0, 0, 0.1), (0.35, 0, 0.55), (0.8, 0.15, 0.4), (1, 0.55, 0), (1, 0.9, 0.2), (1, 1, 0.95)),
    "rainbow": ((0, 0, 0.5), (0, 0.4, 1), (0, 0.85, 0.7), (0.6, 0.95, 0.1), (1, 0.75, 0), (0.85, 0, 0)),
    "lava": ((0.02, 0.02, 0.15), (0.1, 0.3, 0.4), (0.5, 0.1, 0.35), (0.9, 0.2, 0.1), (1, 0.7, 0.3), (1, 1, 0.8)),
    "arctic": (
        (0.05, 0.05, 0.3),
        (0.1, 0.3, 0.9),
        (0.2, 0.85, 0.95),
        (0.75, 0.75, 0.6),
        (0.9, 0.65, 0.15),
        (1, 1, 0.7),
    ),
}


def _in_palette(field: np.ndarray, palette: Sequence[tuple[float, float, float]]) -> np.ndarray:
    stops = np.linspace(0, 1, len(palette))
    return np.stack([np.interp(field, stops, channel) for channel in np.array(palette).T], -1)


def _scene(size: int, rng: np.random.Generator) -> np.ndarray:
    """A wall and a table, or a backdrop of one colour."""
    rows = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    wall = colour(rng, (0, 0.5), _DIM)
    table = wall if rng.uniform() < 0.3 else colour(rng, (0, 0.6), _DIM)
    horizon = 1 / (1 + np.exp(-(rows - rng.uniform(0.4, 0.8)) * rng.uniform(10, 80)))
    image = wall * (1 - horizon) + table * horizon
    image = image * (1 + rng.uniform(-0.25, 0.25) * (rows - 0.5)) + np.zeros((size, size, 1), np.float32)
    pattern = rng.uniform(0, 0.1) * soft(size, int(rng.integers(3, 16)), rng)
    return image * (1 + pattern[..., None])


def _surface(x: np.ndarray, y: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A product's skin: plain, marbled or striped."""
    base = colour(rng, (0.05, 1), (0.25, 1))
    marks = rng.uniform(0, 0.25) * soft(size, int(rng.integers(3, 12)), rng)
    if rng.uniform() < 0.35:
        marks = marks + rng.uniform(0.05, 0.3) * stripes(x, y, rng.uniform(0, np.pi), rng.uniform(0.12, 0.5))
    return base * (1 + marks[..., None])


def _light(solid: Solid, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Brightness and highlights of a body that is round at its rim, lit from a random side."""
    depth = np.clip(-solid.body / (size * rng.uniform(0.05, 0.16)), 0, 1)
    height = blur(np.sqrt(depth * (2 - depth)), size * 0.015) * size * 0.06
    down, right = np.gradient(height)
    angle, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.8)
    normal = 1 / np.sqrt(1 + down**2 + right**2)
    facing = normal * (tilt - np.sqrt(1 - tilt**2) * (right * np.cos(angle) + down * np.sin(angle)))
    ambient = rng.uniform(0.35, 0.6)
    shine = rng.uniform(0, 0.5) * np.clip(facing, 0, 1) ** rng.uniform(12, 40)
    return ambient + (1.15 - ambient) * np.clip(facing, 0, 1) / tilt, shine
