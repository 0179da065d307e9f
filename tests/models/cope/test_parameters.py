import dataclasses

import jax
import jax.numpy as jnp
import pytest

from evads_jax.errors import UserError
from evads_jax.models import cope, partitioning

from . import tiny


def leaves(tree):
    is_leaf = lambda x: isinstance(x, tuple)  # noqa: E731
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf)}


@pytest.mark.parametrize("form", ["paper", "released", "per_domain"])
def test_shapes_axes_and_decay_come_from_one_declaration(form):
    config = tiny.FORMS[form]
    drawn, names = cope.init(config, jax.random.key(0)), leaves(cope.axes(config))
    assert leaves(drawn).keys() == names.keys() == leaves(cope.decay_mask(config)).keys()
    assert leaves(cope.fan_in(config)).keys() == names.keys()
    assert jax.tree.map(lambda x: (x.shape, x.dtype), drawn) == jax.tree.map(
        lambda x: (x.shape, x.dtype), cope.abstract(config)
    )
    assert all(len(names[path]) == leaf.ndim for path, leaf in leaves(drawn).items())
    assert all(name is None or name in partitioning.RULES for axes in names.values() for name in axes)
    assert cope.parameter_count(config) == sum(leaf.size for leaf in jax.tree.leaves(drawn))


def test_weight_decay_spares_norms_and_biases():
    for path, decays in leaves(cope.decay_mask(tiny.CONFIG)).items():
        assert decays != ("norm" in path or "bias" in path), path


def test_a_key_determines_the_parameters_and_no_two_matrices_are_alike():
    first, again = (cope.init(tiny.CONFIG, jax.random.key(0)) for _ in range(2))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, first, again))
    random = [path for path, decays in leaves(cope.decay_mask(tiny.CONFIG)).items() if decays]
    assert len({float(leaves(first)[path].ravel()[0]) for path in random}) == len(random)


def test_what_is_shared_stands_once():
    whose = {form: tuple(list(cope.abstract(config)[part]) for part in ("encoders", "heads"))
             for form, config in tiny.FORMS.items()}  # fmt: skip
    own = sorted(cope.DOMAINS)
    assert whose["paper"] == whose["visual"] == (["shared"], ["shared"])
    assert whose["released"] == (["shared"], own)
    assert whose["per_domain"] == (own, own)
    assert "classes" not in cope.abstract(dataclasses.replace(tiny.CONFIG, classes=0))


def test_the_size_of_the_released_model_is_that_of_its_parts():
    # X-CLIP B/16 has 86 M for frames + 12 · 3 M of messages, RBT3 38 M, four layers of width 512 12.6 M.
    config = cope.CopeConfig(vocabulary=21128, form="released")
    assert cope.parameter_count(config) / 1e6 == pytest.approx(86.2 + 35.5 + 38.5 + 12.6, rel=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "newer"}, "form must be one of paper, released"),
        ({"modality": "audio"}, "modality must be one of"),
        ({"frame_size": 20}, "frame_size must be a multiple of visual_patch"),
        ({"mit_heads": 3}, "mit_heads must divide mit_width"),
        ({"visual_activation": "relu"}, "visual_activation must be one of gelu, quick_gelu"),
        ({"layers": 3}, "unknown field 'layers'"),
    ],
)
def test_sizes_that_do_not_fit_are_one_line(change, message):
    section = dataclasses.asdict(tiny.CONFIG) | change
    with pytest.raises(UserError, match=message):
        cope.CopeConfig.from_config(section, 30)


def test_a_section_gives_the_config_and_its_vocabulary_comes_first():
    section = {name: value for name, value in dataclasses.asdict(tiny.CONFIG).items() if name != "classes"}
    assert cope.CopeConfig.from_config(section, vocabulary=7, classes=8) == tiny.CONFIG
