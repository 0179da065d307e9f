"""Several processes divide a batch: each asks about its own prompts, and all know what one alone would."""

import types

import jax
import numpy as np
import pytest
from tiny_experiment import context, record

from evads_jax.data.chat import encode_completion
from evads_jax.errors import UserError
from evads_jax.judge.verdict import Missing, Verdict
from evads_jax.models import partitioning
from evads_jax.models.division import Division
from evads_jax.sampling.rollout import Rollout
from evads_jax.train import judging
from tests.train.side_by_side import side_by_side

B, G = 4, 2
HALVES = (np.array([0, 1]), np.array([2, 3]))
INTERLEAVED = (np.array([0, 2]), np.array([1, 3]))
SHARED = (np.array([0, 1]), np.array([0, 1]), np.array([2, 3]), np.array([2, 3]))  # tp crosses processes


class LengthJudge:
    """Long candidates are good; of one nothing is heard."""

    name = "length"

    def __init__(self, stops=False):
        self.stops, self.asked = stops, []

    def judge(self, requests):
        if self.stops:
            raise UserError("the endpoint is down", "judge")
        self.asked += [(r.video, r.aspect, r.candidate) for r in requests]
        return [Missing("busy") if "v2 1" in r.candidate else Verdict(len(r.candidate) % 5 / 4) for r in requests]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return context(tmp_path_factory.mktemp("division"))


@pytest.fixture(scope="module")
def drawn(made):
    """A rollout of B prompts with G samples, and what they ask."""
    texts = [
        f"<think>{'so ' * b}</think>\n<answer>v{b} {g}{' red' * (b + g)}</answer>" for b in range(B) for g in range(G)
    ]
    texts[3] = "red"
    ids = [encode_completion(made.tokenizer, text) for text in texts]
    lengths = np.array([len(i) for i in ids], np.int32).reshape(B, G)
    tokens = np.array([i + [made.tokenizer.ids.pad] * (lengths.max() - len(i)) for i in ids], np.int32)
    finished = np.arange(B * G).reshape(B, G) != 5
    rollout = Rollout(tokens.reshape(B, G, -1), lengths, np.zeros((B, G, lengths.max()), np.float32), finished)
    return rollout, [record(b).example(0) for b in range(B)]


def judge(made, drawn, judges, rows=(), number=0):
    """What a process knows after judging, and the completions that it would write."""
    rollout, examples = drawn
    division = Division(None, rows)
    function = judging.RewardFunction(judges[number], made.tokenizer, made.config.rl, "en", division)
    own = jax.tree.map(lambda x: x[division.mine], rollout)
    asked = [examples[i] for i in division.numbers] if rows else examples
    judged = function(own, asked)
    advantages, kept = np.arange(B * G, dtype=np.float32).reshape(B, G), np.ones((B, G), bool)
    told = judging.rows(1, judged, asked, advantages, kept, division.numbers if rows else None)
    return judged, division.collect(told)


@pytest.mark.parametrize("rows", [HALVES, INTERLEAVED, SHARED])
def test_each_process_asks_about_its_own_prompts_and_all_know_the_whole(made, drawn, monkeypatch, rows):
    alone, judges = LengthJudge(), [LengthJudge() for _ in rows]
    expected, completions = judge(made, drawn, [alone])
    for judged, told in side_by_side(monkeypatch, len(rows), lambda i: judge(made, drawn, judges, rows, i)):
        jax.tree.map(np.testing.assert_array_equal, judged.reward, expected.reward)
        jax.tree.map(np.testing.assert_array_equal, judged.found, expected.found)
        assert repr(judging.metrics(judged)) == repr(judging.metrics(expected))
        assert told == completions
    asked = [request for judge in judges for request in judge.asked]
    assert sorted(asked) == sorted(alone.asked)  # nobody asks what another has asked
    if rows is SHARED:
        assert not judges[1].asked
        assert not judges[3].asked


@pytest.mark.parametrize("rows", [HALVES, INTERLEAVED, SHARED])
def test_what_a_process_collates_is_its_part_of_the_batch(made, rows):
    inputs = made.inputs()
    videos = [inputs.sft_transform(2)(record(b), None) for b in range(B)]
    prompts = [inputs.prompt_transform("rl_released")(record(b), 0) for b in range(B)]
    whole = inputs.sft_collate(B, 2)(videos), inputs.prompt_collate(B)(prompts).prompt
    for own in rows:
        numbers = own.tolist()
        parts = (
            inputs.sft_collate(B, 2, numbers)([videos[row] for row in numbers]),
            inputs.prompt_collate(B, numbers)([prompts[row] for row in numbers]).prompt,
        )
        for part, all_of_it in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
            np.testing.assert_array_equal(part, all_of_it.reshape(B, -1, *all_of_it.shape[1:])[own].reshape(part.shape))


def test_what_stops_the_judge_of_one_process_ends_all_with_its_line(made, drawn, monkeypatch):
    judges = [LengthJudge(), LengthJudge(stops=True)]
    first, second = side_by_side(monkeypatch, 2, lambda i: judge(made, drawn, judges, HALVES, i))
    assert str(second) == "the endpoint is down [judge]"
    told = "process 1 could not have its completions judged: the endpoint is down [judge] [config.judge]"
    assert str(first) == told


def test_a_survey_counts_the_whole_split_whoever_reads_it(made, monkeypatch):
    expected = made._survey("sft", "rl_released", True)
    assert side_by_side(monkeypatch, 3, lambda i: made._survey("sft", "rl_released", True)) == [expected] * 3


def test_a_batch_that_does_not_divide_is_refused(monkeypatch):
    mesh = types.SimpleNamespace(shape={"data": 2, "fsdp": 2, "tp": 1})
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    said = r"a batch of 6 does not divide among 2 processes .* \[config\.rl\.batch_prompts\]: take a multiple of 4"
    with pytest.raises(UserError, match=said):
        Division.of(mesh, 6, "config.rl.batch_prompts")
    monkeypatch.setattr(partitioning, "rows_by_process", lambda batch, mesh: {0: np.arange(batch)})
    with pytest.raises(UserError, match=r"gives the processes 4, 0 rows of a batch of 4 \[config\.mesh\]"):
        Division.of(mesh, 4, "config.rl.batch_prompts")
