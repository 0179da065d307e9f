import dataclasses

import jax
import ml_collections
import numpy as np
import pytest

from evads_jax.benchmark import policy
from evads_jax.benchmark.files import Split
from evads_jax.benchmark.policy import ModelPolicy
from evads_jax.benchmark.predict import predict
from evads_jax.data import prompts
from evads_jax.data.records import Event
from evads_jax.data.tokenizer import train_sentencepiece
from evads_jax.errors import UserError
from evads_jax.models import partitioning
from evads_jax.models.division import Division
from evads_jax.models.qwen_vl import parameters
from evads_jax.models.qwen_vl.config import QwenVLConfig, VisionConfig
from evads_jax.sampling import rollout

from .small_world import make_record

VISION = VisionConfig(width=16, layers=1, heads=2, mlp_width=16, patch=4, temporal_patch=2, merge=2, position_grid=4)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    examples = [e for n in range(9) for e in make_record(n).examples()]
    texts = prompts.corpus(examples) + [prompts.target(e.question) for e in examples]
    return train_sentencepiece(texts, 400, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def model(tokenizer):
    return QwenVLConfig(
        vocabulary=tokenizer.size, width=16, layers=2, heads=2, kv_heads=1, head_width=8, mlp_width=16,
        mrope_sections=(2, 1, 1), vision=VISION, rope_theta=1e4,
    )  # fmt: skip


def make(tokenizer, model, seed=0, batch=4, protocol="paper", prompt_tokens=448, samples=1, **options):
    config = ml_collections.ConfigDict(
        {
            "run": {"language": "en", "seed": 0},
            "data": {
                "format_eval": "eval_released",
                "prompt_tokens": prompt_tokens,
                "frame_rate": 1.0,
                "max_frames": 2,
                "frame_size": 16,
            },
            "eval": {
                "protocol": protocol,
                "samples": samples,
                "batch_prompts": batch,
                "max_new_tokens": 8,
                "blank_frames": False,
            },
        }
    )
    params = parameters.init(model, jax.random.key(seed))
    return ModelPolicy(params, model, tokenizer, config, f"seed {seed}", **options)


def test_a_completion_depends_on_its_question_alone(tokenizer, model):
    items = [(make_record(n), i) for n in range(2) for i in range(5)]
    whole = make(tokenizer, model).generate(items)
    assert len(set(whole)) > 3
    assert make(tokenizer, model).generate(items[::-1])[::-1] == whole
    assert [make(tokenizer, model).generate([item])[0] for item in items[:3]] == whole[:3]


def test_several_samples_of_a_question_differ_and_the_first_is_that_of_a_single_one(tokenizer, model, tmp_path):
    items = [(make_record(0), i) for i in range(3)]
    policy = make(tokenizer, model, samples=3)
    drawn = policy.generate(items)
    assert drawn[::3] == make(tokenizer, model).generate(items)
    assert len(set(drawn)) > 6
    split = Split.of([make_record(0)])
    completions = predict(policy, split, tmp_path)
    assert [completions[f"v0-{task}{s}"] for task in ("BP", "CM", "ML") for s in ("", "#1", "#2")] == drawn
    assert policy.protocol["samples"] == 3
    assert "samples" not in make(tokenizer, model).protocol
    with pytest.raises(UserError, match=r"eval\.samples"):
        make(tokenizer, model, samples=2, protocol="greedy")


def test_a_policy_on_a_mesh_says_what_one_on_a_device_says(tokenizer, model):
    items = [(make_record(0), i) for i in range(3)]
    division = Division.of(partitioning.make_mesh(), 4, "config.eval.batch_prompts")
    assert make(tokenizer, model, division=division).generate(items) == make(tokenizer, model).generate(items)


def test_stages_and_blanked_runs_share_one_compiled_sampler(tokenizer, model, tmp_path):
    split = Split.of([make_record(n) for n in range(3)])
    predict(make(tokenizer, model, seed=0), split, tmp_path / "a")
    before = rollout.sample._cache_size()
    predict(make(tokenizer, model, seed=1), split, tmp_path / "b")
    predict(make(tokenizer, model, seed=1, blank_frames=True), split, tmp_path / "c")
    assert rollout.sample._cache_size() == before


def test_blanked_frames_are_grey_and_change_nothing_else(tokenizer, model, monkeypatch):
    seen = []
    sample = policy.sample

    def spy(params, config, batch, *rest):
        seen.append(batch)
        return sample(params, config, batch, *rest)

    monkeypatch.setattr(policy, "sample", spy)
    items = [(make_record(n), 0) for n in range(4)]
    for blank in (False, True):
        blanked = make(tokenizer, model, blank_frames=blank)
        blanked.generate(items)
        assert blanked.protocol["blank_frames"] is blank
    real, blanked = seen
    assert len(np.unique(real.video.patches)) > 1
    assert (blanked.video.patches == policy.GREY).all()
    np.testing.assert_array_equal(real.tokens, blanked.tokens)
    np.testing.assert_array_equal(real.video.grid, blanked.video.grid)


def test_event_lines_that_do_not_fit_are_dropped_and_counted(tokenizer, model):
    record = make_record(0)
    long = dataclasses.replace(record, events=tuple(Event(s, s, asr=f"kettle {s} is red") for s in range(60)))
    one = make(tokenizer, model)
    one.generate([(record, 0), (long, 1)])
    assert one.dropped_lines["v0-BP"] == 0
    assert 0 < one.dropped_lines["v0-CM"] < 60


def test_the_protocol_says_how_it_was_asked_and_unknown_ones_are_refused(tokenizer, model):
    assert make(tokenizer, model, protocol="greedy").protocol["temperature"] == 0.0
    assert make(tokenizer, model, protocol="paper").protocol["temperature"] == 1.0
    with pytest.raises(UserError, match=r"eval\.protocol"):
        make(tokenizer, model, protocol="other")
