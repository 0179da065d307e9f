import pytest
from ml_collections import ConfigDict

from evads_jax.errors import UserError
from evads_jax.judge import make_judge


def test_the_lexical_judge_is_made_by_name():
    assert make_judge(ConfigDict({"kind": "lexical"}), "zh").name == "lexical"


@pytest.mark.parametrize(("kind", "language"), [("lexicall", "en"), ("lexical", "fr")])
def test_an_unknown_kind_or_language_is_the_users_error(kind, language):
    with pytest.raises(UserError, match="unknown"):
        make_judge(ConfigDict({"kind": kind}), language)


def test_a_second_judge_is_told_apart_from_the_first():
    config = ConfigDict({"kind": "openai", "base_url": None, "model": "m"})
    with pytest.raises(UserError, match=r"no base_url \[second_judge\.base_url\]"):
        make_judge(config, "en", section="second_judge")
