import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from evads_jax.models import qwen_vl

from . import tiny


def leaves(tree):
    is_leaf = lambda x: isinstance(x, tuple)  # noqa: E731
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf)}


def test_shapes_axes_and_decay_come_from_one_declaration():
    drawn, names = qwen_vl.init(tiny.CONFIG, jax.random.key(0)), leaves(qwen_vl.axes(tiny.CONFIG))
    assert leaves(drawn).keys() == names.keys() == leaves(qwen_vl.decay_mask(tiny.CONFIG)).keys()
    assert jax.tree.map(lambda x: (x.shape, x.dtype), drawn) == jax.tree.map(
        lambda x: (x.shape, x.dtype), qwen_vl.abstract(tiny.CONFIG)
    )
    assert all(len(names[path]) == leaf.ndim for path, leaf in leaves(drawn).items())
    assert qwen_vl.parameter_count(tiny.CONFIG) == sum(leaf.size for leaf in jax.tree.leaves(drawn))


def test_weight_decay_spares_norms_and_biases():
    for path, decays in leaves(qwen_vl.decay_mask(tiny.CONFIG)).items():
        assert decays != ("norm" in path or "bias" in path), path


def test_a_key_determines_the_parameters_and_no_two_matrices_are_alike():
    first, again, other = (qwen_vl.init(tiny.CONFIG, jax.random.key(seed)) for seed in (0, 0, 1))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, first, again))
    random = [path for path, decays in leaves(qwen_vl.decay_mask(tiny.CONFIG)).items() if decays]
    assert all(not jnp.array_equal(leaves(first)[path], leaves(other)[path]) for path in random)
    assert len({float(leaves(first)[path].ravel()[0]) for path in random}) == len(random)
    for layer in np.asarray(first["text"]["layers"]["q"])[1:]:
        assert not np.array_equal(layer, first["text"]["layers"]["q"][0])


def test_a_tied_head_counts_once():
    untied = dataclasses.replace(tiny.CONFIG, tie_embeddings=False)
    more = qwen_vl.parameter_count(untied) - qwen_vl.parameter_count(tiny.CONFIG)
    assert more == tiny.CONFIG.vocabulary * tiny.CONFIG.width
