import itertools
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from optax.contrib import MuonDimensionNumbers

from evads_jax.errors import UserError
from evads_jax.models import qwen_vl
from evads_jax.train.optimizer import MUON_RMS, make, matrices

PARAMS = {"weight": jnp.ones((2, 2)), "bias": jnp.ones(2)}
MASK = {"weight": True, "bias": False}


def section(**changes):
    fields = {"optimizer": "adamw", "learning_rate": 0.1, "warmup_steps": 4, "weight_decay": 0.5, "clip_norm": 1.0}
    fields |= {"decay": "none", "adam_learning_rate": 0.01}
    return ConfigDict(fields | changes)


def rates(max_steps, steps, **changes):
    schedule = make(section(**changes), MASK, max_steps).schedule
    return [float(schedule(step)) for step in steps]


def test_the_learning_rate_rises_from_above_zero_and_stays():
    np.testing.assert_allclose(rates(100, range(6)), [0.025, 0.05, 0.075, 0.1, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(rates(100, [99, 5000]), 0.1)


def test_the_schedule_does_not_know_when_the_stage_ends():
    assert rates(50, range(60)) == rates(5000, range(60))


def test_cosine_falls_to_zero_at_the_last_step():
    values = rates(20, range(21), decay="cosine")
    assert values[4] == pytest.approx(0.1)
    assert values[20] == pytest.approx(0.0, abs=1e-8)
    assert all(a > b for a, b in itertools.pairwise(values[4:]))


@pytest.mark.parametrize("warmup", [0, 1])
def test_a_stage_may_start_at_its_full_rate(warmup):
    np.testing.assert_allclose(rates(10, [0, 1], warmup_steps=warmup), 0.1)


def test_norms_and_biases_do_not_decay():
    optimizer = make(section(warmup_steps=0), MASK, 10).transformation
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = optimizer.update(zero, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["weight"], -0.1 * 0.5, rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], 0.0)


REFUSED = [("optimizer", "lion"), ("decay", "linear"), ("learning_rate", 0.0), ("clip_norm", 0.0)]


@pytest.mark.parametrize(("field", "value"), REFUSED)
def test_a_setting_without_a_meaning_is_refused(field, value):
    with pytest.raises(UserError, match=field):
        make(section(**{field: value}), MASK, 10)


def test_muon_moves_a_matrix_along_all_its_directions_alike_and_leaves_the_rest_to_adam():
    """The oracle: U Vᵀ of the gradient's singular value decomposition, in float64."""
    rng = np.random.default_rng(0)
    shapes = {"stack": (2, 6, 4, 2), "table": (9, 6), "bias": (4,)}
    params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    gradients = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    axes = {"stack": ("layers", "embed", "heads", None), "table": ("vocabulary", "embed"), "bias": ("embed",)}
    numbers = matrices(params, axes, {"stack": 6, "table": 6, "bias": 0})
    assert numbers == {"stack": MuonDimensionNumbers((1,), (2, 3)), "table": None, "bias": None}

    chosen = section(optimizer="muon", warmup_steps=0, weight_decay=0.0, clip_norm=1e9)
    made = make(chosen, jax.tree.map(lambda _: True, params), 10, numbers).transformation
    updates, _ = made.update(gradients, made.init(params), params)
    for layer in range(2):
        u, _, v = np.linalg.svd(np.asarray(gradients["stack"][layer], np.float64).reshape(6, 8), full_matrices=False)
        moved = -np.asarray(updates["stack"][layer], np.float64).reshape(6, 8)
        assert np.sum(moved * (u @ v)) / np.linalg.norm(moved) / np.linalg.norm(u @ v) > 0.95
        assert np.sqrt(np.mean(moved**2)) == pytest.approx(0.1 * MUON_RMS, rel=0.3)
    adam = optax.nadam(0.01)
    wanted, _ = adam.update(gradients, adam.init(params), params)
    for name in ("table", "bias"):
        np.testing.assert_allclose(updates[name], wanted[name], rtol=1e-4)


def test_every_matrix_of_the_model_but_its_tables_is_one_for_muon():
    config = ConfigDict(runpy.run_path("configs/mg_grpo.py")["get_config"]("smoke"))
    model = qwen_vl.QwenVLConfig.from_config(config.model, 512)
    numbers = matrices(qwen_vl.abstract(model), qwen_vl.axes(model), qwen_vl.fan_in(model))
    assert numbers["text"]["embed"] is None
    assert numbers["vision"]["position"] is None
    assert numbers["text"]["layers"]["out"] == MuonDimensionNumbers((1, 2), (3,))
    assert numbers["vision"]["merger"]["up"]["weight"] == MuonDimensionNumbers((0,), (1,))
    assert numbers["text"]["norm"]["scale"] is None


def test_muon_without_a_map_of_matrices_is_refused():
    with pytest.raises(ValueError, match="muon"):
        make(section(optimizer="muon"), MASK, 10)
