import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_experiment import context, record, train

from evads_jax.data.chat import decode_completion
from evads_jax.errors import UserError
from evads_jax.events import read_events, without_wall_clock
from evads_jax.models.qwen_vl import decay_mask, init, score
from evads_jax.train import optimizer
from evads_jax.train.checkpoint import Checkpoints
from evads_jax.train.sft import SFTLearner, train_control

TINY = Path(__file__).with_name("tiny_experiment.py")


def events(workdir):
    return [without_wall_clock(e) for e in read_events(workdir)]


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return context(tmp_path_factory.mktemp("sft"))


@pytest.fixture(scope="module")
def params(made):
    return init(made.model, jax.random.key(0))


@pytest.fixture(scope="module")
def learner(made, params):
    return SFTLearner(params, made.model, optimizer.make(made.config.sft, decay_mask(made.model), 10))


def batch(made, numbers, group=2):
    items = [made.inputs().sft_transform(group)(record(i), None) for i in numbers]
    return made.inputs().sft_collate(4, group)(items)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, train("sft", workdir)


def test_the_loss_falls_and_is_over_the_completion_only(made, learner, params):
    first = batch(made, range(4))
    state, losses = learner.initial(), []
    for _ in range(8):
        state, metrics = learner.step(state, first, jax.random.key(0))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.3
    assert learner.update._cache_size() == 1
    scores = score(params, made.model, first.prompt, first.suffix)
    np.testing.assert_allclose(losses[0], -scores.logprob.sum() / first.suffix.mask.sum(), rtol=1e-5)
    masked = first.suffix.tokens[np.asarray(first.suffix.mask)]
    texts = decode_completion(made.tokenizer, masked[: list(masked).index(made.tokenizer.ids.im_end)])
    assert texts == "<think>it is red</think>\n<answer>red</answer>"


def test_what_is_asked_and_what_is_padded_does_not_enter_the_loss(learner, made):
    one = batch(made, range(4))
    noise = np.random.default_rng(0).integers(0, 300, one.suffix.tokens.shape).astype(np.int32)
    inside = np.arange(one.suffix.tokens.shape[-1]) < one.suffix.lengths[..., None]
    other = one.replace(suffix=one.suffix.replace(tokens=np.where(inside, one.suffix.tokens, noise)))
    state = learner.initial()
    for a, b in zip(learner.sums(state.params, one), learner.sums(state.params, other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_short_validation_batch_counts_its_videos_once(learner, made):
    params = learner.initial().params
    parts = ([0, 1, 2, 3], [4, 5], [])  # of the last batch some process may have no video
    whole = [learner.sums(params, batch(made, numbers)) for numbers in parts]
    apart = [learner.sums(params, batch(made, [i])) for i in range(6)]
    np.testing.assert_allclose(sum(w[0] for w in whole), sum(a[0] for a in apart), rtol=1e-5)
    assert sum(w[1] for w in whole) == sum(a[1] for a in apart)


def test_a_killed_stage_ends_like_one_that_was_not(tmp_path, uninterrupted):
    killed = subprocess.run([sys.executable, TINY, tmp_path, "4"], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert Checkpoints(tmp_path, "sft").latest() in (2, 3)
    workdir, result = uninterrupted
    assert_equal(train("sft", tmp_path).params, result.params)
    assert events(tmp_path) == events(workdir)


def test_a_steady_run_compiles_nothing(uninterrupted):
    steps = read_events(uninterrupted[0], "train")  # with validations and checkpoints between them
    assert len(steps) == 6
    assert {step["compilations"] for step in steps[1:]} == {steps[1]["compilations"]}
    assert all(step["prefix_sharing"] == 2.0 and 0 < step["padding"] < 1 for step in steps)


def test_the_control_goes_on_from_the_result_without_stopping_early(uninterrupted):
    workdir, result = uninterrupted
    start = jax.tree.map(jnp.copy, result.params)  # the stage gives it up
    control = train_control(context(workdir), start, steps=2, split="rl")
    assert (control.step, control.best_step) == (2, 2)
    validations = [e for e in events(workdir) if e["kind"] == "validation"]
    assert validations[-2]["stage"] == "control"
    assert validations[-2]["step"] == 0
    best = min(e["loss"] for e in validations if e["stage"] == "sft")
    assert validations[-2]["loss"] == pytest.approx(best, rel=1e-6)


def test_more_questions_than_a_group_holds_are_refused(made):
    with pytest.raises(UserError, match="video v0 has 3 questions, a group holds 2"):
        made.inputs().sft_transform(2)(record(0, questions=3), None)


def test_what_does_not_fit_is_left_out_and_counted(tmp_path):
    def small(config):
        config.data.suffix_tokens = 8

    inputs, plain = context(tmp_path, small).inputs(), context(tmp_path).inputs()
    records = [record(0), record(1)]
    assert inputs.survey(records, "rl_released", together=True)["left_out"] == 4
    assert inputs.sft_transform(2)(record(0), None).suffixes == ()  # its place in the batch stays its own
    assert plain.survey(records, "rl_released", together=True) == {
        "questions": 4, "cut": 0, "lines": 0, "left_out": 0
    }  # fmt: skip


def test_a_split_of_which_no_question_fits_is_refused(tmp_path):
    def small(config):
        config.data.suffix_tokens = 8

    with pytest.raises(UserError, match=r"no question of the split sft fits \[config\.data\.suffix_tokens\]"):
        train("sft", tmp_path, small)


def test_a_prompt_in_sft_is_the_prompt_that_is_sampled_from(made):
    together = made.inputs().sft_transform(2)(record(0), None)
    alone = made.inputs().prompt_transform("rl_released")(record(0), 1)
    ids, start = together.suffixes[1]
    assert [*together.prompt.tokens, *ids[:start]] == list(alone.prompt.tokens)
