"""A quote is found where it stands, also with a wrong character, and not where it does not."""

from hypothesis import given
from hypothesis import strategies as st

from evads_jax.benchmark.qa.quotes import find, find_in_events, least_edits, normalise
from evads_jax.data.records import Event

TEXTS = st.text(alphabet="abc红绿", max_size=12)


def naive(pattern: str, text: str) -> int:
    """The dynamic programme, cell by cell; the first row is free, so is the end."""
    column = list(range(len(pattern) + 1))
    least = column[-1]
    for character in text:
        before, column = column, [0]
        for i, wanted in enumerate(pattern, 1):
            column.append(min(before[i] + 1, column[-1] + 1, before[i - 1] + (wanted != character)))
        least = min(least, column[-1])
    return least


@given(TEXTS.filter(bool), TEXTS)
def test_the_bits_count_the_least_edits(pattern, text):
    assert least_edits(pattern, text) == naive(pattern, text)


@given(st.text(alphabet="abcdefgh", min_size=70, max_size=90), TEXTS)
def test_long_quotes_need_no_more_than_their_bits(pattern, text):
    assert least_edits(pattern, text + pattern[:40] + "z" + pattern[41:]) <= 1
    assert least_edits(pattern + "z", text + pattern + text) == 1


def test_width_case_space_and_punctuation_do_not_matter():
    assert normalise("“Ｎｅｗ, 1.5 米！”") == "new15米"
    assert find("NEW 1.5米", "the new, 1.5 米").kind == "exact"


def test_one_wrong_character_in_five_is_fuzzy_and_two_are_none():
    assert find("亲肤螺纹棉", "面料是轻肤螺纹棉的").kind == "fuzzy"
    assert find("亲肤螺纹棉", "面料是轻敷螺纹棉的").kind == "none"
    assert find("!?", "!?").kind == "none"


def test_speech_is_joined_over_its_seconds_and_overlays_may_be_split():
    events = (Event(3, 3, ("半高领打底衫",), "半高领打底衫 搭"), Event(4, 4, ("正肩", "修身版型"), "配大衣小香"))
    assert find_in_events("搭配大衣", "asr", events, 3, 4).kind == "exact"
    assert find_in_events("正肩修身", "ocr", events, 4, 4).kind == "exact"
    assert find_in_events("搭配大衣", "ocr", events, 3, 4).kind == "none"


def test_a_quote_counts_at_its_time_only_give_or_take_a_second():
    events = tuple(Event(i, i, (f"第{i}件商品",)) for i in range(9))
    assert find_in_events("第4件商品", "ocr", events, 5, 5).kind == "exact"
    assert find_in_events("第4件商品", "ocr", events, 6, 6).similarity < 1
    assert find_in_events("x", "ocr", (), 0, 0).kind == "none"
