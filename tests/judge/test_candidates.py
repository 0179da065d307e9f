"""Candidates made to order: the label is the rule's, and the text says what its plan says."""

import random
import re

import pytest

from evads_jax.data.records import TASKS
from evads_jax.data.render import vocabulary as words
from evads_jax.errors import UserError
from evads_jax.judge.candidates import borrowed, competing, draw_ads, hedged, label_of, nothing, plans, retell, stating
from evads_jax.judge.lexical import LexicalJudge
from evads_jax.judge.measure import request
from evads_jax.judge.verdict import GRID

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module", params=["en", "zh"])
def ads(request):
    return draw_ads("train", 12, 0, request.param)


def breach(ads, yes=True):
    return next(ad for ad in ads if (ad.script.risk is not words.COMPLIANT) == yes)


def test_ads_are_drawn_alike_each_time_and_need_company():
    assert draw_ads("test", 3, 1, "en") == draw_ads("test", 3, 1, "en")
    assert draw_ads("test", 3, 1, "en") == draw_ads("test", 5, 1, "en")[:3]
    assert draw_ads("test", 3, 2, "en") != draw_ads("test", 3, 1, "en")
    with pytest.raises(UserError, match=r"1 ads to judge.*config\.data\.ads_test"):
        draw_ads("test", 1, 0, "en")


def test_no_combination_is_in_two_splits():
    seen = {}
    for split in SPLITS:
        for ad in draw_ads(split, 60, 0, "en"):
            script = ad.script
            combination = (script.product.key, script.colour.key, script.brand, script.claim.key)
            assert seen.setdefault(combination, split) == split


RIGHT, WRONG, ABSENT = "right", "wrong", "absent"


@pytest.mark.parametrize(
    ("task", "plan", "label"),
    [  # the rule, written out by hand: BP has two core points and a detail, ML one and two, CM one and one
        ("BP", (RIGHT, RIGHT, RIGHT), 1.0),
        ("BP", (RIGHT, RIGHT, ABSENT), 0.75),
        ("BP", (RIGHT, ABSENT, RIGHT), 0.5),
        ("BP", (ABSENT, RIGHT, RIGHT), 0.5),
        ("BP", (RIGHT, ABSENT, ABSENT), 0.25),
        ("BP", (RIGHT, RIGHT, WRONG), 0.25),
        ("BP", (ABSENT, ABSENT, RIGHT), 0.25),
        ("BP", (RIGHT, WRONG, RIGHT), 0.0),
        ("BP", (ABSENT, ABSENT, WRONG), 0.0),
        ("ML", (RIGHT, RIGHT, RIGHT), 1.0),
        ("ML", (RIGHT, ABSENT, RIGHT), 0.75),
        ("ML", (RIGHT, ABSENT, ABSENT), 0.75),
        ("ML", (RIGHT, WRONG, RIGHT), 0.25),
        ("ML", (ABSENT, RIGHT, ABSENT), 0.25),
        ("ML", (WRONG, RIGHT, RIGHT), 0.0),
        ("CM", (RIGHT, ABSENT), 0.75),
        ("CM", (RIGHT, WRONG), 0.25),
        ("CM", (ABSENT, RIGHT), 0.25),
        ("CM", (WRONG, RIGHT), 0.0),
    ],
)
def test_the_label_is_what_the_rule_makes_of_the_plan(ads, task, plan, label):
    points = ads[0].questions[task].rubric
    assert label_of(points, plan) == label
    assert plan in plans(points, label)
    assert not any(plan in plans(points, other) for other in GRID if other != label)


def test_only_two_core_points_can_be_half_right(ads):
    for task in TASKS:
        assert bool(plans(ads[0].questions[task].rubric, 0.5)) == (task == "BP")
        assert all(plans(ads[0].questions[task].rubric, value) for value in (0, 0.25, 0.75, 1))


def says(text, wordings):
    return any(re.search(rf"(?<![a-z]){re.escape(w)}(?![a-z])", text, re.IGNORECASE) for w in wordings)


@pytest.mark.parametrize("task", TASKS)
def test_an_answer_names_what_is_right_something_else_for_what_is_wrong_and_no_more(task):
    rng = random.Random(task)
    for ad in draw_ads("train", 25, 3, "en"):
        points = ad.questions[task].rubric
        for label in GRID:
            for plan in plans(points, label)[:4]:
                made = stating(rng, ad, task, "answer", plan)
                assert made.label == label
                # What calls a breach, or none, what it is not takes another template, and with it other points.
                for point, said in zip(points, plan, strict=True):
                    if said == WRONG or (task == "RC" and WRONG in plan):
                        assert said != WRONG or not says(made.text, point.accepted), made.text
                    else:
                        assert says(made.text, point.accepted) == (said == RIGHT), made.text
                        assert not says(made.text, point.rivals), made.text


def test_a_trace_gives_the_evidence_of_the_plan():
    ad = breach(draw_ads("train", 12, 0, "en"))
    rng, script = random.Random(0), ad.script
    for plan, kind, time in (
        ((RIGHT, RIGHT), True, True),
        ((RIGHT, WRONG), True, False),
        ((RIGHT, ABSENT), True, False),
    ):
        made = stating(rng, ad, "RC", "trace", plan)
        assert (script.risk.evidence["en"] in made.text) == kind
        assert (words.TIMES[script.told_in["risk"]].evidence["en"] in made.text) == time
    cm = stating(rng, ad, "CM", "trace", (RIGHT, WRONG)).text
    scene = script.scenes[script.told_in["proof"]]
    assert scene.setting.evidence["en"] in cm
    assert scene.prop.evidence["en"] not in cm


def test_the_lexical_judge_which_only_reads_gives_every_answer_its_label(ads):
    judge, rng = LexicalJudge(ads[0].script.language), random.Random(1)
    for ad in ads:
        for task in TASKS:
            for label in GRID:
                for plan in plans(ad.questions[task].rubric, label):
                    made = stating(rng, ad, task, "answer", plan)
                    asked = request(ad.example(task), made.text, language=ad.script.language)
                    (verdict,) = judge.judge([asked])
                    assert verdict.score == label, (made, verdict.reason)


def test_a_borrowed_answer_is_worth_what_the_two_ads_share(ads):
    ad, other = ads[0], ads[1]
    script = ad.script

    def lent(**values):
        values = {"product": script.product, "colour": script.colour, "material": script.material} | values
        told = retell(other.script, values, 0)
        return borrowed(ad, "BP", "answer", type(other)(told, "other", other.questions), "BP").label

    def another(slot, value):
        return next(v for v in words.SLOTS[slot] if v.key != value.key)

    assert lent() == 1.0
    assert lent(material=another("material", script.material)) == 0.25
    assert lent(colour=another("colour", script.colour)) == 0.0
    assert borrowed(ad, "ML", "answer", ad, "BP").label == 0.0  # other slots: nothing is said
    assert borrowed(ad, "ML", "answer", ad, "ML").label == 1.0
    assert borrowed(breach(ads), "RC", "answer", breach(ads, yes=False), "RC").label == 0.0


def test_what_says_nothing_scores_nothing_and_hedging_lists_rivals(ads):
    rng = random.Random(0)
    made = {nothing(rng, ads[0].script.language).text for _ in range(200)}
    assert len(made) > 8
    for task in TASKS:
        listed = competing(rng, ads[0], task)
        for point in ads[0].questions[task].rubric:
            assert point.accepted[0] in listed
            assert any(rival in listed for rival in point.rivals)


def test_by_the_rules_a_hedging_candidate_scores_nothing_whatever_stands_before(ads):
    rng, judge = random.Random(0), LexicalJudge(ads[0].script.language)
    for ad in ads[:10]:
        for task in TASKS:
            right = stating(rng, ad, task, "answer", ("right",) * len(ad.questions[task].rubric))
            for front in ("", right.text):
                text = hedged(rng, ad, task, front)
                assert text.startswith(front)
                assert all(name in text for point in ad.questions[task].rubric for name in point.accepted[:1])
                asked = request(ad.example(task), text, "answer", ad.script.language)
                (verdict,) = judge.judge([asked])
                assert verdict.score == 0.0, text


def test_a_retold_ad_changes_only_what_it_is_told_to(ads):
    script = breach(ads).script
    for slot in script.values:
        value = next(v for v in words.SLOTS[words.family(slot)] if v.key != script.values[slot].key)
        if slot == "risk" and value is words.COMPLIANT:
            continue
        told = retell(script, {slot: value}, 5)
        assert told.seed == 5
        assert {s: v.key for s, v in told.values.items()} == {s: v.key for s, v in script.values.items()} | {
            slot: value.key
        }
