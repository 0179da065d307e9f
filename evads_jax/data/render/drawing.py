"""What things look like: product silhouettes, materials, settings and props.

Shapes are polygons in a unit square (x right, y down, −1 … 1), so that they can be scaled, turned and placed anywhere.
Products are told apart by outline alone, colours by hue alone, settings by tone and pattern. A product stands on a
white card, as in a shop, and the setting shows around it, so that no combination hides the product: a small vision
tower trained from scratch learns an outline on white within some hundred steps, and on a pattern hardly at all.
"""

import colorsys
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

Polygon = Sequence[tuple[float, float]]
Colour = tuple[int, int, int]


def _disc(x: float, y: float, rx: float, ry: float | None = None, start: float = 0, stop: float = 360) -> Polygon:
    ry = rx if ry is None else ry
    angles = [math.radians(start + (stop - start) * k / 20) for k in range(21)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def _box(left: float, top: float, right: float, bottom: float) -> Polygon:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _ring(x: float, y: float, outer: float, inner: float, start: float, stop: float) -> Polygon:
    return [*_disc(x, y, outer, start=start, stop=stop), *reversed(_disc(x, y, inner, start=start, stop=stop))]


_SHIRT = [
    *((-0.4, -0.85), (0.4, -0.85), (1, -0.45), (0.75, -0.05), (0.5, -0.2)),
    *((0.5, 0.95), (-0.5, 0.95), (-0.5, -0.2), (-0.75, -0.05), (-1, -0.45)),
]
_BOOT = [(-0.6, -0.95), (0.1, -0.95), (0.15, 0.25), (0.9, 0.45), (0.95, 0.9), (-0.6, 0.9)]
_SPOUT = [(0.45, 0.2), (0.85, -0.3), (1.0, -0.2), (0.6, 0.55)]
_BLADES = [_disc(x, y, 0.36) for x, y in ((-0.38, -0.55), (0.38, -0.55), (-0.38, 0.11), (0.38, 0.11))]
_SHADE = [(-0.4, -0.9), (0.4, -0.9), (0.85, 0.05), (-0.85, 0.05)]
_NECK_AND_BELLY = [(-0.14, -0.7), (0.14, -0.7), (0.14, -0.4), (0.4, -0.1), (0.4, 0.97), (-0.4, 0.97), (-0.4, -0.1)]
_TEETH = [_box(x, -0.15, x + 0.19, 0.65) for x in (-1, -0.6, -0.2, 0.2, 0.62, 0.81)]
_TAIL = [(-0.06, 0.5), (0.06, 0.5), (0.35, 0.72), (-0.2, 0.95), (-0.3, 0.85), (0.1, 0.72)]

# Product → (body, accents): accents are drawn darker on top.
PRODUCTS: Mapping[str, tuple[Sequence[Polygon], Sequence[Polygon]]] = {
    "shirt": ([_SHIRT], [_disc(0, -0.85, 0.22, start=0, stop=180)]),
    "boot": ([_BOOT], [_box(-0.6, 0.72, 0.95, 0.92)]),
    "kettle": ([_disc(0, 0.3, 0.62), _SPOUT, _ring(0, -0.2, 0.68, 0.5, 180, 360)], [_box(-0.3, -0.32, 0.3, -0.2)]),
    "fan": ([*_BLADES, _box(-0.09, 0, 0.09, 0.9), _box(-0.4, 0.82, 0.4, 0.98)], [_disc(0, -0.22, 0.16)]),
    "chair": ([_box(-0.6, -0.95, -0.3, 0.95), _box(-0.6, 0, 0.6, 0.3), _box(0.32, 0, 0.6, 0.95)], []),
    "lamp": ([_SHADE, _box(-0.1, 0, 0.1, 0.8), _box(-0.5, 0.76, 0.5, 0.95)], []),
    "bottle": ([_NECK_AND_BELLY, _box(-0.2, -0.97, 0.2, -0.68)], [_box(-0.2, -0.97, 0.2, -0.7)]),
    "comb": ([_box(-1, -0.6, 1, -0.1), *_TEETH], []),
    "bear": (
        [_disc(0, 0.15, 0.75), _disc(-0.6, -0.6, 0.34), _disc(0.6, -0.6, 0.34)],
        [_disc(-0.28, -0.02, 0.12), _disc(0.28, -0.02, 0.12), _disc(0, 0.42, 0.24, 0.18)],
    ),
    "kite": ([[(0, -1), (0.7, -0.3), (0, 0.55), (-0.7, -0.3)], _TAIL], [_box(-0.04, -0.95, 0.04, 0.5)]),
}

HUES = {"red": 0, "orange": 26, "yellow": 54, "green": 118, "cyan": 180, "blue": 222, "purple": 274, "pink": 322}

# Prop → (colour, polygon) layers, drawn on a white plate.
PROPS: Mapping[str, Sequence[tuple[Colour, Polygon]]] = {
    "lemon": [((235, 205, 20), _disc(0, 0, 0.85, 0.55)), ((120, 140, 30), _disc(0.8, 0, 0.15))],
    "cup": [
        ((125, 75, 45), _box(-0.7, -0.6, 0.35, 0.7)),
        ((125, 75, 45), _ring(0.35, 0.05, 0.45, 0.25, -90, 90)),
    ],
    "plant": [
        ((170, 90, 50), [(-0.45, 0.2), (0.45, 0.2), (0.3, 0.9), (-0.3, 0.9)]),
        *[((40, 135, 50), _disc(x, -0.25, 0.28, 0.5)) for x in (-0.5, 0, 0.5)],
    ],
    "clock": [
        ((30, 30, 35), _disc(0, 0, 0.9)),
        ((245, 245, 245), _disc(0, 0, 0.66)),
        ((30, 30, 35), [(-0.08, 0.1), (-0.08, -0.55), (0.08, -0.55), (0.08, -0.06), (0.45, -0.06), (0.45, 0.1)]),
    ],
    "book": [
        ((40, 70, 170), _box(-0.7, -0.85, 0.7, 0.85)),
        ((230, 230, 235), _box(0.45, -0.72, 0.62, 0.72)),
        ((225, 190, 60), _box(-0.45, -0.85, -0.28, 0.85)),
    ],
    "candle": [((205, 200, 190), _box(-0.3, -0.15, 0.3, 0.9)), ((245, 120, 20), _disc(0, -0.5, 0.28, 0.42))],
    "dice": [
        ((200, 30, 60), _box(-0.75, -0.75, 0.75, 0.75)),
        *[((250, 250, 250), _disc(x, y, 0.2)) for x, y in ((-0.4, -0.4), (0.4, 0.4), (0, 0), (-0.4, 0.4), (0.4, -0.4))],
    ],
    "umbrella": [
        ((130, 50, 160), _disc(0, 0, 0.9, 0.85, 180, 360)),
        ((60, 60, 60), _box(-0.07, 0, 0.07, 0.75)),
        ((60, 60, 60), _ring(0.2, 0.7, 0.27, 0.13, 0, 180)),
    ],
}


def saturated(colour: str, rng: np.random.Generator) -> np.ndarray:
    """A product colour with jitter in hue, saturation and brightness, float32 [3] in 0 … 255."""
    hue = (HUES[colour] + rng.uniform(-7, 7)) / 360
    rgb = colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.82, 1), rng.uniform(0.78, 1))
    return np.array(rgb, np.float32) * 255


def draw_setting(key: str, side: int, rng: np.random.Generator) -> np.ndarray:
    """The background of a setting, float32 [side, side, 3], with its pattern shifted, stretched and tinted."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    x, y = x + rng.uniform(0, side), y + rng.uniform(0, side)
    image = _SETTINGS[key](x, y, side * rng.uniform(0.9, 1.15), side, rng)
    grain = rng.uniform(-9, 9, (side // 4, side // 4, 1)).astype(np.float32).repeat(4, 0).repeat(4, 1)
    tint = rng.uniform(0.94, 1.06, 3).astype(np.float32) * np.float32(rng.uniform(0.88, 1.08))
    return image * tint + grain


def _mix(mask: np.ndarray, on: Colour, off: Colour) -> np.ndarray:
    return np.where(mask[..., None], np.array(on, np.float32), np.array(off, np.float32))


def _kitchen(x: np.ndarray, y: np.ndarray, unit: float, side: int, rng: np.random.Generator) -> np.ndarray:
    step = unit / 6
    return _mix((x % step < step / 6) | (y % step < step / 6), (150, 165, 175), (240, 240, 232))


def _beach(x: np.ndarray, y: np.ndarray, unit: float, side: int, rng: np.random.Generator) -> np.ndarray:
    rows = np.arange(side)[:, None] + 3 * np.sin(np.arange(side)[None] / unit * 12)
    horizon = side * rng.uniform(0.45, 0.6)
    return _mix(rows > horizon, (222, 200, 150), (170, 208, 228))


def _forest(x: np.ndarray, y: np.ndarray, unit: float, side: int, rng: np.random.Generator) -> np.ndarray:
    step = unit / 4.5
    return _mix(x % step < step * 0.4, (70, 55, 42), (108, 140, 100))


def _office(x: np.ndarray, y: np.ndarray, unit: float, side: int, rng: np.random.Generator) -> np.ndarray:
    step = unit / 9
    return _mix(y % step < step * 0.4, (105, 108, 115), (172, 175, 182))


def _snow(x: np.ndarray, y: np.ndarray, unit: float, side: int, rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[0:side, 0:side]
    slope = rng.choice([-1, 1]) * rng.uniform(0.4, 0.7)
    return _mix(rows > side * 0.5 + slope * (columns - side / 2), (250, 250, 255), (120, 140, 170))


def _night(x: np.ndarray, y: np.ndarray, unit: float, side: int, rng: np.random.Generator) -> np.ndarray:
    step = unit / 5
    near = (x % step - step / 2) ** 2 + (y % step - step / 2) ** 2 < (step * 0.2) ** 2
    return _mix(near, (235, 225, 170), (22, 22, 42))


def _yard(x: np.ndarray, y: np.ndarray, unit: float, side: int, rng: np.random.Generator) -> np.ndarray:
    step = unit / 7
    shifted = x + (y // step % 2) * step
    return _mix((y % step < step * 0.2) | (shifted % (2 * step) < step * 0.2), (205, 195, 185), (142, 84, 70))


def _field(x: np.ndarray, y: np.ndarray, unit: float, side: int, rng: np.random.Generator) -> np.ndarray:
    step = unit / 5
    diagonal = (x + y) % step
    return _mix(diagonal < step * 0.45, (190, 165, 215), (150, 185, 130))


_SETTINGS: Mapping[str, Callable[[np.ndarray, np.ndarray, float, int, np.random.Generator], np.ndarray]] = {
    "kitchen": _kitchen,
    "beach": _beach,
    "forest": _forest,
    "office": _office,
    "snow": _snow,
    "night": _night,
    "yard": _yard,
    "field": _field,
}


def surface(material: str, colour: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A product's surface, float32 [side, side, 3]."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    x, y = x + rng.uniform(0, side), y + rng.uniform(0, side)
    dark, light = colour * 0.45, colour * 0.25 + 255 * 0.75
    base = np.broadcast_to(colour, (side, side, 3))
    step = side / rng.uniform(11, 14)
    if material == "wood":
        return np.where(((y + 2 * np.sin(x / step)) % step < step * 0.4)[..., None], dark, base)
    if material == "metal":
        return np.where(((x + y) % (4 * step) < step * 1.1)[..., None], light, base)
    if material == "fabric":
        near = (x % step - step / 2) ** 2 + (y % step - step / 2) ** 2 < (step * 0.3) ** 2
        return np.where(near[..., None], light, base)
    return base


def place(polygons: Sequence[Polygon], centre: tuple[float, float], scale: float, turn: float) -> list[Polygon]:
    """Polygons scaled by `scale` pixels, turned by `turn` radians and moved to `centre`."""
    cos, sin = math.cos(turn) * scale, math.sin(turn) * scale
    return [[(centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos) for x, y in p] for p in polygons]


def draw_product(
    image: Image.Image, key: str, skin: np.ndarray, centre: tuple[float, float], scale: float, turn: float
) -> None:
    """Draws a product with its surface and a dark outline onto an image."""
    body, accents = (place(polygons, centre, scale, turn) for polygons in PRODUCTS[key])
    draw = ImageDraw.Draw(image)
    for polygon in body:
        draw.line([*polygon, *polygon[:2]], fill=(20, 20, 20), width=6, joint="curve")
    mask = Image.new("L", image.size)
    for polygon in body:
        ImageDraw.Draw(mask).polygon(polygon, fill=255)
    image.paste(Image.fromarray(skin.clip(0, 255).astype(np.uint8)), mask=mask)
    for polygon in accents:
        draw.polygon(polygon, fill=(45, 35, 35))


def draw_card(image: Image.Image, centre: tuple[float, float], half: float) -> None:
    """Draws the white card that a product stands on; the setting shows around it."""
    x, y = centre
    ImageDraw.Draw(image).rounded_rectangle((x - half, y - half, x + half, y + half), 8, fill=(250, 250, 250))


def draw_prop(image: Image.Image, key: str, centre: tuple[float, float], scale: float) -> None:
    """Draws a prop on its white plate."""
    draw = ImageDraw.Draw(image)
    x, y, plate = *centre, scale * 1.25
    draw.ellipse((x - plate, y - plate, x + plate, y + plate), fill=(250, 250, 250), outline=(90, 90, 90))
    for colour, polygon in PROPS[key]:
        draw.polygon([(x + px * scale, y + py * scale) for px, py in polygon], fill=colour)
