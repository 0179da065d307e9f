import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from evads_jax.train.state import apply_gradients, create, released, tensor_names

PARAMS = {"layers": {"weight": jnp.ones((2, 2)), "bias": jnp.zeros(2)}, "head": jnp.ones(3)}


@pytest.fixture
def state():
    return create(PARAMS, optax.sgd(0.5))


def spoiled(tree, value):
    return jax.tree.map(lambda x: x.at[..., 0].set(value), tree)


def gradients(**bad):
    made = jax.tree.map(jnp.ones_like, PARAMS)
    return made | {name: spoiled(made[name], value) for name, value in bad.items()}


def test_a_step_follows_the_gradient_and_counts(state):
    after, metrics = apply_gradients(state, optax.sgd(0.5), jnp.float32(1.0), gradients())
    np.testing.assert_allclose(after.params["head"], 0.5)
    assert int(after.step) == 1
    assert float(metrics["grad_norm"]) == 3.0  # nine ones
    assert int(metrics["first_bad"]) == -1


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_the_first_bad_gradient_is_named(state, value):
    names = tensor_names(state.params)
    _, metrics = apply_gradients(state, optax.sgd(0.5), jnp.float32(jnp.nan), gradients(layers=value))
    assert names[int(metrics["first_bad"])] == "gradient of layers/bias"
    _, metrics = apply_gradients(state, optax.sgd(0.5), jnp.float32(1.0), gradients(head=value))
    assert names[int(metrics["first_bad"])] == "gradient of head"


def test_a_bad_loss_with_good_gradients_is_named(state):
    _, metrics = apply_gradients(state, optax.sgd(0.5), jnp.float32(jnp.inf), gradients())
    assert tensor_names(state.params)[int(metrics["first_bad"])] == "loss"


def test_the_callers_parameters_outlive_a_donated_state():
    params = jax.tree.map(jnp.copy, PARAMS)
    jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)(create(params, optax.adam(0.1)))
    np.testing.assert_array_equal(params["head"], 1.0)


def test_what_is_released_leaves_its_shapes_also_where_some_is_gone_already():
    params = jax.tree.map(jnp.copy, PARAMS)
    params["head"].delete()
    shapes = released({"params": params, "name": "kept"})
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(params))
    assert [leaf.shape for leaf in jax.tree.leaves(shapes["params"])] == [(3,), (2,), (2, 2)]
    assert shapes["params"]["head"].sharding == params["head"].sharding
    assert shapes["name"] == "kept"
    assert released(shapes) == shapes


SHARDED = """
import jax, jax.numpy as jnp, optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from evads_jax.train.state import create
mesh = jax.make_mesh((4,), ("fsdp",), axis_types=(AxisType.Auto,))
params = {"w": jax.device_put(jnp.ones((8, 2)), NamedSharding(mesh, P("fsdp"))),
          "b": jax.device_put(jnp.ones(3), NamedSharding(mesh, P()))}
state = create(params, optax.adamw(0.1))
moments = [x for x in jax.tree.leaves(state.opt_state) if x.shape == (8, 2)]
assert len(moments) == 2 and all(x.sharding.spec == P("fsdp") for x in moments), moments
assert all(x.sharding.mesh.size == 4 for x in jax.tree.leaves(state))
"""


def test_moments_are_sharded_like_their_parameters():
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu", "PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, "-c", SHARDED], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
