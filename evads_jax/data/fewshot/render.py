"""The rendered domains as image sets: `photos` to learn from, `lines`, `thermal` and `textures` to be tested on.

`photos`, `lines` and `thermal` show the same products, each image with draws of its own, so that between them only the
look of the pictures differs; `textures` shows none. A part (`products.PRODUCTS`, `textures.MATERIALS`) shares no class
with another.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from evads_jax.data.fewshot.domains import line_drawing, photo, thermal_picture
from evads_jax.data.fewshot.products import PRODUCTS
from evads_jax.data.fewshot.textures import MATERIALS, patch

Draw = Callable[[Any, int, np.random.Generator], np.ndarray]

# Domain → how an image is drawn, and part → class → what is drawn.
DOMAINS: Mapping[str, tuple[Draw, Mapping[str, Mapping[str, Any]]]] = {
    "photos": (photo, PRODUCTS),
    "lines": (line_drawing, PRODUCTS),
    "thermal": (thermal_picture, PRODUCTS),
    "textures": (patch, MATERIALS),
}


def parts(domain: str) -> tuple[str, ...]:
    """The parts of a domain."""
    return tuple(DOMAINS[domain][1])


def classes(domain: str, part: str) -> tuple[str, ...]:
    """The classes of a part of a domain."""
    return tuple(DOMAINS[domain][1][part])


def draw(domain: str, part: str, name: str, index: int, size: int, seed: int) -> np.ndarray:
    """The `index`-th image of a class, uint8 [size, size, 3]; the same arguments give the same image."""
    how, what = DOMAINS[domain]
    rng = np.random.default_rng([seed, zlib.crc32(f"{domain}/{part}/{name}".encode()), index])
    return how(what[part][name], size, rng)
