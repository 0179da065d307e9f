"""Where texts name values of a question's slots: every wording is found, and right only where it is the script's."""

import dataclasses
import random

import pytest

from evads_jax.data.records import TASKS
from evads_jax.data.render import vocabulary as words
from evads_jax.judge import marks
from evads_jax.judge.candidates import draw_ads, mixed, plans, stating
from evads_jax.judge.marks import named_values

LANGUAGES = ("en", "zh")


@pytest.fixture(scope="module", params=LANGUAGES)
def ads(request):
    return draw_ads("train", 12, 0, request.param)


def found_in(family, name, language):
    """Whether some value of a slot has this wording or evidence."""
    values = words.SLOTS[family]
    names = [n for v in values for n in (*v.wordings[language], v.evidence[language]) if n]
    return name.casefold() in [n.casefold() for n in names]


def test_every_wording_and_evidence_of_every_value_is_marked_by_whether_the_script_has_it(ads):
    for ad in ads:
        language = ad.script.language
        for task in TASKS:
            right: dict[str, set[str]] = {}
            for point in ad.questions[task].rubric:
                right.setdefault(words.family(point.slot), set()).add(ad.script.values[point.slot].key)
            ours = {
                name.casefold()
                for family, keys in right.items()
                for value in words.SLOTS[family]
                if value.key in keys
                for name in (*value.wordings[language], value.evidence[language])
            }
            for family in right:
                for value in words.SLOTS[family]:
                    for name in filter(None, (*value.wordings[language], value.evidence[language])):
                        text = f"- {name.upper()}."
                        (found,) = named_values(ad, task, text)
                        assert (found.end, found.right) == (len(text) - 1, name.casefold() in ours)
                        assert any(
                            found.script == ad.script.values[point.slot].name(language)
                            for point in ad.questions[task].rubric
                            if words.family(point.slot) in [f for f in right if found_in(f, name, language)]
                        )


def test_the_marks_of_a_candidate_follow_its_plan(ads):
    rng, seen = random.Random(0), set()
    for ad in ads:
        for task in TASKS:
            points = ad.questions[task].rubric
            families = [words.family(point.slot) for point in points]
            if len(set(families)) < len(families):
                continue  # either point's value is right then
            for label in (0.0, 0.25, 0.75, 1.0):
                for plan in plans(points, label):
                    told = stating(rng, ad, task, "answer", plan)
                    if told.kind != "list":
                        continue
                    marks = [value.right for value in named_values(ad, task, told.text)]
                    assert sorted(marks) == sorted(said == "right" for said in plan if said != "absent"), told.text
                    seen |= set(marks)
    assert seen == {True, False}


def test_a_mixed_list_names_as_many_values_right_and_wrong_at_even_odds(ads):
    rng, found = random.Random(1), []
    for ad in ads:
        for task in TASKS:
            for aspect in ("answer", "trace"):
                told = mixed(rng, ad, task, aspect, 6)
                assert (told.label, told.kind) == (0.0, "mixed")
                marks = [value.right for value in named_values(ad, task, told.text)]
                assert len(marks) == 6, told.text
                found += marks
    assert abs(sum(found) / len(found) - 0.5) < 0.08


def test_the_longest_of_overlapping_names_is_meant_and_parts_of_words_are_none():
    (ad, *_) = draw_ads("train", 2, 0, "en")
    (task,) = [t for t in TASKS if any(words.family(p.slot) == "product" for p in ad.questions[t].rubric)][:1]
    names = {name for value in words.SLOTS["product"] for name in value.wordings["en"]}
    longer = next(name for name in names if any(other != name and other in name for other in names))
    found = list(named_values(ad, task, f"a {longer}, a fanfare"))
    assert [value.end for value in found] == [2 + len(longer)]


def test_of_names_that_begin_alike_the_longer_is_found(monkeypatch):
    (some, other, *_) = words.SLOTS["colour"]
    values = (
        dataclasses.replace(some, key="a", wordings={"en": ("sea",), "zh": ("海",)}, evidence={"en": "", "zh": ""}),
        dataclasses.replace(
            other, key="b", wordings={"en": ("sea green",), "zh": ("海绿",)}, evidence={"en": "", "zh": ""}
        ),
    )
    monkeypatch.setitem(words.SLOTS, "made up", values)
    for language, text in (("en", "a sea green, or the sea"), ("zh", "海绿，海")):
        pattern, named = marks._names(language, ("made up",))
        assert [next(iter(named[match[0]])) for match in pattern.finditer(text)] == [("made up", "b"), ("made up", "a")]
