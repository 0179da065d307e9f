"""Frame features and the names of the densities made of them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from density.films import scene
from evads_jax.density.extract import features as extractors
from evads_jax.density.extract.features import BlockFeatures, make_features
from evads_jax.density.settings import FeatureSettings
from evads_jax.errors import UserError
from evads_jax.models.dinov3.model import image_features
from evads_jax.models.dinov3.weights import load

GOLDEN = Path(__file__).parents[2] / "models" / "dinov3" / "golden"


def test_only_trained_dinov3_makes_v_den():
    assert make_features(FeatureSettings()).metric == "V_blocks"
    assert make_features(FeatureSettings(model=str(GOLDEN), image_size=32)).metric == "V_den"
    assert make_features(FeatureSettings(features="none")) is None
    with pytest.raises(UserError, match="no DINOv3 weights"):
        make_features(FeatureSettings(features="dinov3"))


@pytest.mark.parametrize("pool", ["cls", "patches"])
def test_batches_give_what_single_images_give(pool):
    frames = [scene(i) for i in range(5)]
    settings = FeatureSettings(model=str(GOLDEN), image_size=64, batch=2, pool=pool)
    found = make_features(settings)(frames)
    params, config = load(GOLDEN)
    alone = np.concatenate([image_features(params, config, f[None], pool=pool) for f in frames])
    assert found == pytest.approx(alone, rel=1e-5, abs=1e-5)
    assert make_features(settings)([]).shape == (0, 32)


def test_a_short_video_pays_for_its_frames_and_not_for_a_whole_batch(monkeypatch):
    shapes = []

    def seen(params, config, images, pool):
        shapes.append(len(images))
        return np.zeros((len(images), config.width), np.float32)

    monkeypatch.setattr(extractors, "image_features", seen)
    made = make_features(FeatureSettings(model=str(GOLDEN), image_size=32, batch=16))
    for frames in range(1, 40):
        shapes.clear()
        assert made([scene(0)] * frames).shape == (frames, 32)
        assert set(shapes) <= {4, 8, 12, 16}, "each shape is a compilation"
        assert sum(shapes) - frames < 4


def test_an_image_side_that_the_patch_does_not_divide_is_one_line():
    with pytest.raises(UserError, match="no multiple of the patch"):
        make_features(FeatureSettings(model=str(GOLDEN), image_size=60))


def test_block_features_tell_pictures_apart_and_never_vanish():
    features = BlockFeatures()([scene(0), scene(0), scene(1), np.full((64, 64, 3), 128, np.uint8)])
    assert np.array_equal(features[0], features[1])
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert unit[0] @ unit[2] < 0.9
    assert np.linalg.norm(features, axis=1).min() > 0.5


SPLIT = """
import sys
import jax, numpy as np
from evads_jax.density.extract.features import make_features
from evads_jax.density.settings import FeatureSettings
assert jax.device_count() == int(sys.argv[1])
frames = list(np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), np.uint8))
found = make_features(FeatureSettings(model=sys.argv[2], image_size=32, batch=3))(frames)
np.save(sys.argv[3], found)
"""


def test_features_split_over_devices_are_those_of_one_device(tmp_path):
    for devices in (1, 4):
        environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        arguments = [sys.executable, "-c", SPLIT, str(devices), str(GOLDEN), str(tmp_path / f"{devices}.npy")]
        subprocess.run(arguments, check=True, env=environment, timeout=120)
    assert np.load(tmp_path / "4.npy") == pytest.approx(np.load(tmp_path / "1.npy"), rel=1e-5, abs=1e-5)
