"""What an image set is read from, before it is read: its classes, and how to come by each image.

An image file becomes a square: the shorter side is scaled to `size`, the middle is kept. An image that cannot be
decoded is named and counted; the preparation decides what becomes of it.
"""

import dataclasses
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

READING_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow raises for broken files


class Unreadable(Exception):
    """An image that cannot be decoded; the message says which and why."""


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of a set, not read yet.

    Attributes:
      classes: names of the classes.
      labels: the class of each image, in 0 … C−1.
      make: number of an image, pixels of a side → uint8 [size, size, 3]; raises `Unreadable`.
    """

    classes: tuple[str, ...]
    labels: tuple[int, ...]
    make: Callable[[int, int], np.ndarray]

    def capped(self, per_class: int, seed: int) -> "Images":
        """At most so many images of each class, drawn by `seed`; 0 for all of them."""
        if not per_class:
            return self
        labels, rng, make = np.array(self.labels), np.random.default_rng(seed), self.make
        drawn = [rng.permutation(np.flatnonzero(labels == c))[:per_class] for c in range(len(self.classes))]
        kept = np.sort(np.concatenate(drawn))
        return Images(self.classes, tuple(labels[kept].tolist()), lambda index, size: make(int(kept[index]), size))


@dataclasses.dataclass(frozen=True)
class Plan:
    """An image set that can be made.

    Attributes:
      name: of the set.
      recipe: JSON values from which the images follow; another recipe is another set.
      open: finds the images; may take long.
    """

    name: str
    recipe: Mapping[str, Any]
    open: Callable[[], Images]


def plan_of_files(name: str, by_class: Mapping[str, Sequence[Path]]) -> Plan:
    """The set of some image files.

    Args:
      name: of the set.
      by_class: the files of each class; classes keep their order.
    """
    files = [path for paths in by_class.values() for path in paths]
    labels = tuple(label for label, paths in enumerate(by_class.values()) for _ in paths)
    digest = hashlib.sha256()
    for path, label in zip(files, labels, strict=True):
        state = path.stat()
        digest.update(f"{path}\0{label}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    images = Images(tuple(by_class), labels, lambda index, size: read_square(files[index], size))
    return Plan(name, {"files": digest.hexdigest(), "classes": list(by_class)}, lambda: images)


def read_square(source: Path | bytes, size: int) -> np.ndarray:
    """An image file as uint8 [size, size, 3].

    Raises:
      Unreadable: it cannot be decoded.
    """
    name = f"{source.parent.name}/{source.name}" if isinstance(source, Path) else f"{len(source)} bytes"
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            return square(image.convert("RGB"), size)
    except READING_ERRORS as error:
        raise Unreadable(f"{name}: {' '.join(str(error).split())[:120]}") from error


def square(image: Image.Image, size: int) -> np.ndarray:
    """The middle of an RGB image with its shorter side scaled to `size`, uint8 [size, size, 3]."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    middle = image.crop((left, top, left + side, top + side))
    return np.asarray(middle.resize((size, size), Image.Resampling.BICUBIC))
