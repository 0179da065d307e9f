"""A model behind an endpoint, evaluated against the loopback server of the judges' tests."""

import base64
import collections
import dataclasses
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from evads_jax.benchmark.endpoint_policy import EndpointPolicy
from evads_jax.benchmark.evaluate import evaluate
from evads_jax.benchmark.files import NoVideo, Split, read_lines
from evads_jax.benchmark.predict import NO_PREDICTION, NO_VIDEO, Failed, predict
from evads_jax.data import shards
from evads_jax.data.prompts import EVAL_SENTENCE
from evads_jax.errors import UserError
from evads_jax.judge.budget import BudgetSpent
from tests.judge.server import TRANSPORT, Script, Server

from .small_world import WordJudge, make_record

ROOT = Path(__file__).parents[2]
VIDEOS = 12


def record(number):
    """A video of the small world whose questions name themselves."""
    made = make_record(number)
    named = (dataclasses.replace(q, question=f"{q.question} ({q.id})") for q in made.questions)
    return dataclasses.replace(made, questions=tuple(named))


TRUTH = {q.id: q.answer for n in range(VIDEOS) for q in record(n).questions}


def about(messages):
    """The question that a request is about."""
    content = messages[-1]["content"]
    return re.search(r"\((v\d+-\w\w)\)", content if isinstance(content, str) else content[-1]["text"])[1]


def reply(messages):
    if isinstance(messages[-1]["content"], str):
        return '{"reason": "equal", "score": 1}'
    return f"<think>I see.</think>\n<answer>{TRUTH[about(messages)]}</answer>"


class Records(list):
    """Videos of which some are missing."""

    missing = ()

    def __getitem__(self, index):
        if index in self.missing:
            raise NoVideo("missing: no such file")
        return super().__getitem__(index)


@pytest.fixture
def split():
    return Split.of(Records(map(record, range(VIDEOS))))


def config(server, samples=1, **policy):
    fields = {"base_url": server.url, "model": "judge-1", "key_env": "", "timeout": 2.0, "back_off": 0.02}
    return ConfigDict(
        {
            "run": {"language": "en", "seed": 0},
            "policy": {**fields, "breaker_pause": 0.05, "concurrency": 4, "dry_run": False, **policy},
            "data": {"format_eval": "eval_released", "frame_rate": 1.0, "max_frames": 768, "frame_size": 448},
            "eval": {
                "protocol": "paper", "samples": samples, "max_new_tokens": 1524, "blank_frames": False,
                "bootstrap": 50, "shuffled": False,
            },
            "judge": {"kind": "words"},
        }
    )  # fmt: skip


def policy(server, split, folder, samples=1, **options):
    return EndpointPolicy(config(server, samples, **options), split, folder, log=options.pop("log", str))


def test_the_frames_go_as_jpegs_with_their_times_and_the_prompt_and_limits_are_the_papers(split, tmp_path):
    with Server(Script(answer=reply)) as server:
        completions = predict(policy(server, split, tmp_path, samples=2), split, tmp_path)
    assert len(completions) == 2 * len(split.examples)
    payload = next(p for p in server.payloads if about(p["messages"]) == "v3-CM")
    assert (payload["temperature"], payload["max_tokens"], payload["model"]) == (1.0, 1524, "judge-1")
    *shown, text = payload["messages"][0]["content"]
    assert [part["text"] for part in shown[::2]] == ["<0.0 seconds>", "<1.0 seconds>"]
    heads, frames = zip(*(part["image_url"]["url"].split(",") for part in shown[1::2]), strict=True)
    assert set(heads) == {"data:image/jpeg;base64"}
    assert tuple(map(base64.b64decode, frames)) == record(3).frames
    assert text["text"] == EVAL_SENTENCE + record(3).questions[1].question
    seeds = [p["seed"] for p in server.payloads]
    assert len(set(seeds)) == len(seeds)
    assert {about(p["messages"]) for p in server.payloads} == set(TRUTH)


def test_samples_are_averaged_and_more_of_them_ask_only_for_what_is_new(split, tmp_path):
    with Server(Script(answer=reply)) as server:
        for samples, asked in ((1, 60), (3, 180), (3, 180), (2, 180)):
            made = policy(server, split, tmp_path / "evaluation" / "m", samples)
            summary = evaluate(made, split, tmp_path, "m", WordJudge(), config(server, samples))
            assert len(server.times) == asked
            assert summary["n"] == summary["tasks"]["all"]["R5"]["n"] == 60 * samples
            assert summary["split"]["questions"] == 60
    assert summary["tasks"]["all"]["R5"]["mean_valid"] == 1.0
    assert summary["predictions"]["cost"] == 0.0
    assert summary["weights"].startswith("judge-1 at 127.0.0.1:")


def test_a_sick_endpoint_costs_no_completion(split, tmp_path):
    with Server(Script(share=0.3, faults=TRANSPORT, hang=3.0, answer=reply)) as server:
        completions = predict(policy(server, split, tmp_path, timeout=0.5, retries=12), split, tmp_path)
        assert sum(server.faults.values()) > 10
    assert completions == {i: f"<think>I see.</think>\n<answer>{answer}</answer>" for i, answer in TRUTH.items()}


class Refusing(Server):
    """Refuses what is asked about one video."""

    refused = "v5"

    async def _deliver(self, connection, writer, name, fault, text, payload):
        if about(payload["messages"]).startswith(f"{self.refused}-"):
            return await self._send(connection, writer, 400, {"error": "too many images"})
        return await super()._deliver(connection, writer, name, fault, text, payload)


def test_missing_videos_and_refused_requests_count_nothing_in_all_and_are_tried_again(split, tmp_path):
    split.records.missing = (2, 7)
    judge = WordJudge(missing={("v0", "BP")})
    with Refusing(Script(answer=reply)) as server:
        folder = tmp_path / "evaluation" / "m"
        completions = predict(policy(server, split, folder), split, folder)
        assert completions["v2-BP"] == Failed(NO_VIDEO, "missing: no such file")
        assert completions["v5-BP"].kind == NO_PREDICTION
        assert "HTTP 400" in completions["v5-BP"].reason
        summary = evaluate(policy(server, split, folder), split, tmp_path, "m", judge, config(server))
        entry, lacking = summary["tasks"]["all"]["R5"], summary["without_score"]["tasks"]["all"]
        assert (entry["mean_valid"], entry["n"], entry["n_missing"]) == (1.0, 60, 16)
        assert entry["mean_all_bounds"] == [pytest.approx(44 / 60), pytest.approx(45 / 60)]
        assert {k: lacking[k] for k in ("videos", "predictions", "verdicts")} == {
            "videos": 10, "predictions": 5, "verdicts": 1,
        }  # fmt: skip
        low, high = lacking["R5"]
        assert low < 44 / 60 < high <= 1
        assert summary["missing_videos"] == dict.fromkeys(("v2", "v7"), "missing: no such file")
        rows = len(read_lines(folder / "predictions.jsonl"))
        split.records.missing, server.refused = (), ""
        summary = evaluate(policy(server, split, folder), split, tmp_path, "m", WordJudge(), config(server))
    assert "without_score" not in summary
    assert summary["tasks"]["all"]["R5"]["mean_all_bounds"] == [1.0, 1.0]
    assert rows == 60  # what failed twice is written once
    assert collections.Counter(about(p["messages"]) for p in server.payloads)["v0-BP"] == 1


def test_work_that_costs_too_much_is_refused_and_a_spent_budget_holds_over_restarts(split, tmp_path):
    with Server(Script(answer=reply)) as server:
        paid = {"prices": (("judge", 0.0, 1000.0),)}  # 0.01 for each of the server's replies
        with pytest.raises(BudgetSpent, match=r"policy"):
            predict(policy(server, split, tmp_path, **paid, max_cost=1.0), split, tmp_path)
        assert server.times == []
        predict(policy(server, split, tmp_path, **paid), split, tmp_path)
        assert sum(row["cost"] for row in read_lines(tmp_path / "predictions.jsonl")) == pytest.approx(0.6)
        other = Split.of(Records(map(record, range(6))))  # another benchmark in the same folder
        with pytest.raises(BudgetSpent, match=r"0\.6000 are spent"):
            predict(policy(server, other, tmp_path, **paid, max_cost=0.7), other, tmp_path)
        assert len(server.times) == 60


def test_a_dry_run_shows_requests_and_their_cost_and_sends_none(split, tmp_path):
    lines = []
    with Server(Script()) as server:
        made = policy(server, split, tmp_path, dry_run=True, prices=(("judge", 1.0, 1.0),), log=lines.append)
        with pytest.raises(SystemExit):
            predict(made, split, tmp_path)
        assert server.connections == 0
    assert "frames at seconds 0.0, 1.0" in lines[0]
    assert "60 calls" in lines[-1]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model": "other"}, r"does not know the model 'other'"),
        ({"base_url": "http://127.0.0.1:9/v1"}, r"cannot connect.*policy\.base_url"),
        ({"base_url": "https://host.invalid/v1", "key_env": "NO_SUCH_KEY"}, r"no key \[NO_SUCH_KEY\]"),
        ({"base_url": None}, r"no base_url"),
        ({"max_cost": 1.0}, r"needs the price"),
    ],
)
def test_what_cannot_be_used_is_told_before_anything_is_asked(split, tmp_path, fields, told):
    with Server(Script()) as server, pytest.raises(UserError, match=told):
        policy(server, split, tmp_path, **fields)
    assert server.times == []


def command(server, folder):
    """The evaluation as a user starts it: a model and a judge behind endpoints, questions from shards."""
    endpoint = {"base_url": server.url, "model": "judge-1", "key_env": "", "concurrency": 4}
    flags = {f"{section}.{name}": value for section in ("policy", "judge") for name, value in endpoint.items()}
    flags |= {"judge.kind": "openai", "judge.cache": folder / "cache", "data.shards": folder / "shards"}
    flags |= {"run.language": "en", "eval.bootstrap": 50, "name": "model"}
    options = [f"--config.{name}={value}" for name, value in flags.items()]
    head = [sys.executable, "-m", "evads_jax.main", "--config=configs/evaluate.py:endpoint"]
    return [*head, f"--workdir={folder / 'W'}", *options]


def test_a_killed_evaluation_goes_on_and_asks_nothing_twice(tmp_path):
    shards.build(record, VIDEOS, tmp_path / "shards" / "test", split="test", recipe={})
    with Server(Script(latency=0.03, answer=reply)) as server:

        def asked(kind):
            found = [p["messages"] for p in list(server.payloads) if isinstance(p["messages"][-1]["content"], kind)]
            return collections.Counter(map(about, found))

        for kind, enough in ((list, 25), (str, 25)):  # while it predicts, then while it judges
            process = subprocess.Popen(command(server, tmp_path), cwd=ROOT, stdout=subprocess.DEVNULL)
            while asked(kind).total() < enough:
                assert process.poll() is None
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
        subprocess.run(command(server, tmp_path), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        # What was on its way to the disk at the moment of the kill is all that may be asked again: a prediction per
        # request under way, and of the judge, whose workers are four times as many, a verdict each.
        for kind, under_way in ((list, 4), (str, 16)):
            assert set(asked(kind)) == set(TRUTH)
            assert asked(kind).total() <= len(TRUTH) + under_way
            assert max(asked(kind).values()) <= 2
    rows = read_lines(tmp_path / "W" / "evaluation" / "model" / "predictions.jsonl")
    assert sorted(row["id"] for row in rows) == sorted(TRUTH)
    summary = json.loads((tmp_path / "W" / "evaluation" / "model" / "summary.json").read_text())
    assert summary["tasks"]["all"]["R5"]["mean_valid"] == 1.0
    assert summary["protocol"]["max_frames"] == 768
    assert summary["judge"]["model"] == "judge-1"
