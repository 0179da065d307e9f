import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from evads_jax.errors import UserError
from evads_jax.train.optimizer import make

PARAMS = {"weight": jnp.ones((2, 2)), "bias": jnp.ones(2)}
MASK = {"weight": True, "bias": False}


def section(**changes):
    fields = {"learning_rate": 0.1, "warmup_steps": 4, "weight_decay": 0.5, "clip_norm": 1.0, "decay": "none"}
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


REFUSED = [("decay", "linear"), ("learning_rate", 0.0), ("clip_norm", 0.0)]


@pytest.mark.parametrize(("field", "value"), REFUSED)
def test_a_setting_without_a_meaning_is_refused(field, value):
    with pytest.raises(UserError, match=field):
        make(section(**{field: value}), MASK, 10)
