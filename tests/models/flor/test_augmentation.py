import functools

import jax
import numpy as np
import pytest

from evads_jax.errors import UserError
from evads_jax.models.flor import Augmentation, augment

NOTHING = {"area": (1.0, 1.0), "ratio": 1.0, "jitter": 0.0, "flip": 0.0}
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3), np.uint8)


@functools.partial(jax.jit, static_argnums=(2, 3))
def view(images, key, size, settings):
    return augment(images, key, size, settings)


def test_the_whole_image_unchanged_is_the_image():
    found = view(IMAGES, jax.random.key(0), 12, Augmentation(**NOTHING))
    np.testing.assert_allclose(found, IMAGES / 255, atol=1e-6)


def test_a_flip_turns_left_and_right():
    found = view(IMAGES, jax.random.key(0), 12, Augmentation(**NOTHING | {"flip": 1.0}))
    np.testing.assert_allclose(found, IMAGES[:, :, ::-1] / 255, atol=1e-6)


def test_a_crop_is_a_part_of_the_image_at_its_place():
    # The image is its own coordinates: a crop's values tell where it lies and how large it is.
    rows, columns = np.mgrid[:60, :60]
    image = np.stack([4 * rows, 4 * columns, 0 * rows], axis=-1).astype(np.uint8)
    settings = Augmentation(**NOTHING | {"area": (0.1, 0.3), "ratio": 4 / 3})
    found = 255 / 4 * np.asarray(view(np.stack([image] * 50), jax.random.key(0), 24, settings), np.float64)
    inner = found[:, 2:-2, 2:-2]  # at its edges a resampled crop sees a little beyond
    heights = 24 / 19 * (inner[:, -1, 0, 0] - inner[:, 0, 0, 0])
    widths = 24 / 19 * (inner[:, 0, -1, 1] - inner[:, 0, 0, 1])
    areas, ratios = heights * widths / 3600, widths / heights
    assert 0.09 < areas.min() < 0.13
    assert 0.27 < areas.max() < 0.31
    assert 0.74 < ratios.min() < 0.85
    assert 1.18 < ratios.max() < 1.35
    np.testing.assert_allclose(inner[..., 0], np.broadcast_to(inner[:, :, :1, 0], inner.shape[:3]), atol=1e-3)
    assert np.ptp(inner[:, 0, 0, 0]) > 20  # they lie at different places


def test_jitter_scales_brightness_contrast_and_saturation():
    grey = np.full((40, 4, 4, 3), 100, np.uint8)
    found = np.asarray(view(grey, jax.random.key(1), 4, Augmentation(**NOTHING | {"jitter": 0.4})))
    assert np.ptp(found, axis=(1, 2, 3)).max() < 1e-5  # a grey image has neither contrast nor colour to change
    assert 0.6 <= found.min() * 2.55 < 0.7
    assert 1.3 < found.max() * 2.55 <= 1.4


def test_each_image_has_draws_of_its_own_and_the_key_decides_them():
    same = np.stack([IMAGES[0]] * 4)
    found = view(same, jax.random.key(0), 8, Augmentation())
    assert found.shape == (4, 8, 8, 3)
    assert 0 <= found.min() <= found.max() <= 1
    assert np.abs(found[0] - found[1:]).max(axis=(1, 2, 3)).min() > 0.05
    np.testing.assert_array_equal(found, view(same, jax.random.key(0), 8, Augmentation()))


@pytest.mark.parametrize("fields", [{"area": (0.0, 1.0)}, {"area": (0.5, 0.2)}, {"ratio": 0.5}, {"jitter": 1.0}])
def test_what_cannot_be_drawn_is_refused(fields):
    with pytest.raises(UserError):
        Augmentation(**fields)
