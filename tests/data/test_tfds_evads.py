"""The TFDS builder: the same records, read in a process that has no TensorFlow."""

import subprocess
import sys

import pytest

from evads_jax.data import shards
from evads_jax.data.makers import DrawAds, Sampling
from evads_jax.data.tfds_evads import Evads, to_record
from evads_jax.errors import UserError

READ = """
import sys
from evads_jax.data.tfds_evads import Evads
source = Evads(data_dir=sys.argv[1], file_format="array_record").as_data_source(split="test")
print(len(source), len(source[1]["frames"]), "tensorflow" in sys.modules)
"""


@pytest.mark.timeout(120)
def test_the_records_of_the_shards_come_back_equal_without_tensorflow(tmp_path):
    make = DrawAds("test", 0, "zh", Sampling(1.0, 6, 64, 16))
    records = [make(k) for k in range(3)]
    shards.write(records, tmp_path / "shards" / "test", split="test")
    builder = Evads(shards=tmp_path / "shards", data_dir=tmp_path / "tfds", file_format="array_record")
    builder.download_and_prepare()
    source = builder.as_data_source(split="test")
    found = sorted((to_record(source[i]) for i in range(len(source))), key=lambda r: r.video)
    assert found == records
    command = [sys.executable, "-c", READ, str(tmp_path / "tfds")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.stdout.split() == ["3", "6", "False"], done.stderr


def test_without_shards_it_says_what_is_missing(tmp_path):
    with pytest.raises(UserError, match="no folder of shards"):
        Evads(data_dir=tmp_path, file_format="array_record").download_and_prepare()
