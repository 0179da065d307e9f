"""The job `evaluate` on a tiny model and drawn ads, with each kind of judge; and what it refuses."""

import json
import runpy
from pathlib import Path

import pytest

from evads_jax.benchmark.files import read_lines
from evads_jax.errors import UserError
from evads_jax.train import evaluation, inspection
from tests.judge.server import Script, Server
from tests.train import tiny_run

CONFIGS = Path(__file__).parents[2] / "configs"
QUESTIONS = 10


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tiny_run.make(tmp_path_factory.mktemp("runs") / "tiny")


def evaluate(trained, workdir, variant="run", **changes):
    config = runpy.run_path(str(CONFIGS / "evaluate.py"))["get_config"](variant)
    flat = {"eval.bootstrap": 50, "eval.batch_prompts": 4} | ({"policy.run": str(trained)} if variant == "run" else {})
    config.update_from_flattened_dict(flat | changes)
    evaluation.run(config, workdir)
    (summary,) = (workdir / "evaluation").glob("*/summary.json")
    return json.loads(summary.read_text())


def worth(messages):
    """A verdict that depends on the request alone."""
    return json.dumps({"reason": "by length", "score": (0, 0.25, 0.5, 0.75, 1)[len(messages[-1]["content"]) % 5]})


def test_the_lexical_judge_and_everything_that_the_summary_records(trained, tmp_path, capsys):
    summary = evaluate(trained, tmp_path, **{"eval.samples": 2})
    assert summary["stage"] == "mg_grpo"
    assert set(summary["tasks"]) == {"BP", "CM", "ML", "CI", "RC", "all"}
    assert summary["split"]["questions"] == QUESTIONS
    assert summary["n"] == 2 * QUESTIONS
    assert summary["weights"].startswith("mg_grpo, step 3, tiny@")
    assert summary["judge"] == {"kind": "lexical", "name": "lexical", "language": "en"}
    # Frames, format and limits are the run's own; T and samples those that were asked for.
    assert summary["protocol"] == {
        "name": "paper", "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 8, "format": "sft_released",
        "language": "en", "prompt_tokens": 512, "frame_rate": 1.0, "max_frames": 2, "frame_size": 32,
        "blank_frames": False, "samples": 2,
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "tables").iterdir()} >= {"main.md", "main.html", "main_R5.csv"}
    questions = read_lines(tmp_path / "evaluation" / "mg_grpo" / "questions.jsonl")
    assert len(questions) == QUESTIONS
    assert all(row["question"] and row["reference"] for row in questions)
    before = (tmp_path / "evaluation" / "mg_grpo" / "predictions.jsonl").read_bytes()
    evaluate(trained, tmp_path, **{"eval.samples": 2})
    assert (tmp_path / "evaluation" / "mg_grpo" / "predictions.jsonl").read_bytes() == before
    assert "10 questions of 2 videos" in capsys.readouterr().out


def test_a_judge_behind_an_endpoint_asked_twice_beside_a_second_judge(trained, tmp_path, capsys):
    with Server(Script(answer=worth)) as server:
        endpoint = {"base_url": server.url, "model": "judge-1", "key_env": "", "cache": str(tmp_path / "cache")}
        judge = {"judge.kind": "openai", "judge.repeats": 2, "second_judge.kind": "lexical"}
        judge |= {f"judge.{name}": value for name, value in endpoint.items()}
        summary = evaluate(trained, tmp_path / "W", **judge)
        texts = {row["answer"] for row in read_lines(tmp_path / "W" / "evaluation" / "mg_grpo" / "verdicts.jsonl")}
        asked = len(server.times)
        assert asked == 2 * (QUESTIONS if "" not in texts else asked // 2)
        assert evaluate(trained, tmp_path / "W", **judge)["tasks"] == summary["tasks"]
        assert len(server.times) == asked
    again, second = summary["repeatability"], summary["second_judge"]
    assert (again["judgements"], again["answers"], again["agreement"]["mean"]) == (2, QUESTIONS, 1.0)
    assert second["judge"] == {"kind": "lexical", "name": "lexical"}
    assert second["answers"] == QUESTIONS
    assert second["kappa"]["ci95"] is None or len(second["kappa"]["ci95"]) == 2
    assert summary["judge"]["model"] == "judge-1"
    assert "key_env" not in summary["judge"]
    out = capsys.readouterr().out
    assert "the judge asked again" in out
    assert "hit_rate" in out


def test_the_projects_own_model_as_the_judge(trained, tmp_path):
    summary = evaluate(trained, tmp_path, **{"judge.kind": "local", "judge.path": str(trained / "judge")})
    assert summary["judge"]["name"] == "local"
    assert summary["tasks"]["all"]["R5"]["n"] == QUESTIONS
    assert summary["tasks"]["all"]["R5"]["n_missing"] == 0


def test_a_checkpoint_folder_says_what_the_stage_says(trained, tmp_path):
    ours = evaluate(trained, tmp_path / "a")
    own = {"frame_rate": 1.0, "max_frames": 2, "frame_size": 32, "prompt_tokens": 512, "format_eval": "sft_released"}
    changes = {f"data.{name}": value for name, value in own.items()} | {"data.shards": str(trained / "shards")}
    changes |= {"policy.path": str(trained / "exported"), "policy.dtype": "float32", "eval.max_new_tokens": 8}
    theirs = evaluate(trained, tmp_path / "b", "checkpoint", **changes)
    assert theirs["stage"] == "exported"
    assert theirs["protocol"] == ours["protocol"]
    rows = [
        read_lines(tmp_path / w / "evaluation" / n / "predictions.jsonl")
        for w, n in (("a", "mg_grpo"), ("b", "exported"))
    ]
    assert [row["completion"] for row in rows[0]] == [row["completion"] for row in rows[1]]


def test_inspect_prints_filters_and_writes(trained, tmp_path, capsys):
    evaluate(trained, tmp_path / "W")
    capsys.readouterr()
    config = runpy.run_path(str(CONFIGS / "inspect.py"))["get_config"]()
    written = {"jsonl": str(tmp_path / "found.jsonl"), "html": str(tmp_path / "found.html")}
    config.update_from_flattened_dict({"run": str(tmp_path / "W"), "task": "BP", **written})
    inspection.run(config)
    out = capsys.readouterr().out
    assert "2 of 10 completions fit the filter, 2 shown" in out
    assert "reference:" in out
    rows = read_lines(tmp_path / "found.jsonl")
    assert {row["task"] for row in rows} == {"BP"}
    assert rows[0]["answers"][0]["judgements"][0]["name"] == "lexical"
    assert "(reference)" in (tmp_path / "found.html").read_text()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"policy.run": None}, "no run"),
        ({"policy.run": "/nowhere"}, "no run here"),
        ({"policy.stage": "sft"}, "no finished stage sft.*it has mg_grpo"),
        ({"policy.kind": "oracle"}, "unknown policy 'oracle'"),
        ({"policy.kind": "endpoint"}, "no base_url"),
        ({"policy.kind": "checkpoint", "policy.path": "/nowhere"}, "/nowhere"),
        ({"judge.kind": "oracle"}, "unknown judge"),
        ({"judge.kind": "openai", "judge.base_url": "https://h.invalid/v1", "judge.model": "m",
          "judge.key_env": "NO_SUCH_KEY"}, "no key"),
        ({"judge.repeats": 0}, "judge.repeats"),
        ({"eval.protocol": "greedy", "eval.samples": 2}, "eval.samples"),
        ({"data.frame_size": 64}, "shards have frame_size 32"),
        ({"data.format_eval": "nonsense"}, "unknown prompt format"),
        ({"run.language": "fr"}, "unknown language"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_told_in_one_line_before_any_work(trained, tmp_path, changes, told):
    with pytest.raises(UserError, match=told) as error:
        evaluate(trained, tmp_path / "W", **changes)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "W").exists()
