"""What a stage trains and what it leaves: adapters over frozen matrices, or all but the vision tower."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_experiment import config, context, record

from evads_jax.errors import UserError
from evads_jax.events import read_events
from evads_jax.judge.verdict import Verdict
from evads_jax.models import lora
from evads_jax.models.qwen_vl import SuffixBatch, init, score
from evads_jax.sampling.config import SamplingConfig
from evads_jax.train import judging, optimizer, state, trainable
from evads_jax.train.checkpoint import load_params
from evads_jax.train.grpo import GRPOLearner
from evads_jax.train.sft import train_sft


class LengthJudge:
    """Longer answers are better."""

    name = "length"

    def judge(self, requests):
        return [Verdict((len(request.candidate) % 5) / 4) for request in requests]


def adapted(config):
    config.lora.rank, config.lora.groups = 2, ("text", "merger")
    config.sft.max_steps = 3
    config.sft.optimizer, config.sft.learning_rate = "adamw", 1e-2


def names(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(tree)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An SFT stage with adapters: its context, where it started, its result."""
    made = context(tmp_path_factory.mktemp("lora"), adapted)
    params = init(made.model, jax.random.key(0))
    return made, params, train_sft(made, params)


def grpo_step(made, params, tmp_path):
    """One step from `params`: the learner and its metrics."""
    part = made.divide(params, "mg_grpo")
    rewards = judging.RewardFunction(LengthJudge(), made.tokenizer, made.config.rl, "en")
    ids = made.tokenizer.ids
    sampling = SamplingConfig(made.config.rl.max_new_tokens, stop_ids=(ids.im_end,), pad_id=ids.pad)
    made_optimizer = optimizer.make(made.config.rl, part.decay_mask, 4)
    learner = GRPOLearner(
        part.start, made.model, made.config.rl, made_optimizer, rewards, sampling, tmp_path, frozen=part.frozen
    )
    items = [made.inputs().prompt_transform("rl_released")(record(i), 0) for i in range(2)]
    batch = made.inputs().prompt_collate(2)(items)
    after, metrics = learner.step(learner.initial(), batch, jax.random.key(1))
    return part, after, metrics


def test_sft_with_adapters_trains_them_and_nothing_else(trained):
    made, params, result = trained
    losses = [event["loss"] for event in read_events(made.workdir, "validation")]
    assert losses[-1] < losses[0]
    bare = jax.tree.map(
        lambda leaf: leaf.weight if isinstance(leaf, lora.Adapted) else leaf,
        result.params,
        is_leaf=lambda leaf: isinstance(leaf, lora.Adapted),
    )
    jax.tree.map(np.testing.assert_array_equal, bare, params)
    (start,) = read_events(made.workdir, "stage_start")
    held = load_params(made.workdir, "sft", made.divide(params, "sft").start)
    assert (
        start["parameters"]
        == sum(leaf.size for leaf in jax.tree.leaves(held))
        < 0.5 * sum(leaf.size for leaf in jax.tree.leaves(params))
    )


def test_the_result_of_a_finished_stage_is_found_again(trained):
    made, params, result = trained
    found = trainable.load_result(made.config, made.model, params, made.workdir, "sft")
    jax.tree.map(np.testing.assert_array_equal, found, result.params)


def test_grpo_starts_at_the_sft_result_without_divergence(trained, tmp_path):
    made, _, result = trained
    part, after, metrics = grpo_step(made, result.params, tmp_path)
    assert part.frozen is result.params
    assert 0 <= metrics["kl"] < 1e-12  # k3 of what two compilations round differently
    assert metrics["logprob_gap_max"] < 1e-5  # the sampler takes adapters as the loss does
    assert metrics["grad_norm"] > 0
    assert names(after.params) == names(part.start)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(after.params))


def test_a_reference_in_the_activations_type_scores_as_the_parameters_do_and_is_a_copy(tmp_path):
    made = context(tmp_path)
    model = dataclasses.replace(made.model, dtype="bfloat16")
    params = init(model, jax.random.key(0))
    held = trainable.kept(model, params)
    types = {name: leaf.dtype for name, leaf in zip(sorted(names(held)), jax.tree.leaves(held), strict=True)}
    assert {str(dtype) for dtype in types.values()} == {"bfloat16", "float32"}
    items = [made.inputs().prompt_transform("rl_released")(record(i), 0) for i in range(2)]
    prompt = made.inputs().prompt_collate(2)(items).prompt
    tokens = np.random.default_rng(0).integers(0, 300, (2, 3, 5)).astype(np.int32)
    suffix = SuffixBatch(tokens, np.full((2, 3), 5, np.int32), np.ones((2, 3, 5), bool))
    one, other = (jax.jit(score, static_argnums=1)(p, model, prompt, suffix).logprob for p in (params, held))
    np.testing.assert_array_equal(one, other)
    same = trainable.kept(made.model, params)  # float32: nothing to shorten
    jax.tree.map(np.testing.assert_array_equal, same, params)
    state.released(params)
    jax.block_until_ready((held, same))
    assert set(trainable.kept(model, {"text": held["text"]})) == {"text"}  # with a frozen tower


def test_a_frozen_tower_has_neither_gradients_nor_moments(tmp_path):
    def frozen(config):
        config.train.freeze_vision = True

    made = context(tmp_path, frozen)
    params = init(made.model, jax.random.key(0))
    part, after, metrics = grpo_step(made, params, tmp_path)
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-6)
    assert set(part.start) == {"text"}
    assert set(part.frozen) == {"vision"}
    assert not any("vision" in name for name in names(after))
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), after.params, part.start)
    assert all(jax.tree.leaves(changed))
    assert names(lora.combine(part.frozen, after.params)) == names(params)


def test_without_either_the_parameters_themselves_are_trained(tmp_path):
    made = context(tmp_path)
    params = init(made.model, jax.random.key(0))
    part = made.divide(params, "sft")
    assert part.start is params
    assert part.frozen is None
    assert lora.combine(part.frozen, params) is params
    held = trainable.prepare(made.config, dataclasses.replace(made.model, dtype="bfloat16"), params)
    assert held is params


def test_two_stages_and_two_seeds_start_from_other_adapters(trained):
    made, params, _ = trained
    one, other = (made.divide(params, stage).start for stage in ("sft", "mg_grpo"))
    again = made.divide(params, "sft").start
    jax.tree.map(np.testing.assert_array_equal, one, again)
    differing = jax.tree.map(lambda a, b: bool(np.any(a != b)), one, other)
    assert any(jax.tree.leaves(differing))
    assert state.create(one, optimizer.make(made.config.sft, made.divide(params, "sft").decay_mask, 3)[0]).step == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lora.rank": -1}, "config.lora.rank"),
        ({"lora.groups": ("head",)}, "of text, merger, vision"),
        ({"lora.rank": 2, "lora.groups": ()}, "adapters of no layers"),
        ({"lora.rank": 2, "sft.optimizer": "muon"}, "muon is for whole matrices"),
        ({"lora.rank": 2, "lora.groups": ("text", "vision"), "train.freeze_vision": True}, "which is frozen"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, told):
    settings = config()
    settings.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=told):
        trainable.check(settings)
