"""What pictures of any domain are made of beside shapes: soft noise, blur, colours."""

import colorsys

import numpy as np
from PIL import Image

Field = np.ndarray  # float32 [H, W]


def soft(size: int, cells: int, rng: np.random.Generator) -> Field:
    """Smooth noise of mean about 0 and deviation about 1: normal draws on a grid of `cells` a side, interpolated."""
    grid = rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
    whole = Image.fromarray(grid).resize((size + 2 * size // cells,) * 2, Image.Resampling.BICUBIC)
    start = size // cells
    return np.asarray(whole)[start : start + size, start : start + size]


def blur(image: np.ndarray, radius: float) -> np.ndarray:
    """A Gaussian blur of a square field [S, S] or image [S, S, C]; the radius in pixels, nothing comes from outside."""
    if radius <= 0:
        return image
    place = np.arange(len(image), dtype=np.float32)
    weights = np.exp(-0.5 * ((place[:, None] - place) / np.float32(radius)) ** 2)
    weights /= weights.sum(1, keepdims=True)
    return np.einsum("ij,kl,jl...->ik...", weights, weights, image, optimize=True)


def colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
    """A colour of any hue, float32 [3] in 0 … 1."""
    return np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(*value)), np.float32)


def stripes(x: Field, y: Field, angle: float, period: float) -> Field:
    """A wave across a plane, −1 … 1."""
    return np.sin((x * np.cos(angle) + y * np.sin(angle)) * np.float32(2 * np.pi / period))


def to_bytes(image: np.ndarray) -> np.ndarray:
    """An image of floats in 0 … 1 as uint8; what lies outside is cut."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
