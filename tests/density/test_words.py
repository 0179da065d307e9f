"""Words in the scripts that ads are written in."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.density.words import DEFAULT_RULE, WORD_RULES

words, characters = WORD_RULES["cjk_char_latin_run"], WORD_RULES["non_space_char"]


@pytest.mark.parametrize(
    ("text", "expected", "expected_characters"),
    [
        ("", 0, 0),
        ("深层补水", 4, 4),
        ("买2支iPhone15", 4, 11),
        ("ＡＢＣ１２３", 1, 6),  # full-width forms are the narrow ones
        ("48小时 long-lasting!", 5, 17),
        ("don't 9.9", 4, 8),
        ("スキンケア", 5, 5),
        ("ラーメンとお茶", 7, 7),  # the long-vowel mark is a kana
        ("ｶﾞﾗｽ", 3, 3),  # half-width kana with a voicing mark become three full-width ones
        ("人々〇", 3, 3),
        ("ㄅㄆㄇ", 3, 3),
        ("안녕하세요 여러분", 2, 8),  # Korean counts by its spaces
        ("สวัสดีครับ", 1, 7),  # Thai writes none: one run; three marks do not count as characters
        ("café", 1, 4),
        ("cafe\u0301", 1, 4),  # the accent apart
        ("скидка 50%", 2, 9),
        ("😀🔥👍🏽", 0, 4),
        ("👨\u200d👩\u200d👧", 0, 3),  # joined by zero-width joiners
        ("1️⃣买一送一", 5, 5),
        ("、。「」・", 0, 5),
        ("①②", 1, 2),  # become the digits 12
        ("𠮷野家", 3, 3),  # outside the basic plane
        ("a\u3000b\u00a0c\td", 4, 4),
    ],
)
def test_words_and_characters_by_script(text, expected, expected_characters):
    assert words(text) == expected
    assert characters(text) == expected_characters


@given(st.text(max_size=30))
def test_composed_and_decomposed_text_count_alike(text):
    for rule in WORD_RULES.values():
        assert rule(unicodedata.normalize("NFC", text)) == rule(unicodedata.normalize("NFD", text))


@given(st.text(max_size=30), st.text(max_size=30))
def test_counts_add_up_over_a_space(left, right):
    for rule in WORD_RULES.values():
        assert rule(left + " " + right) == rule(left) + rule(right)


@given(st.text(max_size=30), st.text(max_size=30))
def test_joining_two_texts_loses_at_most_one_word(left, right):
    assert words(left) + words(right) - 1 <= words(left + right) <= words(left) + words(right)


@given(st.text(max_size=30))
def test_there_are_never_more_words_than_characters(text):
    assert 0 <= words(text) <= characters(text)


@given(st.text(alphabet=st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5)))
def test_han_characters_count_one_each(text):
    assert words(text) == len(text)


def test_the_default_is_one_of_the_rules():
    assert DEFAULT_RULE in WORD_RULES
