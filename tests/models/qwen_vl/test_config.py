import dataclasses

import pytest

from configs.mg_grpo import get_config
from evads_jax.errors import UserError
from evads_jax.models.qwen_vl import QwenVLConfig, parameter_count

from . import tiny


def test_the_default_model_has_one_to_three_million_parameters():
    assert 1e6 < parameter_count(QwenVLConfig.from_config(get_config().model, 1024)) < 3e6


def test_the_vision_fields_of_a_job_describe_the_vision_tower():
    config = QwenVLConfig.from_config(get_config().model, 77)
    assert (config.vocabulary, config.vision.patch, config.vision.deepstack) == (77, 8, (0, 1))
    assert hash(config) == hash(QwenVLConfig.from_config(get_config().model, 77))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kv_heads", 3),
        ("mrope_sections", (2, 2, 1)),
        ("head_width", 11),
        ("layers", 2),
        ("dtype", "float16"),
        ("video_layout", "transformers_6"),
        ("logit_chunk", 0),
    ],
)
def test_sizes_that_do_not_fit_are_refused(field, value):
    with pytest.raises(UserError, match="model sizes do not fit"):
        dataclasses.replace(tiny.CONFIG, **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("heads", 3),
        ("deepstack", (1, 0)),
        ("deepstack", (2,)),
        ("width", 12),
        ("window", 6),
        ("full_attention", (1, 1)),
    ],
)
def test_vision_sizes_that_do_not_fit_are_refused(field, value):
    vision = dataclasses.replace(tiny.CONFIG.vision, **{field: value})
    with pytest.raises(UserError, match=r"config\.model\.vision_"):
        dataclasses.replace(tiny.CONFIG, vision=vision)


def test_an_unknown_family_is_refused():
    with pytest.raises(UserError, match="unknown model family 'gpt'"):
        QwenVLConfig.from_config({**get_config().model, "family": "gpt"}, 10)
