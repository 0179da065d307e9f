"""A labelled set of images: what few-shot learning trains on and draws its episodes from."""

import dataclasses
import hashlib
import os
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

FOLDER = "folder:"  # begins the name of a set that is a folder on the disk


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images of one size, each of one class.

    Attributes:
      name: of the set, e.g. "lines/novel".
      images: uint8 [M, H, W, 3]; in memory, or a file that is mapped into it.
      labels: int32 [M], in 0 … C−1.
      classes: the names of the C classes.
      digest: names what the images were made from; results on sets of different digests are not comparable.
      unreadable: the images that were left out because they cannot be read, each with its reason.
    """

    name: str
    images: UInt8[np.ndarray, "M H W 3"]
    labels: Int[np.ndarray, " M"]
    classes: tuple[str, ...]
    digest: str = ""
    unreadable: tuple[str, ...] = ()

    def __post_init__(self):
        """Refuses labels that are not of these images or classes."""
        if len(self.images) != len(self.labels):
            raise ValueError(f"{self.name}: {len(self.images)} images, {len(self.labels)} labels")
        if len(self.labels) and not (self.labels.min() >= 0 and self.labels.max() < len(self.classes)):
            raise ValueError(f"{self.name}: a label outside 0 … {len(self.classes) - 1}")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int32]:
        """One image and its label."""
        return self.images[index], self.labels[index]

    def counts(self) -> np.ndarray:
        """Images of each class, int [C]."""
        return np.bincount(self.labels, minlength=len(self.classes))


def file_name(name: str) -> str:
    """What a set's files and results are kept under; no two sets share one.

    The name with underscores for slashes: `photos_train`. The path of a set that is a folder on the disk may hold
    underscores of its own: it is called by the last part of its path and a digest of the whole.
    """
    if not name.startswith(FOLDER):
        return name.replace("/", "_")
    last = Path(name.removeprefix(FOLDER)).name
    return f"folder_{last[:40]}_{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}"
