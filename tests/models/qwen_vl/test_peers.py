"""The model against transformers as it is installed, with weights that no golden file holds."""

import pytest

pytest.importorskip("torch", reason="the peers are not installed: make test-peers")

from . import make_golden
from .test_golden import text_difference, tree_of, video_difference

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("seed", [1, 2])
def test_logits_are_those_of_transformers(seed):
    answers = make_golden.answers(seed)
    params = tree_of(answers)
    assert text_difference(params, answers) < 1e-5
    assert video_difference(params, answers) < 1e-5
