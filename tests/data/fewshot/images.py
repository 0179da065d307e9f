"""Small image files and configs for the tests of image sets."""

import numpy as np
from ml_collections import ConfigDict
from PIL import Image


def settings(**changes):
    data = ConfigDict(
        {
            "rendered_per_class": 2,
            "at_most_per_class": 0,
            "seed": 0,
            "bad_images": "skip",
            "mini_imagenet": None,
            "isic": None,
            "chestx": None,
            "tfds": None,
        }
    )
    data.update(changes)
    return data


def write_image(path, colour=(200, 30, 30), size=(12, 9)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), colour, np.uint8)).save(path)
    return path


def class_folders(root, classes=("a", "b"), each=3):
    for c, name in enumerate(classes):
        for i in range(each):
            write_image(root / name / f"{i}.png", colour=(60 * c, 20 * i, 100))
    return root
