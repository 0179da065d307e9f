import dataclasses

import numpy as np
import pytest

from evads_jax.benchmark.chance import best_constants, shuffled_scores, template
from evads_jax.benchmark.evaluate import evaluate, evaluate_chance
from evads_jax.benchmark.files import Split, read_lines
from evads_jax.benchmark.score import request

from .small_world import Knowing, WordJudge, make_config, make_record


def ask(split, judge):
    return lambda pairs: judge.judge([request(split.examples[n], answer, "en") for n, answer in pairs])


def test_no_constant_answer_beats_the_chosen_one_where_it_was_chosen():
    split, judge = Split.of([make_record(n) for n in (0, 0 + 9, 1, 4, 2)]), WordJudge()
    constants = best_constants(split, judge, lambda e, a: request(e, a, "en"))
    for task, chosen in constants.items():
        examples = [e for e in split.examples if e.question.task == task]
        means = [
            np.mean([v.score for v in judge.judge([request(e, c.question.answer, "en") for e in examples])])
            for c in examples
        ]
        assert chosen.chosen_at >= max(means) - 1e-9
        assert chosen.candidates >= len({e.question.answer for e in examples})


def test_a_constant_that_says_less_is_tried_too():
    # One product in all colours: naming a colour costs, naming the product alone earns .75 each time.
    split, judge = Split.of([make_record(n) for n in (0, 1, 2)]), WordJudge()
    chosen = best_constants(split, judge, lambda e, a: request(e, a, "en"))["BP"]
    assert chosen.chosen_at == pytest.approx((1 + 0.75 + 0.75) / 3)

    class Strict(WordJudge):
        """Scores a wrong colour 0, beside a right product too."""

        def _verdict(self, r):
            wrong = any(c in r.candidate for c in r.rubric[1].rivals)
            return dataclasses.replace(super()._verdict(r), score=0.0) if wrong else super()._verdict(r)

    chosen = best_constants(split, Strict(), lambda e, a: request(e, a, "en"))["BP"]
    assert (chosen.answer, chosen.chosen_at) == ("kettle", 0.75)


def test_chance_is_evaluated_like_a_stage_and_never_chosen_on_the_test_split(split, tmp_path):
    choosing = Split.of([make_record(100)])  # a blue kettle only
    summary = evaluate_chance(choosing, split, tmp_path, WordJudge(), make_config())
    rows = read_lines(tmp_path / "evaluation" / "chance" / "verdicts.jsonl")
    assert {row["answer"] for row in rows} <= {choosing.examples[0].question.answer, "kettle, blue"}
    assert summary["answers"]["all"]["distinct"] == 1
    assert 0.2 < summary["tasks"]["all"]["R5"]["mean_valid"] < 0.6


def test_a_template_forgets_quotations_numbers_and_the_scripts_values(records):
    cm = [template(r.example(1)) for r in records]
    assert len(set(cm)) == 1
    for left, right in ("“”", '""', "«»", "「」", "''"):
        said = dataclasses.replace(records[0].questions[1], question=f"What is shown with {left}soft and warm{right}?")
        assert "soft" not in template(dataclasses.replace(records[0], questions=(said,)).example(0))
    assert template(records[0].example(0)) != template(records[0].example(2))
    q = dataclasses.replace(records[0].questions[0], question="Is the red thing at 3.5 s red?")
    r = dataclasses.replace(records[0], questions=(q,))
    assert template(r.example(0), r.facts) == "BP: is the «» thing at # s «»?"


def test_shuffling_takes_a_knowing_policy_down_to_the_mean_over_pairs(split):
    answers = [e.question.answer for e in split.examples]
    judge = WordJudge()
    scores = shuffled_scores(split, answers, ask(split, judge), permutations=200)
    bp = [n for n, e in enumerate(split.examples) if e.question.task == "BP"]
    pairs = [(n, answers[m]) for n in bp for m in bp if n != m]
    exact = np.mean([v.score for v in ask(split, judge)(pairs)])
    assert scores[bp].mean() == pytest.approx(exact, abs=0.02)
    assert exact < 0.5


def test_shuffling_changes_nothing_for_a_constant_answer(split):
    answers = ["A red kettle."] * len(split.examples)
    judge = WordJudge()
    own = [v.score for v in ask(split, judge)(list(enumerate(answers)))]
    np.testing.assert_allclose(shuffled_scores(split, answers, ask(split, judge)), own)


def test_what_was_not_answered_is_dealt_to_nobody(split):
    judge, half = WordJudge(), len(split.examples) // 2 // 5 * 5
    answers = ["A red kettle." if n < half else None for n in range(len(split.examples))]
    scores = shuffled_scores(split, answers, ask(split, judge))
    own = [v.score for v in ask(split, judge)([(n, "A red kettle.") for n in range(half)])]
    np.testing.assert_allclose(scores[:half], own)
    assert np.isnan(scores[half:]).all()


def test_an_answer_is_never_dealt_to_its_own_video_and_a_lone_template_has_no_partner(records):
    q = records[0].questions[0]
    lone = dataclasses.replace(records[0], questions=(q, dataclasses.replace(q, id="again")))
    split = Split.of([lone])
    assert np.isnan(shuffled_scores(split, ["a", "b"], ask(split, WordJudge()))).all()


def test_blanked_answers_that_ignore_the_video_meet_the_shuffled_score(split, tmp_path):
    blind = evaluate(Knowing(0.0, blank_frames=True), split, tmp_path, "sft", WordJudge(), make_config())
    assert blind["stage"] == "sft_blanked"
    for task, shuffled in blind["shuffled"].items():
        assert shuffled["mean"] == pytest.approx(blind["tasks"][task]["R5"]["mean_valid"])
