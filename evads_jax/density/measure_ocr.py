"""Writes docs/density.md's accuracy of OCR: character error rate by font size and contrast, on rendered overlays.

python -m evads_jax.density.measure_ocr --out=docs/density.md
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from evads_jax.data import media
from evads_jax.data.render import fonts
from evads_jax.data.render.script import draw_script
from evads_jax.density.extract.ocr import OverlayReader, RapidOCRReader, edit_distance
from evads_jax.density.measure_released import replace_block

SIZES = (6, 8, 10, 14, 20, 28)
CONTRASTS = (1.0, 0.25, 0.06, 0.03)
HEIGHT, WIDTH, MARGIN = 640, 640, 20
LINES = 10


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, type=Path, help="the page whose block `ocr` is replaced")
    options = parser.parse_args(arguments)
    page = options.out.read_text(encoding="utf-8")
    options.out.write_text(replace_block(page, "ocr", accuracy_table(RapidOCRReader())), encoding="utf-8")


def accuracy_table(reader: OverlayReader) -> str:
    """Character error rate in percent: a row a font size, a column a contrast."""
    texts = overlay_texts(LINES)
    lines = ["| letter height | " + " | ".join(f"contrast {c:g}" for c in CONTRASTS) + " |", "|---" * 5 + "|"]
    for size in SIZES:
        rates = [error_rate(texts, reader, size, contrast) for contrast in CONTRASTS]
        lines.append(f"| {size} px | " + " | ".join(f"{100 * rate:.1f} %" for rate in rates) + " |")
    return "\n".join(lines)


def overlay_texts(count: int) -> list[str]:
    """Overlays that rendered ads bear, in English."""
    found: list[str] = []
    for seed in range(100):
        for scene in draw_script(seed, "en").scenes:
            found += [text for text in scene.overlay if text not in found and text.isascii()]
    return sorted(found, key=len)[-count:]


def error_rate(texts: list[str], reader: OverlayReader, size: int, contrast: float) -> float:
    """Edits over characters when all texts stand below each other on one frame.

    Args:
        texts: the overlays.
        reader: what reads them.
        size: font size in pixels on a frame of 640.
        contrast: difference of grey between letters and ground, 1 from black to white.
    """
    frame = through_h264(drawn(texts, size, contrast))
    rows = [[] for _ in texts]  # type: list[list[tuple[float, str]]]
    for reading in reader(frame):
        middle = (reading.box[1] + reading.box[3]) / 2
        rows[min(int(middle * len(texts)), len(texts) - 1)].append((reading.box[0], reading.text))
    read = [" ".join(text for _, text in sorted(row)) for row in rows]
    edits = sum(edit_distance(a.replace(" ", ""), b.replace(" ", "")) for a, b in zip(texts, read, strict=True))
    return edits / sum(len(text.replace(" ", "")) for text in texts)


def through_h264(frame: np.ndarray) -> np.ndarray:
    """What is left of a frame after a video was written and read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.mp4"
        media.write_mp4(path, [frame] * 2, 2)
        played = media.decode(path, 2, 1, WIDTH)
    assert isinstance(played, media.Media)
    return played.frames[0]


def drawn(texts: list[str], size: int, contrast: float) -> np.ndarray:
    """A frame whose height is shared by the texts, one in the middle of each strip."""
    ground, letters = (round(255 * (0.5 + sign * contrast / 2)) for sign in (1, -1))
    image = Image.new("RGB", (WIDTH, HEIGHT), (ground,) * 3)
    strip = HEIGHT // len(texts)
    for i, text in enumerate(texts):
        place = (MARGIN, i * strip + (strip - size) // 2)
        ImageDraw.Draw(image).text(place, text, fill=(letters,) * 3, font=fonts.font(size, cjk=False))
    return np.asarray(image)


if __name__ == "__main__":
    main()
