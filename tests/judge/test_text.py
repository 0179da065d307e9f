import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.judge.text import BREAK, normalise, read, tokenise


@pytest.mark.parametrize(
    "disguised",
    [
        "ＲＥＤ",
        "r\u200be\u200dd",
        "r\u00aded",
        "rе\u0501".replace("\u0501", "d"),
        "r-e-d",
        "r e d",
        "𝐫𝐞𝐝",
        "réd",
        "R·E·D",
    ],
)
def test_disguises_of_a_word_read_as_the_word(disguised):
    assert tokenise(disguised) == ("red",)


def test_spelled_chinese_is_joined_and_spaced_phrases_stay_apart():
    assert tokenise("红 色") == tokenise("红\u200b色") == ("红", "色")
    assert tokenise("红色 蓝色") == ("红", "色", " ", "蓝", "色")


def test_plurals_possessives_and_spellings_are_one_word():
    assert tokenise("The boxes' colors, gray berries") == ("the", "box", BREAK, "colour", BREAK, "grey", "berry")


def test_a_word_inside_another_is_no_token_of_its_own():
    assert "red" not in tokenise("covered, a redder bored")


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader(text):
    tokens = read(text)
    assert len(tokens.tokens) == len(tokens.denied)
    assert tokens.length >= 0
    assert normalise(text).isascii() or not text.isascii()


def denied(text):
    tokens = read(text)
    return {token for token, no in zip(tokens.tokens, tokens.denied, strict=True) if no}


@pytest.mark.parametrize(
    ("text", "word", "expected"),
    [
        ("it is not red", "red", True),
        ("it isn't a bright red", "red", True),
        ("blue rather than red", "red", True),
        ("not blue but red", "red", False),
        ("not blue, red", "red", False),
        ("it is not blue, it is red", "red", False),
        ("not only red", "red", False),
        ("neither blue nor red", "red", True),
        ("no doubt red", "red", False),
        ("不是红色", "红", True),
        ("不是 红色", "红", True),
        ("不是蓝色而是红色", "红", False),
        ("是蓝色而不是红色", "红", True),
        ("不锈钢红色", "红", False),
        ("非常红", "红", False),
        ("没有红色", "红", True),
        ("不是蓝色，红色", "红", False),
    ],
)
def test_a_negation_covers_its_clause_and_no_more(text, word, expected):
    assert (word in denied(text)) is expected


def test_a_long_word_counts_for_its_letters():
    assert read("a" * 120).length > 10
    assert read("a, b!").length == 2
