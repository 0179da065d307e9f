import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from evads_jax.models.qwen_vl import VideoInputs, encode_video, vision

from . import naive, tiny

PARAMS = tiny.params()
encode = jax.jit(encode_video, static_argnums=1)


def test_patches_stand_in_merge_blocks():
    rows, columns, real = vision.patch_coordinates(jnp.array([[4, 2], [2, 4], [0, 0]]), 10, 2)
    assert rows[0, :8].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert columns[0, :8].tolist() == [0, 1] * 4
    assert list(zip(rows[1, :8].tolist(), columns[1, :8].tolist(), strict=True)) == [
        (0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3),
    ]  # fmt: skip
    assert real.sum(axis=1).tolist() == [8, 8, 0]


def test_features_of_a_batch_of_unlike_units_are_those_of_each_unit_alone():
    prompt, _ = tiny.batch(garbage=np.random.default_rng(0))
    features = encode(PARAMS, tiny.CONFIG, prompt.video)
    room = tiny.P // 4
    for b, sequence in enumerate(tiny.sequences()):
        for u, (unit, grid) in enumerate(zip(sequence.units, tiny.GRIDS[b], strict=True)):
            alone = naive.unit_features(PARAMS, tiny.CONFIG, unit, grid)
            start, n = (b * tiny.UNITS + u) * room, grid[0] * grid[1] // 4
            for ours, theirs in zip((features.tokens, *features.deepstack), alone, strict=True):
                np.testing.assert_allclose(ours[start : start + n], theirs, atol=3e-5)


def test_rows_of_padding_are_zero():
    prompt, _ = tiny.batch(garbage=np.random.default_rng(0))
    features = encode(PARAMS, tiny.CONFIG, prompt.video)
    tokens = np.asarray(prompt.video.grid).prod(axis=1) // 4
    real = (np.arange(tiny.P // 4) < tokens[:, None]).reshape(-1)
    for rows in (features.tokens, *features.deepstack):
        assert np.all(np.any(rows != 0, axis=1) == real)


def test_on_its_own_grid_the_position_table_is_taken_as_it_is():
    config = dataclasses.replace(tiny.CONFIG, vision=dataclasses.replace(tiny.CONFIG.vision, position_grid=4))
    table = jnp.arange(16.0)[:, None]
    grid = jnp.array([[4, 4]])
    rows, columns, _ = vision.patch_coordinates(grid, 16, 2)
    taken = vision._positions(table, config, grid, rows, columns)
    np.testing.assert_allclose(taken[:, 0], (rows * 4 + columns)[0], atol=1e-5)


def test_every_pixel_matters():
    prompt, _ = tiny.batch()
    base = encode(PARAMS, tiny.CONFIG, prompt.video).tokens
    for value in (0, tiny.CONFIG.vision.patch_values - 1):
        patches = prompt.video.patches.at[0, 3, value].add(100)
        moved = encode(PARAMS, tiny.CONFIG, VideoInputs(patches, prompt.video.grid)).tokens
        changed = np.any(np.abs(moved - base) > 1e-4, axis=1)
        assert changed[:3].all(), "attention carries it to the whole unit"
        assert not changed[3:].any(), "and to no other"


def test_a_scan_ends_where_features_are_taken_and_where_the_kind_of_layer_changes():
    published = vision.VisionConfig(1152, 27, 16, 4304, deepstack=(8, 16, 24))
    assert vision._stretches(published) == [9, 8, 8, 2]
    windowed = vision.VisionConfig(1280, 32, 16, 3420, window=112, full_attention=(7, 15, 23, 31))
    assert vision._stretches(windowed) == [7, 1, 7, 1, 7, 1, 7, 1]
