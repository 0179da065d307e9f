"""The whole job, from a config to tables and report, on drawn ads and a model of a few thousand parameters."""

import gc
import json
import runpy
import signal
import types
from pathlib import Path

import jax
import pytest

from evads_jax.data.tokenizer import load_tokenizer
from evads_jax.errors import UserError
from evads_jax.events import read_events
from evads_jax.judge import make_judge
from evads_jax.models import partitioning
from evads_jax.train import experiment, grpo
from evads_jax.train.preemption import Preempted, Preemption
from tests.train.side_by_side import side_by_side

CONFIGS = Path(__file__).parents[2] / "configs"
STAGES = ("base", "sft", "mg_grpo", "control")


def small(**changes):
    config = runpy.run_path(str(CONFIGS / "mg_grpo.py"))["get_config"]("smoke")
    config.data.update(videos_sft=4, videos_rl=4, videos_validation=2, videos_test=2, records_per_shard=4)
    config.data.update(frame_size=32, prompt_tokens=232)
    config.model.update(
        width=16, layers=2, heads=2, kv_heads=1, head_width=8, mlp_width=16, mrope_sections=(2, 1, 1),
        vision_width=8, vision_layers=1, vision_heads=1, vision_mlp_width=8, vision_position_grid=2,
        vision_deepstack=(0,),
    )  # fmt: skip
    config.sft.update(batch_videos=2, max_steps=2, validate_every=2)
    config.rl.update(batch_prompts=2, group=2, max_steps=1, max_new_tokens=8)
    config.eval.update(batch_prompts=4, max_new_tokens=8, bootstrap=50)
    config.control.steps = 1
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("experiment") / "w"
    experiment.run(small(), workdir)
    return workdir


def test_every_stage_is_evaluated_and_shown(finished):
    for stage in (*STAGES, "chance", "mg_grpo_blanked"):
        summary = json.loads((finished / "evaluation" / stage / "summary.json").read_text())
        assert summary["n"] == 10
        assert set(summary["tasks"]) == {"BP", "CM", "ML", "CI", "RC", "all"}
    assert (finished / "tables" / "main.md").exists()
    report = (finished / "report.html").read_text()
    assert all(stage in report for stage in STAGES)


def test_the_control_has_the_steps_that_sft_does_in_the_time_of_grpo(monkeypatch):
    records = {"sft": {"step": 400, "seconds": 300.0}, "mg_grpo": {"step": 40, "seconds": 150.0}}
    monkeypatch.setattr(experiment, "finished", lambda folder, stage: records[stage])
    assert experiment._control_steps(Path("w"), Path("w")) == 200
    records["mg_grpo"]["seconds"] = 0.1
    assert experiment._control_steps(Path("w"), Path("w")) == 1


def test_a_second_call_asks_and_trains_nothing_again(finished):
    kept = ("events.jsonl", *(f"evaluation/{stage}/predictions.jsonl" for stage in STAGES))
    before = [(finished / name).read_bytes() for name in kept]
    experiment.run(small(), finished)
    assert [(finished / name).read_bytes() for name in kept] == before


def test_the_events_tell_each_stage_once_and_the_environment(finished):
    assert [event["stage"] for event in read_events(finished, "stage_end")] == ["sft", "mg_grpo", "control"]
    (run,) = read_events(finished, "run")
    assert run["environment"]["jax"]
    assert run["config"]["rl"]["reward"] == "mg"


def test_another_reward_starts_from_the_sft_of_an_earlier_run(finished, tmp_path):
    changes = {"rl.reward": "strict", "run.sft_from": str(finished), "run.stages": ("mg_grpo",), "eval.blank_too": ()}
    experiment.run(small(**changes), tmp_path / "strict")
    assert not (tmp_path / "strict" / "shards").exists()
    assert (tmp_path / "strict" / "evaluation" / "mg_grpo" / "summary.json").exists()


class Watching:
    """A judge that looks, when it is asked, how many arrays of the token table's shape there are."""

    def __init__(self, judge, vocabulary):
        self._judge, self._vocabulary, self.held = judge, vocabulary, []

    def __getattr__(self, name):
        return getattr(self._judge, name)

    def judge(self, requests):
        shapes = [array.shape for array in jax.live_arrays() if not array.is_deleted()]
        self.held.append(shapes.count((self._vocabulary, 16)))
        return self._judge.judge(requests)


@pytest.mark.parametrize("earlier", [False, True], ids=["after_sft", "sft_from"])
def test_a_step_holds_parameters_moments_and_reference_and_no_other_copy(finished, tmp_path, monkeypatch, earlier):
    gc.collect()
    vocabulary = load_tokenizer("sentencepiece", finished / "tokenizer").size
    before = [array.shape for array in jax.live_arrays()].count((vocabulary, 16))
    watching = []

    def watched(*arguments):
        watching.append(Watching(make_judge(*arguments), vocabulary))
        return watching[-1]

    monkeypatch.setattr(grpo, "make_judge", watched)
    changes = {"run.stages": ("base", "sft", "mg_grpo"), "eval.blank_too": (), "rl.max_steps": 2}
    if earlier:
        changes |= {"run.sft_from": str(finished), "run.stages": ("base", "mg_grpo")}
    experiment.run(small(**changes), tmp_path / "w")
    _, second = (count - before for count in watching[0].held)  # during the first a checkpoint may be being written
    assert second == 4  # by these is counted what a slice must hold (compile_count.Resident)


def test_a_work_directory_of_another_config_is_refused(finished):
    with pytest.raises(UserError, match=r"rl\.group was 2, is 3"):
        experiment.run(small(**{"rl.group": 3}), finished)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"run.stages": ("base", "rlhf")}, "unknown stage 'rlhf'"),
        ({"run.stages": ("sft", "base")}, "out of order"),
        ({"run.stages": ("base", "mg_grpo")}, "starts from sft"),
        ({"run.stages": ("sft", "control"), "control.steps": None}, "lasts as long as mg_grpo"),
        ({"run.sft_from": "/nowhere"}, "no finished sft stage"),
        ({"rl.optimizer": "lion"}, r"unknown optimizer 'lion' \[config\.rl\.optimizer\]: one of adamw, muon"),
        ({"rl.optimizer": "muon"}, r"muon needs adam_learning_rate, .* \[config\.rl\.optimizer\]"),
        ({"rl.learning_rate": 0.0}, r"learning_rate must be above 0, got 0\.0 \[config\.rl\.learning_rate\]"),
        ({"tokenizer.path": "/nowhere"}, "no readable tokenizer"),
        ({"rl.loss": "ppo"}, "unknown loss 'ppo'"),
        ({"model.head_width": 6}, "mrope_sections must be three numbers that sum to head_width / 2"),
        ({"mesh.tp": 3}, "tp 3 does not divide the model's 2 heads"),
        ({"mesh.fsdp": 4096}, "needs 4096 devices"),
        ({"rl.compact": (1,), "mesh.fsdp": 2}, r"one device only.*config\.rl\.compact"),
        ({"judge.kind": "oracle"}, "unknown judge 'oracle'"),
    ],
)
def test_what_cannot_work_is_refused_before_the_folder_is_made(tmp_path, changes, told):
    with pytest.raises(UserError, match=told):
        experiment.run(small(**changes), tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_every_batch_must_divide_among_the_processes_before_anything_is_made(monkeypatch):
    mesh = types.SimpleNamespace(shape={"data": 1, "fsdp": 4, "tp": 1})
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(partitioning, "mesh_of", lambda section: mesh)
    monkeypatch.setattr(
        partitioning, "rows_by_process", lambda batch, mesh: {0: range(batch // 2), 1: range(batch // 2)}
    )
    sizes = {"eval.batch_prompts": 8, "sft.batch_videos": 4, "rl.batch_prompts": 4}
    experiment._check_batches(small(**sizes))
    for field in sizes:
        with pytest.raises(UserError, match=rf"a batch of 6 does not divide .* \[config\.{field}\]"):
            experiment._check_batches(small(**sizes | {field: 6}))


def test_sigterm_to_one_process_ends_the_evaluation_of_all_after_the_same_turn(monkeypatch):
    told = [[], []]

    def work(index):
        with experiment._ending_together(told[index].append) as log:
            preemption = made[index]
            for turn in range(4):
                if index == 0 and turn == 2:
                    preemption._note(signal.SIGTERM, None)
                log(turn)

    made: dict[int, Preemption] = {}

    def noted():
        return made.setdefault(jax.process_index(), Preemption())

    monkeypatch.setattr(experiment, "Preemption", noted)
    ended = side_by_side(monkeypatch, 2, work)
    assert all(isinstance(error, Preempted) for error in ended)
    assert told == [[0, 1, 2]] * 2
