"""Image sets of the TFDS catalogue, from a local folder: nothing is downloaded, and TensorFlow is not needed.

| set | the paper's name | what is read |
|---|---|---|
| `plant_village` | CropDiseases | train (its only split) |
| `eurosat` (`rgb`) | EuroSAT | train (its only split) |
| `cars196` | Cars | train and test |
| `caltech_birds2011` | CUB | train and test |
| `places365_small` | Places | validation |
| `i_naturalist2017` | Plantae | train and validation, classes of the supercategory Plantae |

Which images of a set the episodes come from is not given in the paper; this is our choice. A set must have been
prepared in a format with random access:

    tfds build eurosat --file_format=array_record --data_dir=DIR
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from evads_jax.data.fewshot.reading import Images, Plan, Unreadable, read_square
from evads_jax.errors import UserError

SPLITS = {
    "plant_village": ("train",),
    "eurosat": ("train",),
    "cars196": ("train", "test"),
    "caltech_birds2011": ("train", "test"),
    "places365_small": ("validation",),
    "i_naturalist2017": ("train", "validation"),
}
_CONFIGS = {"eurosat": "eurosat/rgb"}
_FILTERS = {"i_naturalist2017": ("supercategory", "Plantae")}  # feature, the one value that is kept


def registered(name: str, key: str, data_dir: Path) -> Plan:
    """A prepared set of the catalogue.

    Args:
      name: of the image set.
      key: of `SPLITS`.
      data_dir: the folder that TFDS prepared it in.

    Raises:
      UserError: it is not there, lacks a split, or was prepared as tfrecord.
    """
    folder = data_dir / _CONFIGS.get(key, key)
    found = [path for path in folder.glob("*.*.*") if (path / "dataset_info.json").is_file()]
    if not found:
        do = f"tfds build {key} --file_format=array_record --data_dir=DIR, and set config.data.tfds to DIR"
        raise UserError(f"no prepared {key}", str(folder), do)
    builder = tfds.builder_from_directory(max(found, key=lambda path: tfds.core.Version(path.name)))
    if missing := [split for split in SPLITS[key] if split not in builder.info.splits]:
        raise UserError(f"{key} has no split {missing[0]!r}", str(folder), f"prepare it again: tfds build {key}")
    sources = [_source(builder, split, key, folder) for split in SPLITS[key]]
    recipe = {"tfds": key, "version": str(builder.version), "splits": list(SPLITS[key]), "folder": str(folder)}
    return Plan(name, recipe, functools.partial(_images, key, builder.info.features, sources))


def _source(builder: Any, split: str, key: str, folder: Path) -> Sequence[Any]:
    """The examples of a split, their pictures still as files."""
    try:
        return builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    except NotImplementedError as error:
        what = f"{key} was prepared as {builder.info.file_format.value}, which has no random access"
        raise UserError(what, str(folder), f"tfds build {key} --file_format=array_record") from error


def _images(key: str, features: Any, sources: Sequence[Sequence[Any]]) -> Images:
    """Reads every example once for its label; classes without an image are left out."""
    field, value = _FILTERS.get(key, (None, None))
    wanted = None if field is None else features[field].str2int(value)
    places, labels = [], []
    for which, source in enumerate(sources):
        for index in range(len(source)):
            example = source[index]
            if field is None or int(example[field]) == wanted:
                places.append((which, index))
                labels.append(int(example["label"]))
    present = sorted(set(labels))
    renumbered = {label: i for i, label in enumerate(present)}

    def make(index: int, size: int) -> np.ndarray:
        which, at = places[index]
        try:
            return read_square(sources[which][at]["image"], size)
        except Unreadable as error:
            raise Unreadable(f"{SPLITS[key][which]} example {at}: {error}") from error

    names = tuple(features["label"].int2str(label) for label in present)
    return Images(names, tuple(renumbered[label] for label in labels), make)
