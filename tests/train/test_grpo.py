import os
import re
import signal
import threading

import jax
import numpy as np
import pytest
from tiny_experiment import config, context, record, train

from evads_jax.data.chat import stop_ids
from evads_jax.errors import UserError
from evads_jax.events import is_wall_clock, read_events, without_wall_clock
from evads_jax.judge.verdict import Missing, Verdict
from evads_jax.models.qwen_vl import decay_mask, init
from evads_jax.train import completions, grpo, judging, optimizer, sampler
from evads_jax.train.checkpoint import Checkpoints
from evads_jax.train.cost import Clock
from evads_jax.train.preemption import Preempted
from evads_jax.train.samples import suffix_of


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


def learner_of(made, params, judge, folder, stop=(), **changes):
    rl = config().rl
    rl.update(changes)
    ids = made.tokenizer.ids
    sampling = grpo.sampling_config(rl, (*stop_ids(made.tokenizer), *stop), ids.pad)
    rewards = judging.RewardFunction(judge, made.tokenizer, rl, "en")
    return grpo.GRPOLearner(
        params, made.model, rl, optimizer.make(rl, decay_mask(made.model), 10), rewards, sampling, folder
    )


def batch_of(made):
    inputs = made.inputs()
    items = [inputs.prompt_transform("rl_released")(record(i), 0) for i in range(2)]
    return inputs.prompt_collate(2)(items)


def test_a_steady_run_compiles_nothing_and_tells_what_its_steps_cost(tmp_path):
    def changes(config):
        config.rl.update(max_steps=6, resample_flat=1)

    train("mg_grpo", tmp_path, changes)
    steps = read_events(tmp_path, "train")
    assert [step["compilations"] for step in steps[2:]] == [steps[1]["compilations"]] * 4  # checkpoints included
    phases = [f"seconds_{name}" for name in ("data", "prefill", "decode", "judge", "resample", "logprobs", "update")]
    for step in steps:
        # Between the phases there is little to do, but a busy machine may take its time over it.
        assert 0.5 * step["seconds"] <= sum(step[phase] for phase in phases) <= step["seconds"] + 0.02
        assert step["seconds_rollout"] == pytest.approx(step["seconds_prefill"] + step["seconds_decode"], abs=1e-3)
        assert step["seconds_checkpoint"] >= 0
        assert step["sampled_tokens_per_second"] > 0
        assert step["prefix_sharing"] == 4.0
        assert 0 < step["padding"] < 1


class Slow(CountingJudge):
    """Answers when the device has been given the log-probabilities to compute."""

    def __init__(self):
        super().__init__()
        self.device = threading.Event()

    def judge(self, requests):
        assert self.device.wait(60)
        return super().judge(requests)


def test_a_sample_ends_where_its_text_does(tmp_path, monkeypatch):
    class Told(Exception):
        pass

    def sampler(model, group, sampling, division):
        raise Told(sampling)

    monkeypatch.setattr(grpo, "Sampler", sampler)
    with pytest.raises(Told) as told:
        train("mg_grpo", tmp_path)
    (sampling,) = told.value.args
    assert set(sampling.stop_ids) == set(stop_ids(context(tmp_path).tokenizer))


class Terminated(CountingJudge):
    """SIGTERM comes while it is asked for the `count`-th time."""

    def __init__(self, count):
        super().__init__()
        self.left = count

    def judge(self, requests):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().judge(requests)


def test_sigterm_while_the_judge_is_asked_ends_the_step_and_the_run_goes_on_exactly(tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    changes = lambda config: config.rl.update(updates_per_rollout=2, resample_flat=1)  # noqa: E731
    judge = Terminated(0)
    monkeypatch.setattr(grpo, "make_judge", lambda *_: judge)
    expected = train("mg_grpo", whole, changes)
    judge = Terminated(3)
    with pytest.raises(Preempted):
        train("mg_grpo", killed, changes)
    reached = Checkpoints(killed, grpo.STAGE).latest()
    assert reached in (2, 3)
    assert completions.steps(killed, grpo.STAGE) == list(range(1, reached + 1))
    found = train("mg_grpo", killed, changes)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
    events, events_ = ([without_wall_clock(e) for e in read_events(w)] for w in (killed, whole))
    assert events == events_
    for step in range(1, 5):
        kept, kept_ = (completions.path_of(w, grpo.STAGE, step).read_bytes() for w in (killed, whole))
        assert kept == kept_


def test_the_device_works_while_the_judge_does(made, params, tmp_path, monkeypatch):
    plain = learner_of(made, params, CountingJudge(), tmp_path / "plain")
    judge = Slow()
    learner = learner_of(made, params, judge, tmp_path)
    original = learner.logprobs

    def logprobs(*arguments):
        judge.device.set()
        return original(*arguments)

    monkeypatch.setattr(learner, "logprobs", logprobs)
    steps = [one.step(one.initial(), batch_of(made), jax.random.key(1)) for one in (plain, learner)]
    jax.tree.map(np.testing.assert_array_equal, steps[0][0].params, steps[1][0].params)


def test_a_step_rewards_judges_and_records(made, params, tmp_path):
    judge = CountingJudge()
    learner = learner_of(made, params, judge, tmp_path)
    state, metrics = learner.step(learner.initial(), batch_of(made), jax.random.key(1))
    assert int(state.step) == 1
    assert [r.aspect for r in judge.seen] == ["answer"] * 8 + ["trace"] * 8
    assert {r.video for r in judge.seen} == {"v0", "v1"}
    assert {"reward", "reward_std", "reward_answer", "reward_trace", "reward_format", "well_formed", "missing_verdicts",
            "zero_variance", "clip_low", "clip_high", "entropy", "kl", "completion_tokens", "truncated", "grad_norm",
            "logprob_gap"} <= metrics.keys()  # fmt: skip
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
    rollout, _ = learner._sample(before, batch.prompt, batch.ids, key, Clock())
    suffix = suffix_of(rollout)
    old, new = (learner.logprobs(p, batch.prompt, suffix).sum(-1) / rollout.lengths for p in (before, state.params))
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


def test_without_any_verdict_nothing_is_learned_not_even_by_momentum_or_decay(made, params, tmp_path):
    judge = CountingJudge()
    learner = learner_of(made, params, judge, tmp_path, weight_decay=0.1)
    before, _ = learner.step(learner.initial(), batch_of(made), jax.random.key(1))
    moved = jax.tree.map(np.array, before.params)  # the step donates them
    assert not np.array_equal(moved["text"]["embed"], params["text"]["embed"])
    judge.missing = 1
    state, metrics = learner.step(before, batch_of(made), jax.random.key(2))
    jax.tree.map(np.testing.assert_array_equal, state.params, moved)
    assert int(state.step) == 2
    assert (metrics["tokens"], metrics["dropped_groups"]) == (0, 1.0)
    assert np.isnan(metrics["reward"])


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
    assert learner.logprobs._cache_size() == 1


def test_completions_are_kept_every_so_many_steps_and_rewound(made, params, tmp_path):
    learner = learner_of(made, params, CountingJudge(), tmp_path, keep_completions_every=2)
    state = learner.initial()
    for step in range(3):
        state, _ = learner.step(state, batch_of(made), jax.random.key(step))
    assert completions.steps(tmp_path, grpo.STAGE) == [1, 3]
    learner.rewind(2)
    assert completions.steps(tmp_path, grpo.STAGE) == [1]


def test_micro_batches_change_nothing(made, params, tmp_path):
    whole, parts = (
        learner_of(made, params, CountingJudge(missing=8), tmp_path, **changes)
        for changes in ({}, {"micro_groups": 1, "micro_samples": 2, "logit_chunk": 8})
    )
    steps = [learner.step(learner.initial(), batch_of(made), jax.random.key(1))[1] for learner in (whole, parts)]
    assert steps[0].keys() == steps[1].keys()
    for name, value in steps[0].items():
        if not is_wall_clock(name):
            assert steps[1][name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
    assert steps[1]["loss"] == pytest.approx(steps[0]["loss"], rel=1e-6, abs=1e-7)
    assert steps[1]["grad_norm"] == pytest.approx(steps[0]["grad_norm"], rel=1e-6)


def test_completions_are_padded_to_the_bucket_that_holds_the_longest(made, params, tmp_path):
    plain, bucketed = (
        learner_of(made, params, CountingJudge(missing=8), tmp_path, stop=range(20, 80), **changes)
        for changes in ({}, {"suffix_buckets": (3, 10)})
    )
    widths, update = [], bucketed.update
    bucketed.update = lambda before, prompt, samples, frozen: (
        widths.append(samples.suffix.tokens.shape[-1]) or update(before, prompt, samples, frozen)
    )
    longest = []
    for number in range(1, 9):
        key = jax.random.key(number)
        steps = [learner.step(learner.initial(), batch_of(made), key)[1] for learner in (plain, bucketed)]
        longest.append(max(row["tokens"] for row in completions.read(tmp_path, grpo.STAGE, 1)))
        for name in ("loss", "grad_norm", "kl", "entropy", "logprob_gap_max", "tokens", "completion_tokens"):
            assert steps[1][name] == pytest.approx(steps[0][name], rel=1e-5, abs=1e-6), name
        assert steps[1]["padding"] <= steps[0]["padding"]
    assert widths == [next(width for width in (3, 10, 12) if length <= width) for length in longest]
    assert len(set(widths)) > 1, "the test needs several"


def test_everything_that_can_be_set_is_recorded(made, params, tmp_path):
    learner = learner_of(
        made, params, CountingJudge(), tmp_path, stop=range(20, 80), loss="dapo", dual_clip=3.0, entropy_weight=0.1,
        kl="k1_in_reward", kl_weight=0.5, mask_truncated=True, overlong_tokens=12, overlong_weight=0.25,
        updates_per_rollout=2, old_logps="recomputed", importance_cap=1.0 + 1e-7, importance_level="sequence",
    )  # fmt: skip
    state = learner.initial()
    for number in (1, 2):  # in the second the policy is no longer its reference
        state, metrics = learner.step(state, batch_of(made), jax.random.key(number))
    rows = completions.read(tmp_path, grpo.STAGE, 2)
    assert metrics["logprob_gap_max"] < 1e-5  # of the trainer to the sampler, before the first update
    assert metrics["importance_mean"] == pytest.approx(1.0, abs=1e-4)
    assert 0 < metrics["importance_capped"] <= 1
    assert {"clip_dual", "clip_low", "clip_high", "entropy", "kl", "dropped_groups"} <= metrics.keys()
    assert 0 < metrics["truncated"] == np.mean([not row["finished"] for row in rows]) < 1
    assert [row["kept"] for row in rows] == [row["finished"] for row in rows]
    assert metrics["tokens"] == sum(row["tokens"] for row in rows if row["finished"])
    # What was added to the judged parts: 0.25 for the whole length, and the divergence, which is not 0 any more.
    added = np.array(
        [row["reward"] - row["reward_answer"] - row["reward_trace"] - row["reward_format"] for row in rows]
    )
    np.testing.assert_allclose(added, [row["reward_shaping"] for row in rows], atol=1e-5)
    length = np.array([-0.25 * row["tokens"] / 12 for row in rows])
    assert np.abs(added - length).max() > 1e-4
    assert metrics["reward_shaping"] == pytest.approx(added.mean(), rel=1e-4)


class FlatJudge:
    """The verdicts on v0 are all the same; those on v1 are in the first round, and differ in later ones."""

    name = "flat"

    def __init__(self):
        self.asked = []

    def judge(self, requests):
        self.asked.append([request.video for request in requests])
        later = len(self.asked) > 1
        return [Verdict((n % 5) / 4 if later and r.video == "v1" else 0.5) for n, r in enumerate(requests)]


def test_a_flat_group_is_sampled_again_and_dropped_in_the_end(made, params, tmp_path):
    judge, batch = FlatJudge(), batch_of(made)
    plain = learner_of(made, params, FlatJudge(), tmp_path / "plain")
    learner = learner_of(made, params, judge, tmp_path, resample_flat=2)
    _, without = plain.step(plain.initial(), batch, jax.random.key(1))
    compiled = sampler.decode._cache_size()
    _, metrics = learner.step(learner.initial(), batch, jax.random.key(1))
    assert sampler.decode._cache_size() == compiled  # the rounds have the shapes of the batch
    assert [sorted(set(videos)) for videos in judge.asked] == [["v0", "v1"], ["v0", "v1"], ["v0"]]
    assert [len(videos) for videos in judge.asked] == [16, 16, 8]
    assert metrics["resampled_groups"] == 1.5
    assert (without["zero_variance"], without["dropped_groups"]) == (1.0, 0.0)
    assert (metrics["zero_variance"], metrics["dropped_groups"]) == (0.5, 0.5)
    first, rows = (completions.read(folder, grpo.STAGE, 1) for folder in (tmp_path / "plain", tmp_path))
    assert [row["kept"] for row in rows] == [False] * 4 + [True] * 4
    assert [row["advantage"] for row in rows[:4]] == [0.0] * 4
    assert metrics["tokens"] == sum(row["tokens"] for row in rows[4:])
    assert all(a["text"] != b["text"] for a, b in zip(first, rows, strict=True))
    other = learner_of(made, params, FlatJudge(), tmp_path, resample_flat=2)
    _, again = other.step(other.initial(), batch, jax.random.key(1))
    assert again["loss"] == metrics["loss"]


def test_a_group_that_is_not_flat_is_left_as_it_is(made, params, tmp_path):
    steps = []
    for folder, rounds in ((tmp_path / "never", 0), (tmp_path / "twice", 2)):
        learner = learner_of(made, params, CountingJudge(), folder, resample_flat=rounds)
        state, metrics = learner.step(learner.initial(), batch_of(made), jax.random.key(1))
        steps.append((state.params, metrics))
    jax.tree.map(np.testing.assert_array_equal, steps[0][0], steps[1][0])
    assert steps[1][1]["resampled_groups"] == 0
    files = [completions.path_of(tmp_path / name, grpo.STAGE, 1).read_bytes() for name in ("never", "twice")]
    assert files[0] == files[1]


def test_a_step_that_is_not_finite_names_tensor_and_batch_and_leaves_the_checkpoint(tmp_path, monkeypatch):
    original = grpo.GRPOLearner.step

    def step(learner, before, batch, key):
        if int(before.step) == 2:
            before = before.replace(params=jax.tree.map(lambda x: x * np.nan, before.params))
        return original(learner, before, batch, key)

    monkeypatch.setattr(grpo.GRPOLearner, "step", step)
    with pytest.raises(UserError) as stopped:
        train("mg_grpo", tmp_path)
    message = str(stopped.value)
    said = r"step 3: gradient of text/\S+ is not finite \(loss nan\); its batch: questions v\d-\d, v\d-\d \["
    assert re.search(said, message)
    assert "the checkpoint of step 2 is good" in message
    assert read_events(tmp_path, "failure")[0]["message"] == message
    checkpoints = Checkpoints(tmp_path, grpo.STAGE)
    assert checkpoints.latest() == 2
    monkeypatch.undo()
    assert train("mg_grpo", tmp_path).step == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [("loss", "ppo"), ("kl", "k4"), ("reward", "r4"), ("scale_advantage", "std"), ("group", 1), ("temperature", 0.0)],
)
def test_settings_that_cannot_work_are_refused_by_name(field, value):
    rl = config().rl
    rl[field] = value
    with pytest.raises(UserError, match=f"config.rl.{field}"):
        grpo.check(rl)
