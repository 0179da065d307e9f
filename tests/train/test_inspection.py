"""The job `inspect` on folders of the small world: which completions are shown, in which order."""

import runpy
from pathlib import Path

import pytest

from evads_jax.benchmark.evaluate import evaluate
from evads_jax.benchmark.files import Split
from evads_jax.errors import UserError
from evads_jax.train import completions, inspection
from tests.benchmark.small_world import Knowing, WordJudge, make_config, make_record

CONFIGS = Path(__file__).parents[2] / "configs"


def make_run(folder, shares, missing=()):
    split = Split.of([make_record(n) for n in range(6)])
    for stage, share in shares.items():
        evaluate(Knowing(share, stage), split, folder, stage, WordJudge(missing), make_config())
    return folder


def shown(capsys, **fields):
    config = runpy.run_path(str(CONFIGS / "inspect.py"))["get_config"]()
    config.update_from_flattened_dict({name: str(v) if isinstance(v, Path) else v for name, v in fields.items()})
    inspection.run(config)
    return capsys.readouterr().out


def test_the_last_stage_is_shown_and_scores_missing_verdicts_and_texts_filter(tmp_path, capsys):
    run = make_run(tmp_path / "a", {"sft": 0.0, "mg_grpo": 1.0}, missing={("v3", "CM")})
    assert "30 of 30 completions fit the filter, 20 shown" in shown(capsys, run=run)
    out = shown(capsys, run=run, missing=True)
    assert "1 of 30" in out
    assert "[mg_grpo]" in out
    assert "missing  no reply" in out
    assert "1 of 30" in shown(capsys, run=run, stage="sft", contains="CLAIM 3")
    assert "24 of 30" in shown(capsys, run=run, stage="sft", highest=0.9)  # only the red kettle's five are right
    assert "6 of 30" in shown(capsys, run=run, stage="sft", task="BP")
    assert "0 of 30" in shown(capsys, run=run, highest=0.5)


def test_two_runs_are_shown_side_by_side_the_worst_losses_first(tmp_path, capsys):
    a, b = make_run(tmp_path / "a", {"sft": 0.5}), make_run(tmp_path / "b", {"sft": 1.0})
    out = shown(capsys, run=a, against=b, difference=0.75, limit=0)
    first = out.split("─" * 110)[1]
    assert first.index("[a, sft]") < first.index("[b, sft]")
    assert "A red kettle" in first
    assert shown(capsys, run=b, against=a, difference=0.75, limit=0).count("[b, sft]") == out.count("[b, sft]")
    with pytest.raises(UserError, match="a difference to what"):
        shown(capsys, run=a, difference=0.5)


def test_what_training_learned_from_is_shown_by_step(tmp_path, capsys):
    text = "<think>odd \x1b[31m</think><answer>red</answer>"
    row = {
        "step": 2, "prompt_id": "q", "video": "v", "task": "BP", "sample": 1, "question": "Which?", "reference": "Red.",
        "text": text, "answer_score": 0.75, "answer_reason": "ok", "trace_score": None, "trace_reason": "cut off",
        "reward": None, "advantage": 0.5,
    }  # fmt: skip
    completions.write(completions.path_of(tmp_path, "mg_grpo", 2), [row])
    out = shown(capsys, run=tmp_path, source="training")
    assert "mg_grpo, step 2, sample 1" in out
    assert "missing  cut off" in out
    assert "\x1b" not in out  # nothing that a completion holds reaches the terminal as a command
    with pytest.raises(UserError, match="it has steps 2 to 2"):
        shown(capsys, run=tmp_path, source="training", step=7)


def test_what_is_not_there_is_told(tmp_path, capsys):
    run = make_run(tmp_path / "a", {"sft": 0.5})
    for fields, told in (
        ({"run": None}, "no run"),
        ({"run": tmp_path}, "no evaluation here"),
        ({"run": run, "stage": "mg_grpo"}, "it has sft"),
        ({"run": run, "task": "XX"}, "unknown task"),
        ({"run": run, "source": "dreams"}, "unknown source"),
        ({"run": run, "step": 2}, "an evaluation has no steps"),
    ):
        with pytest.raises(UserError, match=told):
            shown(capsys, **fields)
