"""How a drawn product looks on a page, in a short video and in a live stream.

Outlines, surfaces, settings and props are those of the drawn ads (`data.render.drawing`). A page shows the product
large on plain ground under even light. A video shows it on its card in some setting, smaller, turned or mirrored, under
another light, with an overlay. A live stream shows it smaller still, off the middle and partly outside the picture,
under warm or cold light, behind a hand, a banner and lines of chat. What tells look-alikes apart stays the same:
outline, hue, surface and the badge that is printed on the product.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from evads_jax.data.products.catalogue import ProductScript
from evads_jax.data.render import drawing, fonts
from evads_jax.data.render.vocabulary import PROPS, SETTINGS

SIDE = 96  # pixels of the picture that is drawn; records hold it scaled down
_MARGIN = 6  # the camera moves within so many pixels around the frame
_CANVAS = SIDE + 2 * _MARGIN

# Half the product's size as a share of the picture's side.
PAGE_SCALE, VIDEO_SCALE, LIVE_SCALE = (0.36, 0.42), (0.27, 0.36), (0.22, 0.32)
BADGE = 0.3  # half its size, in units of the silhouette
HAND = (0.16, 0.24)  # the hand's half width as a share of the side
# Where on each silhouette the badge is printed, in its own units.
_ANCHORS: Mapping[str, tuple[float, float]] = {
    "shirt": (0, 0.2),
    "boot": (-0.22, 0.1),
    "kettle": (0, 0.3),
    "fan": (0, 0.45),
    "chair": (0, 0.15),
    "lamp": (0, -0.4),
    "bottle": (0, 0.4),
    "comb": (0, -0.35),
    "bear": (0, 0.72),
    "kite": (0, -0.25),
}
_SKIN = ((236, 188, 160), (198, 142, 108), (141, 93, 66), (250, 214, 190))


def page_picture(script: ProductScript, rng: np.random.Generator) -> list[np.ndarray]:
    """The one picture of a page, uint8 [96, 96, 3]."""
    ground = np.full((SIDE, SIDE, 3), rng.uniform(232, 255, 3), np.float32)
    image = Image.fromarray(ground.astype(np.uint8))
    place = (SIDE / 2 + rng.uniform(-2, 2), SIDE / 2 + rng.uniform(-2, 2))
    _put(image, script, place, SIDE * rng.uniform(*PAGE_SCALE), rng.uniform(-0.06, 0.06), rng)
    if rng.random() < 0.5:
        _banner(image, f"{script.price}", SIDE - 7, rng)
    return [np.asarray(image)]


def video_frames(script: ProductScript, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Frames of a short video, uint8 [96, 96, 3]: a camera that drifts over one scene."""
    canvas = _setting(rng)
    place = _CANVAS / 2 + rng.uniform(-8, 8, 2)
    scale = SIDE * rng.uniform(*VIDEO_SCALE)
    drawing.draw_card(canvas, (place[0], place[1]), scale * 1.2)
    _put(canvas, script, place, scale, rng.uniform(-0.25, 0.25), rng)
    if rng.random() < 0.5:
        canvas = ImageOps.mirror(canvas)
    prop = (_CANVAS / 2 + rng.choice([-1, 1]) * rng.uniform(34, 40), _CANVAS - _MARGIN - rng.uniform(12, 18))
    drawing.draw_prop(canvas, str(rng.choice([value.key for value in PROPS])), prop, rng.uniform(9, 12))
    if rng.random() < 0.7:
        _banner(canvas, f"{script.price} yuan", _MARGIN + 9, rng)
    return _pan(_lit(canvas, rng.uniform(0.75, 1.15), rng.uniform(0.94, 1.06, 3)), count, rng)


def live_frames(script: ProductScript, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Frames of a live clip, uint8 [96, 96, 3]: product and hand move, the chat stays, the banner changes colour."""
    ground = _setting(rng)
    skin = _SKIN[rng.integers(len(_SKIN))]
    _presenter(ground, skin, rng)
    scale = SIDE * rng.uniform(*LIVE_SCALE)
    reach = _CANVAS * 0.24
    start = _CANVAS / 2 + rng.uniform(-reach, reach, 2)
    step = rng.uniform(-3, 3, 2)
    turn, mirrored = rng.uniform(-0.35, 0.35), rng.random() < 0.5
    hand = HAND if rng.random() < 0.8 else (0.05, 0.08)
    side, low, width = rng.choice([-1, 1]), rng.uniform(0.1, 0.6), SIDE * rng.uniform(*hand)
    gain, tint = rng.uniform(0.6, 1.1), _warmth(rng)
    chat = [(int(rng.integers(4, 9)), rng.uniform(0.3, 0.5)) for _ in range(3)]
    surface_seed = int(rng.integers(2**32))
    frames = []
    for k in range(count):
        canvas = ground.copy()
        place = start + step * k
        drawing.draw_card(canvas, (place[0], place[1]), scale * 1.12)
        # The same surface in every frame.
        _put(canvas, script, place, scale, turn, np.random.default_rng(surface_seed))
        _hand(canvas, (place[0] + side * scale * 0.75, place[1] + scale * low), width, skin)
        if mirrored:
            canvas = ImageOps.mirror(canvas)
        shown = canvas.crop((_MARGIN, _MARGIN, _MARGIN + SIDE, _MARGIN + SIDE))
        shown = _lit(shown, gain, tint)
        _chat(shown, chat)
        _banner(shown, f"LIVE {script.price}", 7, rng)
        frames.append(np.asarray(shown))
    return frames


def _put(
    image: Image.Image,
    script: ProductScript,
    centre: Sequence[float] | np.ndarray,
    scale: float,
    turn: float,
    rng: np.random.Generator,
) -> None:
    """Draws the product with its surface and badge; its shade is the family's, its pattern's place the clip's."""
    own = np.random.default_rng([script.shade, 1])
    colour = drawing.saturated(script.colour.key, own)
    skin = drawing.surface(script.material.key, colour, image.width, rng)
    at = (centre[0], centre[1])
    drawing.draw_product(image, script.kind.key, skin, at, scale, turn)
    ((anchor,),) = drawing.place([[_ANCHORS[script.kind.key]]], at, scale, turn)
    _badge(image, script.badge, anchor, BADGE * scale)


def _badge(image: Image.Image, badge: str, centre: tuple[float, float], r: float) -> None:
    """Prints the mark, `r` pixels from its middle to its edges, on white paper."""
    if badge == "none":
        return
    x, y = centre
    draw = ImageDraw.Draw(image)
    ink, paper = (25, 25, 30), (250, 250, 250)
    draw.rectangle((x - r, y - r, x + r, y + r), fill=paper)
    t = r * 0.42
    if badge == "ring":
        draw.ellipse((x - r * 0.85, y - r * 0.85, x + r * 0.85, y + r * 0.85), outline=ink, width=max(round(t), 2))
    elif badge == "square":
        draw.rectangle((x - r * 0.6, y - r * 0.6, x + r * 0.6, y + r * 0.6), fill=ink)
    elif badge == "triangle":
        draw.polygon([(x, y - r * 0.85), (x + r * 0.85, y + r * 0.75), (x - r * 0.85, y + r * 0.75)], fill=ink)
    elif badge == "cross":
        draw.rectangle((x - t / 1.6, y - r, x + t / 1.6, y + r), fill=ink)
        draw.rectangle((x - r, y - t / 1.6, x + r, y + t / 1.6), fill=ink)
    elif badge == "bars":
        for k in (-0.75, 0.0, 0.75):
            draw.rectangle((x - r, y + k * r - t / 2, x + r, y + k * r + t / 2), fill=ink)


def _setting(rng: np.random.Generator) -> Image.Image:
    key = str(rng.choice([value.key for value in SETTINGS]))
    return Image.fromarray(drawing.draw_setting(key, _CANVAS, rng).clip(0, 255).astype(np.uint8))


def _presenter(image: Image.Image, skin: drawing.Colour, rng: np.random.Generator) -> None:
    """A head and shoulders behind the product."""
    draw = ImageDraw.Draw(image)
    x, head = _CANVAS * rng.uniform(0.25, 0.75), _CANVAS * rng.uniform(0.1, 0.14)
    top = _CANVAS * rng.uniform(0.12, 0.2)
    coat = tuple(int(c) for c in rng.integers(40, 220, 3))
    draw.ellipse((x - 2.4 * head, top + 1.8 * head, x + 2.4 * head, top + 9 * head), fill=coat)
    draw.ellipse((x - head, top, x + head, top + 2.4 * head), fill=skin)


def _hand(image: Image.Image, centre: tuple[float, float], width: float, skin: drawing.Colour) -> None:
    draw = ImageDraw.Draw(image)
    x, y = centre
    draw.ellipse((x - width, y - width * 0.8, x + width, y + width * 0.8), fill=skin)
    draw.rectangle((x - width * 0.6, y, x + width * 0.6, image.height), fill=skin)


def _chat(image: Image.Image, lines: Sequence[tuple[int, float]]) -> None:
    """Lines of chat as strips with strokes; at this size no letter could be read."""
    draw = ImageDraw.Draw(image)
    for row, (letters, width) in enumerate(lines):
        top = SIDE - 26 + 8 * row
        draw.rectangle((2, top, 2 + width * SIDE, top + 6), fill=(35, 35, 40))
        for k in range(letters):
            draw.rectangle((5 + 4 * k, top + 2, 7 + 4 * k, top + 4), fill=(225, 225, 225))


def _banner(image: Image.Image, text: str, middle: float, rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(image)
    fill = tuple(int(c) for c in rng.integers(20, 90, 3))
    draw.rectangle((image.width * 0.2, middle - 6, image.width * 0.8, middle + 6), fill=fill)
    draw.text((image.width / 2, middle), text, font=fonts.font(9, False), fill=(255, 255, 255), anchor="mm")


def _warmth(rng: np.random.Generator) -> np.ndarray:
    """Gains of red, green and blue under warm or cold lamps."""
    warm = rng.uniform(-0.16, 0.16)
    return np.array([1 + warm, 1.0, 1 - warm])


def _lit(image: Image.Image, gain: float, tint: np.ndarray) -> Image.Image:
    return Image.fromarray((np.asarray(image, np.float32) * gain * tint).clip(0, 255).astype(np.uint8))


def _pan(canvas: Image.Image, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    whole = np.asarray(canvas)
    start, stop = rng.uniform(0, 2 * _MARGIN, (2, 2))
    frames = []
    for k in range(count):
        top, left = np.round(start + (stop - start) * k / max(count - 1, 1)).astype(int)
        frames.append(np.ascontiguousarray(whole[top : top + SIDE, left : left + SIDE]))
    return frames
