"""Sets of the TFDS catalogue, prepared here in small under their names, read where there is no TensorFlow."""

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from evads_jax.data.fewshot import registered
from evads_jax.data.fewshot.prepare import plan
from evads_jax.data.fewshot.reading import Unreadable
from evads_jax.errors import UserError

from .images import settings

READ = """
import sys
from evads_jax.data.fewshot.registered import registered
from pathlib import Path
images = registered("x", "plant_village", Path(sys.argv[1])).open()
print(images.classes, images.labels, images.make(2, 8)[0, 0].tolist(), "tensorflow" in sys.modules)
"""
COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]


def picture(colour):
    file = io.BytesIO()
    Image.fromarray(np.full((9, 12, 3), colour, np.uint8)).save(file, "PNG")
    file.seek(0)
    return file


def build(name, splits, data_dir, config=None, features=None, more=lambda i: {}):
    """Prepares a data set of four pictures a split, of the classes 0, 2, 2, 0 of three."""

    class Small(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("2.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config, version="2.0.0")] if config else []

        def _info(self):
            label = tfds.features.ClassLabel(names=["one", "two", "three"])
            parts = {"image": tfds.features.Image(encoding_format="png"), "label": label, **(features or {})}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(parts))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples() for split in splits}

        def _generate_examples(self):
            for i, colour in enumerate(COLOURS):
                yield i, {"image": picture(colour), "label": (0, 2, 2, 0)[i], **more(i)}

    Small.name = name
    builder = Small(data_dir=data_dir, file_format="array_record", **({"config": config} if config else {}))
    builder.download_and_prepare()
    return data_dir


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    with tfds.core.registered.skip_registration():
        build("plant_village", ["train"], folder)
        build("eurosat", ["train"], folder, config="rgb")
        build("cars196", ["train", "test"], folder)
        kingdoms = tfds.features.ClassLabel(names=["Fungi", "Plantae"])
        build(
            "i_naturalist2017", ["train", "validation"], folder,
            features={"supercategory": kingdoms}, more=lambda i: {"supercategory": int(i > 0)},
        )  # fmt: skip
    return folder


def opened(name, data_dir):
    return plan(settings(tfds=str(data_dir)), name).open()


def test_a_set_is_read_without_tensorflow(data_dir):
    command = [sys.executable, "-c", READ, str(data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    classes, _, rest = done.stdout.strip().partition(") (")
    assert classes == "('one', 'three'"  # «two» has no image
    assert rest.endswith("False")


@pytest.mark.parametrize(("name", "count"), [("plant_village", 4), ("eurosat", 4), ("cars196", 8)])
def test_every_split_that_belongs_to_a_set_is_read(data_dir, name, count):
    images = opened(name, data_dir)
    assert len(images.labels) == count
    assert images.classes == ("one", "three")
    for index, label in enumerate(images.labels):
        colour = tuple(images.make(index, 8)[0, 0].tolist())
        assert label == (0, 1, 1, 0)[COLOURS.index(colour)]


def test_only_plants_are_taken_of_the_naturalists_pictures(data_dir):
    images = opened("i_naturalist2017", data_dir)
    assert sorted(images.labels) == [0, 0, 1, 1, 1, 1]
    assert all(tuple(images.make(i, 8)[0, 0].tolist()) != COLOURS[0] for i in range(6))


def test_an_example_that_cannot_be_read_is_named_by_its_split_and_place():
    sources = [[{"image": picture(COLOURS[0]).read(), "label": 0}], [{"image": b"no image", "label": 0}]]
    images = registered._images("cars196", {"label": SimpleNamespace(int2str=str)}, sources)
    with pytest.raises(Unreadable, match="test example 0: 8 bytes: cannot identify"):
        images.make(1, 8)


def test_a_set_prepared_as_tfrecord_is_one_clear_line(data_dir, tmp_path):
    with tfds.core.registered.skip_registration():
        build("plant_village", ["train"], tmp_path)
    (info,) = tmp_path.glob("plant_village/*/dataset_info.json")
    changed = json.loads(info.read_text())
    changed["fileFormat"] = "tfrecord"
    for split in changed["splits"]:
        split["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    info.write_text(json.dumps(changed))
    with pytest.raises(UserError, match="was prepared as tfrecord, which has no random access") as caught:
        opened("plant_village", tmp_path)
    assert "tfds build plant_village --file_format=array_record" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_set_that_is_not_prepared_tells_how_to_prepare_it(tmp_path):
    with pytest.raises(UserError, match=r"no prepared eurosat .*tfds build eurosat --file_format=array_record"):
        opened("eurosat", tmp_path)
