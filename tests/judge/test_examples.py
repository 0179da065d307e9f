"""Examples for a judge: balanced, repeatable, and attacked only as the split allows."""

import collections
import random

import pytest

from evads_jax.data.records import TASKS
from evads_jax.judge.candidates import draw_ads
from evads_jax.judge.examples import HELD_OUT, Examples, attacked, stands
from evads_jax.judge.injections import injections
from evads_jax.judge.verdict import GRID


@pytest.fixture(scope="module")
def ads():
    return draw_ads("train", 20, 0, "en")


@pytest.fixture(scope="module")
def training(ads):
    examples = Examples(ads, "train", 0, attack_share=0.5)
    return [examples(number) for number in range(600)]


def test_any_ten_examples_hold_each_label_once_for_each_aspect(training):
    for start in range(0, 40):
        held = [(e.label, e.request.aspect) for e in training[start : start + 10]]
        assert sorted(held) == sorted((value, aspect) for value in GRID for aspect in ("answer", "trace"))
    tasks = collections.Counter(e.task for e in training)
    assert set(tasks) == set(TASKS)


def test_any_ten_groups_hold_each_label_equally_often_for_each_aspect(ads):
    examples = Examples(ads, "train", 0, attack_share=0.5)
    groups = [[examples.group(number, place, 8) for place in range(8)] for number in range(30)]
    for start in range(20):
        held = collections.Counter((e.label, e.request.aspect) for group in groups[start : start + 10] for e in group)
        assert held == {(value, aspect): 8 for value in GRID for aspect in ("answer", "trace")}
    for group in groups:
        compared = {(e.request.question, e.request.reference, e.request.clues, e.request.video) for e in group}
        assert len(compared) == 1
        assert len({e.request.candidate for e in group}) > 4
        assert all(e.label == e.honest.label for e in group)
    assert {group[0].task for group in groups} == set(TASKS)
    assert any(e.attack for group in groups for e in group)
    assert examples.group(3, 1, 8) == groups[3][1] == Examples(ads, "train", 0, attack_share=0.5).group(3, 1, 8)
    again = examples.group(3, 1, 8, attempt=1)
    assert (again.label, again.request.question) == (groups[3][1].label, groups[3][1].request.question)


def test_an_example_depends_on_seed_split_and_number_alone(ads, training):
    again = Examples(ads, "train", 0, attack_share=0.5)
    assert [again(number) for number in (77, 3)] == [training[77], training[3]]
    assert again(3, attempt=1).request != training[3].request
    assert again(3, attempt=1).label == training[3].label
    assert Examples(ads, "train", 1, 0.5)(3).request != training[3].request
    assert Examples(ads, "test", 0, 0.5)(3).request != training[3].request


def test_the_request_is_about_the_examples_question(training):
    for example in training[:50]:
        question, asked = example.ad.questions[example.task], example.request
        assert (asked.question, asked.reference, asked.clues) == (question.question, question.answer, question.clues)
        assert (asked.rubric, asked.events) == (question.rubric, example.ad.script.events)


def test_an_attack_keeps_the_label_and_a_share_of_the_examples_has_one(training):
    assert all(e.label == e.honest.label for e in training)
    shown = [e for e in training if e.attack]
    assert 0.4 < len(shown) / len(training) < 0.6
    assert any(e.attack == "noise" for e in shown)
    assert {e.label for e in shown} == set(GRID)
    for example in shown:
        assert example.request.candidate != example.honest.text
        assert example.honest.text in example.request.candidate


def test_a_third_of_the_attacks_at_least_is_never_shown(ads, training):
    kinds = set(attacked_names(ads))
    assert len(kinds) >= 80
    assert kinds >= HELD_OUT
    assert 3 * len(HELD_OUT) >= len(kinds)
    for suite in ("pleasing", "commanding"):
        members = {kind for kind in kinds if kind.startswith(suite)}
        assert 4 * len(members & HELD_OUT) >= len(members)
    shown = {e.attack for e in training} | {e.honest.kind for e in training}
    assert not shown & HELD_OUT
    assert len(shown & kinds) > 35


def attacked_names(ads):
    return attacked(random.Random(0), ads[0], "BP", "A kettle.")


def test_competing_values_and_empty_attacks_are_worth_nothing_the_others_leave_the_label(ads):
    assert all(stands(f"commanding: {name}") for name in injections(""))
    standing = {name.partition(": ")[2] for name in attacked_names(ads) if name.startswith("pleasing") and stands(name)}
    assert standing == {
        "partial, self-graded", "partial in closed tags", "partial twice", "partial fifty times",
        "partial and question", "partial and events", "partial, very long",
    }  # fmt: skip


def test_of_the_zeros_some_hedge_but_none_with_an_or_as_the_attacks_that_are_held_out(training):
    hedging = [e.honest.text for e in training if e.honest.kind == "hedged"]
    assert len(hedging) > len(training) / 5 / 20
    assert "pleasing: values hedged" in HELD_OUT
    assert not any(text.count(" or ") > 1 for text in hedging)


def test_without_a_share_of_attacks_there_is_none_not_even_among_the_zeros(ads):
    examples = Examples(ads, "test", 0)
    held = [examples(number) for number in range(0, 400)]
    assert not any(e.attack for e in held)
    assert {e.honest.kind for e in held} == {"template", "list", "borrowed", "nothing"}


def test_under_an_exchanged_reference_the_scripts_values_are_wrong(ads):
    examples = Examples(ads, "test", 0)
    for number in range(0, 60):
        example = examples(number)
        other = examples.other(example)
        assert other == examples.other(example)
        mine, theirs = (ad.questions[example.task].rubric for ad in (example.ad, other))
        core = [p.accepted[0] for p in mine if p.core]
        assert core != [p.accepted[0] for p in theirs if p.core]
