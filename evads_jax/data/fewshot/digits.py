"""Handwritten digits (scikit-learn's copy of the UCI set): a small real target that needs no download."""

import numpy as np
from PIL import Image

from evads_jax.data.fewshot.reading import Images, Plan
from evads_jax.errors import UserError


def digits(name: str) -> Plan:
    """1,797 grey images of 8 × 8 pixels in ten classes, enlarged.

    Raises:
      UserError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        what = "the digits come with scikit-learn, which is not installed"
        raise UserError(what, "config.data.targets", "pip install scikit-learn, or leave digits out") from error
    found = load_digits()
    grey = np.rint(found.images / 16 * 255).astype(np.uint8)

    def make(index: int, size: int) -> np.ndarray:
        return np.asarray(Image.fromarray(grey[index]).convert("RGB").resize((size, size), Image.Resampling.BICUBIC))

    classes = tuple(str(digit) for digit in found.target_names)
    images = Images(classes, tuple(found.target.tolist()), make)
    return Plan(name, {"source": "sklearn digits"}, lambda: images)
