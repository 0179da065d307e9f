"""The small world as fixtures."""

import json

import pytest

from evads_jax.benchmark.evaluate import evaluate, evaluate_chance
from evads_jax.benchmark.files import Split

from .small_world import Knowing, WordJudge, make_config, make_record


@pytest.fixture
def records():
    return [make_record(n) for n in range(18)]


@pytest.fixture
def split(records):
    return Split.of(records)


@pytest.fixture
def make_run(tmp_path):
    """A finished run's folder: `make_run(folder, seed=…, reward=…, shares={stage: share}, …)`."""

    def make(folder="run", seed=0, reward="mg", shares=None, videos=range(18), labelled=True, missing=(), **protocol):
        workdir, config = tmp_path / folder, make_config(seed, reward)
        split = Split.of([make_record(n, labelled) for n in videos])
        judge = WordJudge(missing)
        for stage, share in (shares or {"base": 0.0, "sft": 0.4, "control": 0.5, "mg_grpo": 0.9}).items():
            evaluate(Knowing(share, stage, **protocol), split, workdir, stage, judge, config)
        evaluate(Knowing(0.0, "mg_grpo", **protocol | {"blank_frames": True}), split, workdir, "mg_grpo", judge, config)
        evaluate_chance(Split.of([make_record(n, labelled) for n in range(100, 112)]), split, workdir, judge, config)
        (workdir / "config.json").write_text(json.dumps(json.loads(config.to_json())))
        return workdir

    return make
