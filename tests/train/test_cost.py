import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evads_jax.events import is_wall_clock
from evads_jax.train.cost import Clock, compilations, shares


def test_a_phase_lasts_from_the_end_of_the_one_before():
    clock = Clock()
    time.sleep(0.02)
    clock.end("prefill")
    clock.end("decode")
    assert list(clock.fields) == ["seconds_prefill", "seconds_decode"]
    assert clock.fields["seconds_prefill"] >= 0.02 > clock.fields["seconds_decode"]
    assert all(is_wall_clock(field) for field in clock.fields)


def test_padding_is_what_holds_no_token():
    values = shares(np.array([3, 5]), np.array([[2, 4], [1, 1]]), T=6, S=4)
    assert values["padding"] == pytest.approx(1 - (8 + 8) / (12 + 16))


def test_a_whole_group_shares_its_prompt_g_fold_and_an_absent_suffix_shares_nothing():
    assert shares(np.array([3, 5]), np.ones((2, 7), int), T=6, S=4)["prefix_sharing"] == 7.0
    assert shares(np.array([3, 5]), np.array([[2, 4], [1, 0]]), T=6, S=4)["prefix_sharing"] == (2 * 3 + 5) / 8
    assert shares(np.array([0, 0]), np.zeros((2, 2), int), T=6, S=4) == {"padding": 1.0, "prefix_sharing": 0.0}


def test_a_program_is_counted_once_for_each_shape():
    compilations()
    double = jax.jit(lambda x: 2 * x)
    arguments = [jnp.zeros(3), jnp.zeros(3), jnp.zeros(4)]
    counts = [compilations()]
    for argument in arguments:
        double(argument)
        counts.append(compilations())
    assert np.diff(counts).tolist() == [1, 0, 1]
