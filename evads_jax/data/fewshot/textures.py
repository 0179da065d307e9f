"""The farthest domain: patches of materials, without any shape.

A material is a process, not an outline: how threads cross, grain runs or cells meet. Colour, contrast, scale, turn and
light are each patch's own, so that only the process tells the classes apart.
"""

from collections.abc import Callable, Mapping

import numpy as np

from evads_jax.data.fewshot.noise import blur, colour, soft, stripes, to_bytes

Field = np.ndarray
Process = Callable[[Field, Field, int, np.random.Generator], Field]  # (x, y, size, rng) → relief, about −1 … 1


def patch(process: Process, size: int, rng: np.random.Generator) -> np.ndarray:
    """A patch of a material, uint8 [size, size, 3].

    Args:
      process: of `MATERIALS`.
      size: pixels of a side.
      rng: decides everything else.
    """
    across = (np.arange(size, dtype=np.float32) + 0.5) / size
    right, down = np.meshgrid(across, across)
    angle, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.0)
    x = scale * (np.cos(angle) * right + np.sin(angle) * down) + rng.uniform(0, 9)
    y = scale * (np.cos(angle) * down - np.sin(angle) * right) + rng.uniform(0, 9)
    bend = rng.uniform(0, 0.03)
    x, y = x + bend * soft(size, 3, rng), y + bend * soft(size, 3, rng)
    relief = process(x.astype(np.float32), y.astype(np.float32), size, rng)
    relief = blur(relief, rng.uniform(0.003, 0.012) * size)
    dark, light = colour(rng, (0, 0.7), (0.1, 0.45)), colour(rng, (0, 0.5), (0.5, 1))
    share = np.clip(0.5 + rng.uniform(0.35, 0.6) * relief, 0, 1)[..., None]
    image = dark * (1 - share) + light * share
    image = image * (1 + 0.15 * soft(size, 2, rng)[..., None]) + rng.normal(0, rng.uniform(0.01, 0.04), image.shape)
    return to_bytes(image)


def _weave(x: Field, y: Field, size: int, rng: np.random.Generator) -> Field:
    over = stripes(x, y, 0, 0.16) * stripes(x, y, np.pi / 2, 0.16) > 0
    return np.where(over, np.abs(stripes(x, y, 0, 0.16)), np.abs(stripes(x, y, np.pi / 2, 0.16))) * 2 - 1


def _twill(x: Field, y: Field, size: int, rng: np.random.Generator) -> Field:
    return stripes(x, y, np.pi / 4, 0.14) * (0.7 + 0.3 * stripes(x, y, 0, 0.07))


def _herringbone(x: Field, y: Field, size: int, rng: np.random.Generator) -> Field:
    folded = np.abs((x / 0.4) % 2 - 1) * 0.4
    return stripes(folded, y, np.pi / 4, 0.13)


def _knit(x: Field, y: Field, size: int, rng: np.random.Generator) -> Field:
    folded = np.abs((x / 0.1) % 2 - 1) * 0.1
    return stripes(folded, y, np.pi * 0.35, 0.1) * (0.5 + 0.5 * stripes(x, y, 0, 0.2))


def _corduroy(x: Field, y: Field, size: int, rng: np.random.Generator) -> Field:
    return 2 * np.abs(stripes(x, y, 0, 0.26)) - 1 + 0.25 * soft(size, 20, rng)


def _wood(x: Field, y: Field, size: int, rng: np.random.Generator) -> Field:
    return stripes(x + 0.06 * soft(size, 3, rng), y * 0.2, 0, rng.uniform(0.12, 0.22)) + 0.2 * soft(size, 16, rng)


def _marble(x: Field, y: Field, size: int, rng: np.random.Generator) -> Field:
    veins = soft(size, 4, rng) + 0.5 * soft(size, 8, rng)
    return 1 - 3 * np.clip(np.abs(veins), 0, 0.6)


def _cork(x: Field, y: Field, size: int, rng: np.random.Generator) -> Field:
    return np.tanh(2 * soft(size, 11, rng) + 0.8 * soft(size, 22, rng))


def _leather(x: Field, y: Field, size: int, rng: np.random.Generator) -> Field:
    first, second = _cells(x, y, 0.14, rng)
    return np.clip((second - first) / 0.05, 0, 1.5) - 0.8


def _pebbles(x: Field, y: Field, size: int, rng: np.random.Generator) -> Field:
    first, _ = _cells(x, y, 0.2, rng)
    return 1 - first / 0.06


def _brushed(x: Field, y: Field, size: int, rng: np.random.Generator) -> Field:
    phases = rng.uniform(0, 2 * np.pi, 6)
    waves = [np.sin(x * k + p) for k, p in zip(rng.uniform(20, 120, 6), phases, strict=True)]
    return np.sum(waves, axis=0) / 2.5


def _felt(x: Field, y: Field, size: int, rng: np.random.Generator) -> Field:
    return 0.7 * soft(size, 30, rng) + 0.4 * soft(size, 6, rng)


def _perforated(x: Field, y: Field, size: int, rng: np.random.Generator) -> Field:
    u, v = (x / 0.18) % 1 - 0.5, (y / 0.18) % 1 - 0.5
    return np.tanh((np.hypot(u, v) - 0.28) * 12)


def _honeycomb(x: Field, y: Field, size: int, rng: np.random.Generator) -> Field:
    return np.sum([stripes(x, y, a, 0.15) for a in (0, np.pi / 3, 2 * np.pi / 3)], axis=0) / 1.5


def _bricks(x: Field, y: Field, size: int, rng: np.random.Generator) -> Field:
    row = np.floor(y / 0.13)
    joints = (y / 0.13 % 1 < 0.15) | ((x / 0.3 + row / 2) % 1 < 0.07)
    return np.where(joints, -1.0, 0.6).astype(np.float32)


def _ripple(x: Field, y: Field, size: int, rng: np.random.Generator) -> Field:
    return stripes(x + 0.05 * np.sin(y * 18), y, 0, 0.15)


def _cells(x: Field, y: Field, width: float, rng: np.random.Generator) -> tuple[Field, Field]:
    """Distance to the nearest and second nearest of points that lie one to a square."""
    column, row = np.floor(x / width), np.floor(y / width)
    left, top = int(column.min()) - 1, int(row.min()) - 1
    jitter = rng.uniform(0.1, 0.9, (int(row.max()) - top + 2, int(column.max()) - left + 2, 2))
    found = []
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            i, j = (row + dy).astype(int) - top, (column + dx).astype(int) - left
            point = jitter[i, j]
            found.append(np.hypot((column + dx + point[..., 0]) * width - x, (row + dy + point[..., 1]) * width - y))
    nearest = np.sort(np.stack(found), axis=0)
    return nearest[0], nearest[1]


# No model is trained on materials; the first part serves to choose settings, the second to test.
MATERIALS: Mapping[str, Mapping[str, Process]] = {
    "validation": {
        "corduroy": _corduroy,
        "marble": _marble,
        "perforated": _perforated,
        "bricks": _bricks,
        "felt": _felt,
        "ripple": _ripple,
    },
    "novel": {
        "weave": _weave,
        "twill": _twill,
        "herringbone": _herringbone,
        "knit": _knit,
        "wood": _wood,
        "cork": _cork,
        "leather": _leather,
        "pebbles": _pebbles,
        "brushed": _brushed,
        "honeycomb": _honeycomb,
    },
}
