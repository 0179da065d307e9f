"""Both families against transformers as it is installed, with weights and inputs that no golden file holds."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch", reason="the peers are not installed: make test-peers")

from evads_jax.models.qwen_vl.checkpoint import load_parameters, read_config

from . import cases, make_golden
from .oracle import Oracle
from .test_golden import GRADIENT, LOGITS, LOGPROB

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module", params=cases.FAMILIES)
def family(request):
    return request.param


@pytest.fixture(params=[(1, False), (2, True)], ids=["untied", "tied"])
def pair(request, family, tmp_path):
    """An oracle and what our loader makes of the checkpoint that it writes."""
    oracle = Oracle(family, *request.param)
    oracle.save(tmp_path)
    config = read_config(tmp_path)
    assert config.tie_embeddings == request.param[1]
    return oracle, load_parameters(tmp_path, config), config


def test_logits_gradients_and_greedy_tokens_are_those_of_transformers(pair):
    oracle, params, config = pair
    found = cases.logits(params, config, oracle.cases)
    for name, case, ours in zip(cases.CASES, oracle.cases, found, strict=True):
        assert cases.difference(ours, oracle.logits(case).detach().numpy()) < LOGITS, name
    ours, theirs = cases.gradient(params, config, oracle.cases), cases.tree_of(oracle.gradient(oracle.cases), config)
    for name, errors in cases.gradient_differences(ours, theirs).items():
        assert max(errors) < GRADIENT, (name, errors)
    tokens, sampled, scored = cases.greedy(params, config, oracle.cases)
    for case, row in zip(oracle.cases, tokens, strict=True):
        np.testing.assert_array_equal(row, oracle.greedy(case))
    np.testing.assert_allclose(sampled, scored, atol=LOGPROB)


def test_the_golden_file_is_what_transformers_says_today(family):
    with np.load(cases.GOLDEN / family / "expected.npz") as file:
        today = make_golden.expected(Oracle(family))
        assert sorted(today) == sorted(file.files)
        for name, value in today.items():
            np.testing.assert_allclose(value, file[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_version_5_alone_reads_seconds_as_its_layout_says():
    oracle = Oracle("qwen2_5_vl", 3)
    for case in oracle.cases:
        for layout in ("release", "transformers_5"):
            config = dataclasses.replace(read_config(cases.GOLDEN / "qwen2_5_vl"), video_layout=layout)
            ours = cases.prompt(case, config, len(case.ids)).positions
            np.testing.assert_array_equal(ours, oracle.positions(case, layout))
