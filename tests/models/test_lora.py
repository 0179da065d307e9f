"""LoRA against the matrices that it stands for, formed in NumPy in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from qwen_vl import tiny

from evads_jax.errors import UserError
from evads_jax.models import lora, partitioning, qwen_vl

ALL = ("text", "merger", "vision")
CONFIG = dataclasses.replace(tiny.CONFIG, tie_embeddings=False, scan_layers=True)
TEXT = {"q", "k", "v", "out", "gate", "up", "down"}


def declared(groups=ALL):
    trees = qwen_vl.abstract(CONFIG), qwen_vl.axes(CONFIG), qwen_vl.fan_in(CONFIG)
    return lora.declare(*trees, 3, 6.0, groups)


def drawn(seed=5, groups=ALL):
    """An adapter that has been trained: B is not zero."""
    adapter = lora.init(declared(groups), jax.random.key(seed))
    return jax.tree.map(lambda x: x + 0.2 * jax.random.normal(jax.random.key(x.size), x.shape), adapter)


def score(params, config=CONFIG):
    return jax.jit(qwen_vl.score, static_argnums=1)(params, config, *tiny.batch()).logprob


@pytest.fixture(scope="module")
def params():
    return tiny.params(config=CONFIG)


def factors_of(adapter):
    found = jax.tree_util.tree_leaves_with_path(adapter, is_leaf=lambda x: isinstance(x, lora.Factors))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): factors for path, factors in found}


def by_hand(params, adapter):
    """The parameters with W + α/r·A·B, formed in NumPy."""
    products = factors_of(adapter)

    def leaf(path, weight):
        if (name := jax.tree_util.keystr(path, simple=True, separator="/")) not in products:
            return weight
        a, b = (np.asarray(x, np.float64) for x in (products[name].a, products[name].b))
        return jnp.asarray(np.asarray(weight, np.float64) + 2.0 * (a @ b).reshape(weight.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, params)


def test_every_linear_layer_of_a_group_is_adapted_and_nothing_else():
    names = {group: set(factors_of(declared((group,)))) for group in ALL}
    assert names["text"] == {f"text/layers/{name}" for name in TEXT}
    assert names["vision"] == {f"vision/layers/{name}/weight" for name in ("qkv", "out", "up", "down")}
    mergers = {f"vision/{place}/{name}/weight" for place in ("merger", "deepstack") for name in ("up", "down")}
    assert names["merger"] == mergers
    assert set(factors_of(declared())) == set.union(*names.values())


@pytest.mark.parametrize("groups", [("head",), ()])
def test_an_unknown_group_or_none_is_refused(groups):
    with pytest.raises(UserError, match="text, merger, vision"):
        declared(groups)


def test_an_adapted_model_starts_as_the_frozen_one_bit_for_bit(params):
    adapted = lora.combine(params, lora.init(declared(), jax.random.key(0)))
    np.testing.assert_array_equal(score(adapted), score(params))


def test_an_adapted_model_is_the_one_with_the_products_in_its_matrices(params):
    adapter = drawn()
    expected = score(by_hand(params, adapter))
    assert np.abs(expected - score(params)).max() > 0.5, "the adapter must matter"
    for same in (lora.combine(params, adapter), lora.merge(lora.combine(params, adapter))):
        np.testing.assert_allclose(score(same), expected, atol=2e-5)


def test_gradients_are_those_of_the_matrix_taken_through_the_product():
    rng = np.random.default_rng(0)
    x, upstream, weight = rng.normal(size=(7, 6)), rng.normal(size=(7, 8)), rng.normal(size=(2, 3, 4, 2))
    a, b = rng.normal(size=(6, 2)), rng.normal(size=(2, 8))
    adapted = lora.Adapted(jnp.float32(weight), lora.Factors(jnp.float32(a), jnp.float32(b), 1.5))

    def loss(adapted, x):
        return (lora.matmul(x, adapted) * upstream).sum()

    ours, at_x = jax.jit(jax.grad(loss, (0, 1)))(adapted, jnp.float32(x))
    dense = x.T @ upstream
    np.testing.assert_allclose(ours.factors.a, 1.5 * dense @ b.T, rtol=1e-5)
    np.testing.assert_allclose(ours.factors.b, 1.5 * a.T @ dense, rtol=1e-5)
    np.testing.assert_allclose(at_x, upstream @ (weight.reshape(6, 8) + 1.5 * a @ b).T, rtol=1e-5)


def test_the_upper_of_two_adapters_can_be_left_off(params):
    lower = lora.combine(params, drawn(1))
    both = lora.combine(lower, drawn(2, ("text",)))
    unused = lora.combine(lower, lora.init(declared(("text",)), jax.random.key(0)))
    np.testing.assert_array_equal(score(unused), score(lower))
    twice = by_hand(by_hand(params, drawn(1)), drawn(2, ("text",)))
    for same in (both, lora.merge(both)):
        np.testing.assert_allclose(score(same), score(twice), atol=2e-5)


def test_holding_frozen_matrices_in_bfloat16_changes_no_bit_of_a_bfloat16_model(params):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    held = lora.hold(params, qwen_vl.fan_in(config), config.dtype)
    assert held["text"]["layers"]["q"].dtype == held["vision"]["patch"]["weight"].dtype == jnp.bfloat16
    assert held["vision"]["position"].dtype == held["text"]["norm"]["scale"].dtype == jnp.float32
    np.testing.assert_array_equal(score(held, config), score(params, config))


def test_a_factor_has_an_axis_name_for_each_of_its_axes():
    tree = declared()
    axes = jax.tree.map(lambda declared: declared.axes, tree)
    assert axes["text"]["layers"]["out"].a == ("layers", "heads", None)
    assert axes["text"]["layers"]["down"].b == ("layers", None, "embed")
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), tree)
    placed = partitioning.shardings(axes, partitioning.make_mesh(), abstract)
    assert jax.tree.structure(placed) == jax.tree.structure(tree)
