from hypothesis import given
from hypothesis import strategies as st

from evads_jax.benchmark.facts import FactCount, count_facts
from evads_jax.data.records import RubricPoint

COLOURS = ("red", "dark red", "blue", "green", "off-white")
RUBRIC = (
    RubricPoint("product", ("kettle", "electric kettle"), ("lamp", "scarf")),
    RubricPoint("colour", ("red",), COLOURS[1:], core=False),
)
REFERENCE = "It is a red kettle."
CHINESE = (
    RubricPoint("colour", ("红色",), ("深红色", "蓝色")),
    RubricPoint("product", ("水壶",), ("台灯",)),
)


def counts(answer, rubric=RUBRIC, reference=REFERENCE):
    c = count_facts(rubric, reference, answer)
    return c.expected, c.right, c.wrong


def test_the_reference_states_every_fact_and_no_wrong_one():
    assert counts(REFERENCE) == (2, 2, 0)
    assert counts("红色水壶。", CHINESE, "一个红色水壶") == (2, 2, 0)


def test_an_answer_is_credited_for_what_it_states_in_any_spelling():
    assert counts("two ELECTRIC  KETTLES, Red") == (2, 2, 0)
    assert counts("ＲＥＤ thing") == (2, 1, 0)
    assert counts("a kettleful that is covered") == (2, 0, 0)  # neither kettle nor red


def test_another_value_is_wrong_also_beside_the_right_one():
    assert counts("a blue kettle") == (2, 1, 1)
    assert counts("a red or blue or green or off white kettle") == (2, 2, 3)
    assert counts("蓝色台灯", CHINESE, "一个红色水壶") == (2, 0, 2)


def test_a_longer_value_is_not_the_shorter_one_inside_it():
    assert counts("a dark red kettle") == (2, 1, 1)
    assert counts("深红色水壶", CHINESE, "一个红色水壶") == (2, 1, 1)
    brown = (RubricPoint("colour", ("red",), ("red brown",)),)
    assert counts("a red brown kettle", brown) == (1, 0, 1)


def test_what_is_denied_is_not_stated():
    assert counts("not a red kettle") == (2, 0, 0)
    assert counts("it isn't blue, it is a red kettle") == (2, 2, 0)
    assert counts("not a lamp but a red kettle") == (2, 2, 0)
    assert counts("不是蓝色而是红色的水壶", CHINESE, "一个红色水壶") == (2, 2, 0)


def test_only_what_the_reference_states_is_expected_and_what_it_mentions_is_not_wrong():
    assert counts("red", reference="a kettle") == (1, 0, 0)
    assert counts("a lamp", reference="a red kettle beside a lamp") == (2, 0, 0)


def test_without_a_rubric_there_are_no_facts():
    assert count_facts((), "anything", "something") == FactCount(0, 0, 0)


@given(st.lists(st.sampled_from(("red", "blue", "green", "kettle", "lamp", "a", "thing")), max_size=8), st.randoms())
def test_order_and_repetition_of_statements_do_not_count(words, random):
    shuffled = words * 2
    random.shuffle(shuffled)
    # Full stops, so that no two words make another value («dark red»).
    assert counts(". ".join(words)) == counts(". ".join(shuffled))


@given(st.text())
def test_no_text_breaks_it_or_is_credited_with_more_than_there_is(text):
    expected, right, wrong = counts(text)
    assert 0 <= right <= expected == 2
    assert wrong >= 0
