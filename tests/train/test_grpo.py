import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_experiment import config, context, record, train

from evads_jax.errors import UserError
from evads_jax.events import read_events, without_wall_clock
from evads_jax.judge.verdict import Missing, Verdict
from evads_jax.models.qwen_vl import decay_mask, init
from evads_jax.sampling.config import SamplingConfig
from evads_jax.train import completions, grpo, judging, optimizer

TINY = Path(__file__).with_name("tiny_experiment.py")


class CountingJudge:
    """Longer answers are better; every `missing`-th request gets no verdict."""

    name = "counting"

    def __init__(self, missing=None):
        self.missing, self.seen = missing, []

    def judge(self, requests):
        self.seen += requests
        return [
            Missing("busy") if self.missing and n % self.missing == 0 else Verdict((len(r.candidate) % 5) / 4)
            for n, r in enumerate(requests)
        ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return context(tmp_path_factory.mktemp("grpo"))


@pytest.fixture(scope="module")
def params(made):
    return init(made.model, jax.random.key(0))


def learner_of(made, params, judge, folder, **changes):
    rl = config().rl
    rl.update(changes)
    ids = made.tokenizer.ids
    sampling = SamplingConfig(rl.max_new_tokens, 1.0, 1.0, (ids.im_end,), ids.pad)
    rewards = judging.RewardFunction(judge, made.tokenizer, rl, "en")
    return grpo.GRPOLearner(
        params, made.model, rl, optimizer.make(rl, decay_mask(made.model), 10), rewards, sampling, folder
    )


def batch_of(made):
    inputs = made.inputs()
    items = [inputs.prompt_transform("rl_released")(record(i), 0) for i in range(2)]
    return inputs.prompt_collate(2)(items)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, train("mg_grpo", workdir)


def test_a_killed_stage_ends_like_one_that_was_not(tmp_path, uninterrupted):
    command = [sys.executable, TINY, tmp_path, "mg_grpo", "4"]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert completions.steps(tmp_path, grpo.STAGE)[-1] == 4  # beyond the last checkpoint
    workdir, result = uninterrupted
    jax.tree.map(np.testing.assert_array_equal, train("mg_grpo", tmp_path).params, result.params)
    one, other = ([without_wall_clock(e) for e in read_events(w)] for w in (tmp_path, workdir))
    assert one == other
    for step in range(1, 5):
        files = [completions.path_of(w, grpo.STAGE, step).read_bytes() for w in (tmp_path, workdir)]
        assert files[0] == files[1]


def test_a_step_rewards_judges_and_records(made, params, tmp_path):
    judge = CountingJudge()
    learner = learner_of(made, params, judge, tmp_path)
    state, metrics = learner.step(learner.initial(), batch_of(made), jax.random.key(1))
    assert int(state.step) == 1
    assert [r.aspect for r in judge.seen] == ["answer"] * 8 + ["trace"] * 8
    assert {r.video for r in judge.seen} == {"v0", "v1"}
    assert {"reward", "reward_std", "reward_answer", "reward_trace", "reward_format", "well_formed", "missing_verdicts",
            "zero_variance", "clip_low", "clip_high", "entropy", "kl", "completion_tokens", "truncated", "grad_norm",
            "logprob_gap", "seconds_rollout", "seconds_judge", "seconds_update"} <= metrics.keys()  # fmt: skip
    assert metrics["logprob_gap_max"] < 1e-5  # sampler and score agree
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-6)  # the first step starts at its reference
    assert metrics["first_bad"] == -1
    rows = completions.read(tmp_path, grpo.STAGE, 1)
    assert [(r["prompt_id"], r["sample"]) for r in rows] == [(f"v{b}-0", g) for b in range(2) for g in range(4)]
    for b in range(2):
        rewards, advantages = (np.array([r[k] for r in rows[4 * b : 4 * b + 4]]) for k in ("reward", "advantage"))
        np.testing.assert_allclose(advantages.sum(), 0.0, atol=1e-4)
        assert np.array_equal(np.argsort(rewards, kind="stable"), np.argsort(advantages, kind="stable"))
    assert metrics["reward"] == pytest.approx(np.mean([r["reward"] for r in rows]))


def test_the_better_completions_become_likelier(made, params, tmp_path):
    learner = learner_of(made, params, CountingJudge(), tmp_path)
    state, (batch, key) = learner.initial(), (batch_of(made), jax.random.key(1))
    before = learner.initial().params
    state, _ = learner.step(state, batch, key)
    rows = completions.read(tmp_path, grpo.STAGE, 1)
    advantages = np.array([r["advantage"] for r in rows]).reshape(2, 4)
    rollout = grpo.sample(before, made.model, batch.prompt, batch.ids, 4, learner._sampling, key)
    S = rollout.tokens.shape[-1]
    suffix = grpo.SuffixBatch(rollout.tokens, rollout.lengths, np.arange(S) < rollout.lengths[..., None])
    old, new = (learner.reference(p, batch.prompt, suffix).sum(-1) / rollout.lengths for p in (before, state.params))
    assert float(((new - old) * advantages).sum()) > 0


def test_a_missing_verdict_is_no_reward_and_no_zero(made, params, tmp_path):
    learner = learner_of(made, params, CountingJudge(missing=8), tmp_path)
    _, metrics = learner.step(learner.initial(), batch_of(made), jax.random.key(1))
    rows = completions.read(tmp_path, grpo.STAGE, 1)
    assert metrics["missing_verdicts"] == 2
    assert (rows[0]["reward"], rows[0]["answer_score"], rows[0]["kept"], rows[0]["advantage"]) == (None, None, False, 0)
    assert all(row["kept"] for row in rows[1:])
    assert metrics["tokens"] == sum(row["tokens"] for row in rows[1:])
    assert metrics["reward"] == pytest.approx(np.mean([r["reward"] for r in rows[1:]]))


def test_without_any_verdict_nothing_is_learned(made, params, tmp_path):
    learner = learner_of(made, params, CountingJudge(missing=1), tmp_path)
    state, metrics = learner.step(learner.initial(), batch_of(made), jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, state.params, params)
    assert np.isnan(metrics["reward"])
    assert metrics["dropped_groups"] == 1.0


def test_several_updates_per_rollout_move_away_from_it(made, params, tmp_path):
    learner = learner_of(made, params, CountingJudge(), tmp_path, updates_per_rollout=3)
    state = learner.initial()
    for step in (1, 2):
        state, metrics = learner.step(state, batch_of(made), jax.random.key(step))
        assert metrics["logprob_gap_max"] < 1e-5  # of the first update
        assert metrics["approx_kl"] > 1e-6  # of all
    assert int(state.step) == 6
    assert completions.steps(tmp_path, grpo.STAGE) == [1, 2]
    assert learner.update._cache_size() == 1
    assert learner.reference._cache_size() == 1


def test_completions_are_kept_every_so_many_steps_and_rewound(made, params, tmp_path):
    learner = learner_of(made, params, CountingJudge(), tmp_path, keep_completions_every=2)
    state = learner.initial()
    for step in range(3):
        state, _ = learner.step(state, batch_of(made), jax.random.key(step))
    assert completions.steps(tmp_path, grpo.STAGE) == [1, 3]
    learner.rewind(2)
    assert completions.steps(tmp_path, grpo.STAGE) == [1]


@pytest.mark.parametrize(
    ("field", "value"),
    [("loss", "ppo"), ("kl", "k4"), ("reward", "r4"), ("scale_advantage", "std"), ("group", 1), ("temperature", 0.0)],
)
def test_settings_that_cannot_work_are_refused_by_name(field, value):
    rl = config().rl
    rl[field] = value
    with pytest.raises(UserError, match=f"config.rl.{field}"):
        grpo.check(rl)
