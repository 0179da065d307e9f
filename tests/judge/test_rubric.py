import itertools

import pytest

from evads_jax.data.records import RubricPoint
from evads_jax.judge.rubric import Matcher, compile_rubric, grade
from evads_jax.judge.text import read

COLOUR = RubricPoint("colour", ("red", "crimson"), ("blue", "dark red", "orange"))
PRODUCT = RubricPoint("product", ("mug",), ("orange juice", "vase"))
PLACE = RubricPoint("place", ("kitchen",), ("garden",), core=False)
ZH = RubricPoint("colour", ("红色",), ("粉红色", "蓝色"))


def findings(text, *points):
    return Matcher(points or (COLOUR, PRODUCT, PLACE)).findings(read(text))


def test_accepted_wordings_and_their_plurals_are_found():
    assert findings("Crimson mugs in kitchens").found == ("colour", "product", "place")


def test_a_word_is_not_found_inside_another():
    assert findings("covered smug").missing == ("colour", "product", "place")


@pytest.mark.parametrize("text", ["a dark red mug", "a red or blue mug", "red, not red", "the red is wrong", "not red"])
def test_rivals_denials_and_two_values_contradict_a_slot(text):
    assert "colour" in findings(text).contradicted


def test_a_denied_rival_is_no_contradiction():
    assert findings("a red mug, not blue").found == ("colour", "product")


def test_the_longest_wording_is_meant_in_chinese():
    assert findings("粉红色的杯子", ZH).contradicted == ("colour",)
    assert findings("红色的杯子", ZH).found == ("colour",)


def test_a_rival_within_a_wording_of_another_slot_is_not_meant():
    assert "colour" not in findings("red, beside orange juice").contradicted


def test_a_rival_that_the_reference_states_is_no_rival():
    both = RubricPoint("place", ("kitchen",), ("garden", "beach"))
    matcher = compile_rubric((both,), "From the garden into the kitchen")
    assert matcher.findings(read("garden, then kitchen")).found == ("place",)
    assert matcher.findings(read("beach, then kitchen")).contradicted == ("place",)


def test_points_that_the_reference_does_not_state_are_not_asked_for():
    assert [p.slot for p in compile_rubric((COLOUR, PLACE), "a red thing").points] == ["colour"]


@pytest.mark.parametrize(
    ("stated", "contradicted", "expected"),
    [
        ({0, 1, 2, 3}, set(), 1.0),
        ({0, 1, 2}, set(), 0.75),
        ({0, 1}, {2}, 0.25),
        ({0, 2}, set(), 0.5),
        ({0}, set(), 0.25),
        ({2, 3}, set(), 0.25),
        ({2}, {3}, 0.0),
        (set(), set(), 0.0),
        ({0, 2, 3}, {1}, 0.0),
        ({0, 1, 2, 3}, {0}, 0.0),
    ],
)
def test_grades_of_two_core_points_and_two_details(stated, contradicted, expected):
    points = tuple(RubricPoint(str(i), (str(i),), core=i < 2) for i in range(4))
    assert grade(points, stated, contradicted) == expected


def test_stating_more_never_lowers_and_contradicting_more_never_raises():
    points = tuple(RubricPoint(str(i), (str(i),), core=i < 2) for i in range(4))
    subsets = [set(c) for n in range(5) for c in itertools.combinations(range(4), n)]
    for stated, wrong, extra in itertools.product(subsets, subsets, range(4)):
        value = grade(points, stated, wrong)
        assert grade(points, stated | {extra}, wrong) >= value
        assert grade(points, stated, wrong | {extra}) <= value
