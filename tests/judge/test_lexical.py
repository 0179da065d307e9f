import dataclasses
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evads_jax.data.records import Event, RubricPoint
from evads_jax.data.render.questions import ask
from evads_jax.data.render.script import draw_script
from evads_jax.judge.attacks import Material, attacks
from evads_jax.judge.lexical import LexicalJudge, limit, shorten
from evads_jax.judge.text import read
from evads_jax.judge.verdict import GRID, JudgeRequest, Missing, Verdict

EN = JudgeRequest(
    question="What is shown at the end, and where?",
    events=(Event(0, 1, ("Summer sale",), "soft touch every day"),),
    clues="At 4 seconds a red mug stands on a kitchen table.",
    reference="A red ceramic mug in the kitchen.",
    candidate="",
    aspect="answer",
    rubric=(
        RubricPoint("product", ("mug", "cup"), ("vase", "shoe", "lamp")),
        RubricPoint("colour", ("red",), ("blue", "green", "dark red")),
        RubricPoint("material", ("ceramic",), ("glass", "metal"), core=False),
        RubricPoint("place", ("kitchen",), ("garden", "street"), core=False),
    ),
)
ZH = JudgeRequest(
    question="结尾展示了什么，在哪里？",
    events=(Event(0, 1, ("夏季特卖",), "每天温柔触感"),),
    clues="第4秒，红色的杯子放在厨房桌上。",
    reference="厨房里的红色陶瓷杯子。",
    candidate="",
    aspect="answer",
    rubric=(
        RubricPoint("product", ("杯子", "马克杯"), ("花瓶", "鞋子", "台灯")),
        RubricPoint("colour", ("红色",), ("蓝色", "绿色", "粉红色")),
        RubricPoint("material", ("陶瓷",), ("玻璃", "金属"), core=False),
        RubricPoint("place", ("厨房",), ("花园", "街道"), core=False),
    ),
    language="zh",
)
# perfect, generic, half, mismatched, wrong
WRITTEN = {
    "en": (
        "It is a red ceramic cup that stands in a kitchen.",
        "A red mug.",
        "A ceramic mug.",
        "A red glass mug in the garden.",
        "A blue vase in the kitchen.",
    ),
    "zh": ("厨房里放着红色的陶瓷马克杯", "红色的杯子", "陶瓷杯子", "花园里的红色玻璃杯子", "厨房里的蓝色花瓶"),
}
REQUESTS = {"en": EN, "zh": ZH}


def verdict(request, candidate, **changes):
    judge = LexicalJudge(request.language)
    return judge.judge([dataclasses.replace(request, candidate=candidate, **changes)])[0]


def score(request, candidate, **changes):
    return verdict(request, candidate, **changes).score


@pytest.mark.parametrize("language", REQUESTS)
def test_written_answers_are_ordered_as_the_rubric_does(language):
    assert [score(REQUESTS[language], text) for text in WRITTEN[language]] == [1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize("language", REQUESTS)
def test_the_reference_is_perfect_with_and_without_a_rubric(language):
    request = REQUESTS[language]
    assert score(request, request.reference) == 1.0
    assert score(request, request.reference, rubric=()) == 1.0
    assert score(request, request.clues, aspect="trace") == 1.0


@pytest.mark.parametrize("language", REQUESTS)
@pytest.mark.parametrize("rubric", [True, False])
def test_no_attack_beats_the_honest_partial_answer(language, rubric):
    request = REQUESTS[language] if rubric else dataclasses.replace(REQUESTS[language], rubric=())
    values = [w for p in REQUESTS[language].rubric for w in (*p.accepted[:1], *p.rivals)]
    given_ = Material(request.question, request.events, WRITTEN[language][2], values, values)
    strings = attacks(given_)
    assert len(strings) >= 20
    honest = score(request, given_.partial)
    assert honest >= 0.5
    assert {name: s for name, text in strings.items() if (s := score(request, text)) > honest} == {}


def test_every_attack_without_content_scores_nothing():
    given_ = Material(EN.question, EN.events, "", ["red", "blue"], ["mug", "vase"])
    for name, text in attacks(given_).items():
        assert score(EN, text) == 0.0, name


@pytest.mark.parametrize("language", REQUESTS)
def test_repetition_earns_nothing_and_excess_costs(language):
    request, half = REQUESTS[language], WRITTEN[language][2]
    once = score(request, half)
    assert score(request, f"{half} {half}") == once
    scores = [score(request, f"{half}, " * n) for n in (1, 10, 20, 40, 80)]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] == 0.0


@given(st.sampled_from(["en", "zh"]), st.text(max_size=80), st.booleans())
@settings(deadline=None, max_examples=150)
def test_text_without_the_missing_points_never_raises_a_score(language, text, rubric):
    changes = {} if rubric else {"rubric": ()}
    request, half = REQUESTS[language], WRITTEN[language][2]
    right = read(" ".join((request.reference, *(w for p in request.rubric for w in p.accepted))))
    assume(not {t for t in right.tokens if t.isalnum()} & set(read(text).tokens))
    assert score(request, f"{half}. {text}", **changes) <= score(request, half, **changes)


def test_a_perfect_answer_in_too_many_words_is_not_perfect():
    assert score(EN, EN.reference + " So they say" * 5) == 1.0
    assert score(EN, EN.reference + " So they say" * 7) == 0.75


def test_a_trace_is_compared_with_the_clues():
    assert score(EN, "a red mug on a table", aspect="trace") > 0
    assert score(EN, "a blue mug at 4 seconds on a kitchen table", aspect="trace") == 0.0
    described = dataclasses.replace(EN, clues="Two handles are seen, then a red glow and steam over it.")
    assert score(described, "two handles, a red glow, steam", aspect="trace") == 1.0
    assert score(described, "red", aspect="trace") <= 0.25
    assert score(described, "two handles, a blue glow, steam", aspect="trace") == 0.0


def test_without_clues_a_trace_has_no_verdict():
    got = verdict(EN, "anything", aspect="trace", clues=" ")
    assert isinstance(got, Missing)
    assert "clues" in got.reason
    assert isinstance(verdict(EN, "", aspect="trace"), Verdict)


@given(st.text(max_size=200), st.sampled_from(["answer", "trace"]), st.booleans())
@settings(deadline=None, max_examples=150)
def test_any_text_gets_a_verdict_and_always_the_same(text, aspect, rubric):
    changes = {"aspect": aspect} | ({} if rubric else {"rubric": ()})
    first = verdict(ZH, text, **changes)
    assert first == verdict(ZH, text, **changes)
    assert first.score in GRID


def test_the_length_limit_is_twice_the_reference_with_a_floor():
    assert (limit(5, "en"), limit(5, "zh"), limit(50, "en")) == (24, 40, 100)
    assert [shorten(1.0, n, 24) for n in (0, 24, 25, 48, 49, 97, 10**6)] == [1.0, 1.0, 0.75, 0.75, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_rendered_ads_references_are_perfect_and_pasting_is_not(language):
    judge, pasted, shuffled = LexicalJudge(language), [], []
    scripts = [draw_script(seed, language) for seed in range(30)]
    asked = [ask(script, f"v{seed}") for seed, script in enumerate(scripts)]
    other = {q.task: q.answer for q in ask(draw_script(999, language), "other")}
    for script, questions in zip(scripts, asked, strict=True):
        events = " ".join(" ".join((*event.ocr, event.asr or "")) for event in script.events)
        for q in questions:
            request = JudgeRequest(q.question, (), q.clues, q.answer, "", "answer", q.rubric, q.task, language=language)
            texts = {"answer": q.answer, "trace": q.clues, "events": events, "other": other[q.task]}
            requests = {
                name: dataclasses.replace(request, candidate=text, aspect="trace" if name == "trace" else "answer")
                for name, text in texts.items()
            }
            got = dict(zip(requests, judge.judge(list(requests.values())), strict=True))
            assert (got["answer"].score, got["trace"].score) == (1.0, 1.0), q
            pasted.append(got["events"].score)
            shuffled.append(got["other"].score)
    assert sum(pasted) / len(pasted) <= 0.05
    assert sum(shuffled) / len(shuffled) <= 0.25


def test_two_thousand_verdicts_a_second():
    requests = [dataclasses.replace(r, candidate=t) for r in REQUESTS.values() for t in WRITTEN["en"] + WRITTEN["zh"]]
    judge = LexicalJudge("en")
    judge.judge(requests)
    start = time.process_time()
    judge.judge(requests * 50)
    assert time.process_time() - start < len(requests) * 50 / 2000
