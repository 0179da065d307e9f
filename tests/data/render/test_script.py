"""Ad scripts and their questions: what they tell, and what only the pixels tell."""

import re
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict
from scipy.stats import chi2_contingency, contingency

from evads_jax.data import prompts
from evads_jax.data.records import TASKS, VideoRecord
from evads_jax.data.render import ask, draw_script, split_of, vocabulary
from evads_jax.judge.registry import make_judge
from evads_jax.judge.verdict import JudgeRequest, Verdict

LANGUAGES = pytest.mark.parametrize("language", ["en", "zh"])
SEEDS = range(400)


def says(text: str, wording: str) -> bool:
    """Whether a text holds a wording; in English as whole words, also in the plural, as judges read them."""
    if wording.isascii():
        return re.search(rf"\b{re.escape(wording)}s?\b", text, re.IGNORECASE) is not None
    return wording in text


@LANGUAGES
def test_what_bp_and_cm_answers_state_stands_in_no_prompt_and_no_event(language):
    for seed in SEEDS:
        script = draw_script(seed, language)
        questions = ask(script, "ad")
        record = VideoRecord("ad", (), (), 6.0, questions, annotated_duration=6, events=script.events)
        events = " ".join(text for event in script.events for text in (*event.ocr, event.asr))
        for example in record.examples():
            if example.question.task not in ("BP", "CM"):
                continue
            wordings = [w for point in example.question.rubric for w in point.accepted]
            texts = [events] + [prompts.render(example, f, language).text for f in prompts.FORMATS]
            found = [(w, text) for w in wordings for text in texts if says(text, w)]
            assert not found


@LANGUAGES
def test_no_sentence_or_question_can_hold_a_word_of_what_is_shown(language):
    told = [s for values in vocabulary.SLOTS.values() for v in values for s in v.spoken.get(language, ())]
    for slot in vocabulary.VISUAL:
        for value in vocabulary.SLOTS[slot]:
            assert not [(w, s) for w in value.wordings[language] for s in told if says(s, w)]


@LANGUAGES
def test_no_wording_of_a_value_holds_a_wording_of_another(language):
    values = [value for values in vocabulary.SLOTS.values() for value in values]
    for one, other in combinations(values, 2):
        for a in one.wordings[language]:
            assert not [(a, b) for b in other.wordings[language] if says(a, b) or says(b, a)]


@LANGUAGES
def test_every_value_has_all_its_texts_in_both_languages(language):
    for slot, values in vocabulary.SLOTS.items():
        assert len({value.key for value in values}) == len(values) > 1
        for value in values:
            assert all(value.wordings[language])
            shown = slot in vocabulary.VISUAL or slot == "risk_time"
            assert shown != bool(value.spoken)
            assert shown or (len(value.spoken[language]) == 2 and value.evidence[language])
    assert {product.category for product in vocabulary.PRODUCTS} == set(vocabulary.CATEGORIES)


def test_what_the_prompt_tells_says_nothing_of_what_is_only_shown():
    scripts = [draw_script(seed, "en", split) for seed in range(4000) for split in ("train", "test")]
    told = {"category": [script.category for script in scripts], "brand": [script.brand for script in scripts]}
    told["price"] = [script.price for script in scripts]
    for slot in ("hook", "proof", "close", "audience", "need", "risk"):
        told[slot] = [script.values[slot].key for script in scripts]
        told[f"scene of {slot}"] = [script.told_in[slot] for script in scripts]
    shown = {
        slot: [script.values[slot].key for script in scripts]
        for slot in ("product", "colour", "material", "setting_1", "prop_2", "setting_3")
    }
    for (cue, cues), (slot, values) in product(told.items(), shown.items()):
        counts = contingency.crosstab(cues, values).count
        assert chi2_contingency(counts).pvalue > 1e-5, (cue, slot)


@given(seed=st.integers(0, 2**56), language=st.sampled_from(["en", "zh"]))
def test_an_ad_has_five_short_questions_one_per_task_whose_references_state_all_their_points(seed, language):
    script = draw_script(seed, language)
    questions = ask(script, "ad")
    assert sorted(q.task for q in questions) == sorted(TASKS)
    assert len({q.id for q in questions}) == 5
    for question in questions:
        length = len(question.answer.split()) if language == "en" else len(question.answer)
        assert length <= (15 if language == "en" else 24)
        assert 2 <= len(question.rubric) <= 4
        assert any(point.core for point in question.rubric)
        for point in question.rubric:
            assert point.accepted[0] == script.facts[point.slot]
            assert says(question.answer, point.accepted[0])
            assert not [rival for rival in point.rivals if says(question.answer, rival)]


@LANGUAGES
def test_the_judge_gives_every_reference_a_full_score(language):
    judge = make_judge(ConfigDict({"kind": "lexical"}), language)
    requests = [
        JudgeRequest(q.question, s.events, q.clues, q.answer, q.answer, "answer", q.rubric, q.task, "ad", language)
        for s in (draw_script(seed, language) for seed in range(60))
        for q in ask(s, "ad")
    ]
    verdicts = judge.judge(requests)
    assert [
        r.reference for r, v in zip(requests, verdicts, strict=True) if not isinstance(v, Verdict) or v.score < 1
    ] == []


@given(seed=st.integers(0, 2**56))
def test_a_script_is_the_same_for_the_same_seed_and_language_changes_words_only(seed):
    script, again, chinese = draw_script(seed, "en"), draw_script(seed, "en"), draw_script(seed, "zh")
    assert script == again
    assert ask(script, "ad") == ask(again, "ad")
    assert script.values == chinese.values
    assert [q.id for q in ask(script, "ad")] == [q.id for q in ask(chinese, "ad")]


def test_no_combination_of_product_colour_brand_and_claim_is_in_two_splits():
    drawn = {
        split: {
            (s.product.key, s.colour.key, s.brand, s.claim.key)
            for s in (draw_script(seed, "en", split) for seed in SEEDS)
        }
        for split in ("train", "validation", "test")
    }
    assert all(len(combos) > 300 for combos in drawn.values())
    for one, other in combinations(drawn, 2):
        assert not drawn[one] & drawn[other]


def test_the_splits_cover_every_product_and_colour():
    for split in ("train", "validation", "test"):
        scripts = [draw_script(seed, "en", split) for seed in SEEDS]
        assert len({s.product.key for s in scripts}) == len(vocabulary.PRODUCTS)
        assert len({s.colour.key for s in scripts}) == len(vocabulary.COLOURS)
        assert all(split_of(s.product, s.colour, s.brand, s.claim) == split for s in scripts)


def test_neither_a_phrase_nor_a_place_in_time_tells_the_scene():
    """Each persuasion step is spoken in each scene, and each setting is seen in each, about equally often."""
    scripts = [draw_script(seed, "en") for seed in range(1500)]
    for scene in range(3):
        hooks = sum(any(t in s.hook.spoken["en"] for t in s.scenes[scene].sentences) for s in scripts)
        assert 420 < hooks < 580
        kitchens = sum(s.scenes[scene].setting.key == "kitchen" for s in scripts)
        assert 130 < kitchens < 250


@LANGUAGES
def test_cm_asks_about_the_scene_in_which_the_proof_is_heard(language):
    seen = set()
    for seed in range(100):
        script = draw_script(seed, language)
        (question,) = [q for q in ask(script, "ad") if q.task == "CM"]
        wordings = script.proof.spoken[language]
        told = [i for i, event in enumerate(script.events, 1) if any(w in event.asr for w in wordings)]
        assert [p.slot for p in question.rubric] == [f"setting_{n}" for n in told] + [f"prop_{n}" for n in told]
        seen.update(told)
    assert seen == {1, 2, 3}
