import dataclasses
import threading

import jax
import numpy as np
import pytest
from tiny_experiment import config, context, record

from evads_jax.data.chat import encode_completion
from evads_jax.judge.verdict import Missing, Verdict
from evads_jax.sampling.rollout import Rollout
from evads_jax.train import completions, judging

TEXTS = (
    "<think>it is red</think>\n<answer>red</answer>",
    "<think>no idea</think>\n<answer>blue</answer>",
    "red",
    "<think>unheard</think>\n<answer>red</answer>",
)


class ByText:
    """Right answers and right traces are perfect; one trace is not heard."""

    name = "by text"

    def __init__(self):
        self.requests = []

    def judge(self, requests):
        self.requests = list(requests)
        right = {"answer": "red", "trace": "it is red"}
        return [
            Missing("busy") if r.candidate == "unheard" else Verdict(float(r.candidate == right[r.aspect]))
            for r in requests
        ]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return context(tmp_path_factory.mktemp("judging")).tokenizer


def judge_texts(tokenizer, example):
    ids = [encode_completion(tokenizer, text) for text in TEXTS]
    lengths = np.array([[len(i) for i in ids]], np.int32)
    tokens = np.array([[i + [tokenizer.ids.pad] * (lengths.max() - len(i)) for i in ids]], np.int32)
    rollout = Rollout(tokens, lengths, np.zeros(tokens.shape, np.float32), np.array([[True, True, True, False]]))
    judge = ByText()
    made = judging.RewardFunction(judge, tokenizer, config().rl, "en")(rollout, [example])
    return made, rollout, judge, example


@pytest.fixture
def judged(tokenizer):
    return judge_texts(tokenizer, record(0).example(0))


def test_answer_and_trace_are_judged_apart_against_the_example(judged):
    made, _, judge, example = judged
    asked = [(r.aspect, r.candidate) for r in judge.requests]
    assert asked[:4] == [("answer", a) for a in ("red", "blue", "red", "red")]
    assert asked[4:] == [("trace", t) for t in ("it is red", "no idea", "", "unheard")]
    first, question = judge.requests[0], example.question
    assert (first.question, first.reference, first.clues) == (question.question, question.answer, question.clues)
    assert (first.rubric, first.events, first.task) == (question.rubric, example.evidence, question.task)
    assert made.texts == list(TEXTS)


def test_a_rollout_is_judged_while_other_work_goes_on_and_rewards_stay_in_order(tokenizer):
    example, working, asked = record(0).example(0), threading.Event(), []

    class Waits(ByText):
        def judge(self, requests):
            asked.append(threading.current_thread())
            assert working.wait(30)
            return super().judge(requests)

    made, rollout, _, _ = judge_texts(tokenizer, example)
    finish = judging.RewardFunction(Waits(), tokenizer, config().rl, "en").begin(rollout, [example])
    working.set()  # what the device would do in the meantime
    judged = finish()
    assert asked != [threading.current_thread()]
    assert judged.answers == made.answers
    np.testing.assert_array_equal(judged.reward.total, made.reward.total)


def test_what_stops_the_judge_stops_the_step(tokenizer):
    class Stops(ByText):
        def judge(self, requests):
            raise SystemExit(0)  # as after a dry run

    example = record(0).example(0)
    _, rollout, _, _ = judge_texts(tokenizer, example)
    finish = judging.RewardFunction(Stops(), tokenizer, config().rl, "en").begin(rollout, [example])
    with pytest.raises(SystemExit):
        finish()


def test_of_an_absent_prompt_nothing_is_asked(tokenizer):
    example = record(0).example(0)
    _, rollout, judge, _ = judge_texts(tokenizer, example)
    both = jax.tree.map(lambda x: np.concatenate([x, x]), rollout)
    judged = judging.RewardFunction(judge, tokenizer, config().rl, "en")(both, [None, example])
    assert len(judge.requests) == 8
    assert judged.reward.valid.tolist() == [[False] * 4, [True, True, True, False]]


def test_a_reward_is_the_weighted_sum_of_its_parts(judged):
    reward = judged[0].reward
    np.testing.assert_allclose(reward.total[0, :3], [0.8 + 0.2 + 1.0, 0.0 + 0.0 + 1.0, 0.8], rtol=1e-6)
    assert reward.valid.tolist() == [[True, True, True, False]]
    assert np.isnan(reward.total[0, 3])


def test_without_clues_the_answer_takes_the_share_of_the_trace(tokenizer):
    example = record(0).example(0)
    clueless = dataclasses.replace(example, question=dataclasses.replace(example.question, clues=""))
    made, _, judge, _ = judge_texts(tokenizer, clueless)
    assert {r.aspect for r in judge.requests} == {"answer"}
    assert made.reward.valid.all()
    np.testing.assert_allclose(made.reward.total[0], [2.0, 1.0, 1.0, 2.0], rtol=1e-6)


def test_metrics_are_means_over_what_was_heard(judged):
    values = judging.metrics(judged[0])
    assert values["reward"] == pytest.approx((2.0 + 1.0 + 0.8) / 3)
    assert values["answer_score"] == pytest.approx(0.75)  # all four answers were heard
    assert values["trace_score"] == pytest.approx(1 / 3)
    assert (values["well_formed"], values["missing_verdicts"], values["truncated"]) == (0.75, 1.0, 0.25)


def test_a_kept_completion_tells_what_was_said_and_what_it_was_worth(judged, tmp_path):
    made, _, _, example = judged
    (rows,) = judging.rows(7, made, [example], np.array([[1, -1, 0.5, 0]]), np.array([[True] * 3 + [False]]))
    path = completions.path_of(tmp_path, "mg_grpo", 7)
    completions.write(path, rows)
    first, *_, last = completions.read(tmp_path, "mg_grpo", 7)
    assert (first["text"], first["trace"], first["answer"]) == (TEXTS[0], "it is red", "red")
    assert (first["step"], first["prompt_id"], first["advantage"]) == (7, "v0-0", 1.0)
    assert (last["trace_score"], last["trace_reason"], last["reward"], last["kept"]) == (None, "busy", None, False)
    assert last["answer_score"] == 1.0
