"""The endpoint judge against a real server on loopback that fails by script."""

import asyncio
import dataclasses
import json
import logging
import re
import threading
import time
from typing import ClassVar

import pytest
from ml_collections import ConfigDict

from evads_jax.errors import UserError
from evads_jax.judge.budget import Budget, BudgetSpent
from evads_jax.judge.cache import VerdictCache
from evads_jax.judge.endpoint import ChatReply, Endpoint, EndpointSettings
from evads_jax.judge.http import HttpReply
from evads_jax.judge.openai import OpenAIJudge, from_config
from evads_jax.judge.pace import EndpointDown
from evads_jax.judge.verdict import GRID, Missing, Verdict

from .asking import make, requests, right
from .server import CONTENT, TRANSPORT, Script, Server


def test_good_replies_are_read_and_nothing_is_asked_twice(tmp_path):
    with Server(Script()) as server:
        judge = make(server, tmp_path, {"prices": (("judge", 1.0, 10.0),)})
        verdicts = judge.judge(requests(30))
        assert all(right(verdicts))
        assert len(server.times) == 30
        assert sum(v.cost for v in verdicts) == pytest.approx(judge.budget.spent) == pytest.approx(30 * 200 / 1e6)
        again = make(server, tmp_path).judge(requests(30))
        assert [v.score for v in again] == [v.score for v in verdicts]
        assert all(v.cost == 0 for v in again)
        assert len(server.times) == 30
        assert server.connections <= 16 + 2


@pytest.mark.parametrize("fault", [*TRANSPORT, *CONTENT, "slow"])
def test_every_fault_ends_in_the_right_verdict(tmp_path, fault):
    with Server(Script(share=0.5, faults=(fault,), hang=1.5, seed=5)) as server:
        judge = make(server, tmp_path, {"timeout": 0.3, "retries": 30}, malformed_retries=30)
        assert all(right(judge.judge(requests(8))))
        assert server.faults[fault] > 0
        assert set(server.delivered.values()) == {1}


def test_mixed_faults_end_in_right_verdicts_or_typed_missing_ones_and_no_verdict_is_paid_twice(tmp_path):
    with Server(Script(share=0.3, hang=1.5)) as server:
        judge = make(server, tmp_path, {"timeout": 0.5})
        verdicts = judge.judge(requests(150))
        assert all(ok or isinstance(v, Missing) for ok, v in zip(right(verdicts), verdicts, strict=True))
        assert sum(right(verdicts)) >= 145
        assert max(server.delivered.values()) == 1
        before = len(server.times)
        judge.judge(requests(150))
        assert len(server.times) - before <= 4 * sum(isinstance(v, Missing) for v in verdicts)


def test_a_malformed_reply_is_asked_for_again_with_a_changed_request_that_holds_none_of_its_words(tmp_path):
    with Server(Script(answer=lambda messages: "BANANA Score: 1. BANANA\nScore: 1. BANANA")) as server:
        judge = make(server, tmp_path, malformed_retries=2)
        (verdict,) = judge.judge(requests(1))
        assert isinstance(verdict, Missing)
        first, second, third = (payload["messages"][-1]["content"] for payload in server.payloads)
        assert first != second == third
        assert "could not be used (not a value)" in second
        assert "BANANA" not in second
        assert judge.report()["malformed"] == 3


def test_equal_requests_share_one_call(tmp_path):
    with Server(Script()) as server:
        verdicts = make(server, tmp_path, {"prices": (("j", 1.0, 1.0),)}).judge(requests(1) * 20)
        assert len(server.times) == 1
        assert len({v.score for v in verdicts}) == 1
        assert [v.cost > 0 for v in verdicts] == [True] + [False] * 19


def test_no_more_than_the_configured_number_is_under_way_and_the_rate_is_kept(tmp_path):
    with Server(Script(latency=0.05)) as server:
        judge = make(server, tmp_path, {"concurrency": 3})
        judge.judge(requests(12))
        assert server.most_under_way == 3
    with Server(Script()) as server:
        judge = make(server, tmp_path / "b", {"requests_per_minute": 3000})
        judge.judge(requests(60))
        assert 50 * 0.85 < 59 / (server.times[-1] - server.times[0]) < 50 * 1.15
    with Server(Script()) as server:
        judge = make(server, tmp_path / "c", {"tokens_per_minute": 300_000, "max_tokens": 100})
        judge.judge(requests(20))
        assert server.times[-1] - server.times[0] > 19 * 500 / 5000


def test_an_empty_candidate_is_worth_nothing_and_costs_nothing(tmp_path):
    with Server(Script()) as server:
        (verdict,) = make(server, tmp_path).judge([dataclasses.replace(requests(1)[0], candidate=" \n")])
        assert verdict == Verdict(0.0, "empty")
        assert not server.times


def joint_reply(messages) -> str:
    worth = dict(re.findall(r"\[BEGIN (answer|trace) \w+\]\n\w+ \d+ worth ([\d.]+)", messages[-1]["content"]))
    return json.dumps({"reason": "r", **{k: float(v) for k, v in worth.items()}}) if worth else '{"score": 0.5}'


def test_answer_and_trace_are_judged_in_one_call_where_each_has_its_partner(tmp_path):
    with Server(Script(answer=joint_reply)) as server:
        judge = make(server, tmp_path, joint=True)
        answers, traces = requests(5), requests(5, "trace")[::-1]
        verdicts = judge.judge([*answers, *traces])
        assert [v.score for v in verdicts[:5]] == list(GRID)
        assert [v.score for v in verdicts[5:]] == list(GRID[::-1])
        assert len(server.times) == 5
        judge.judge([*requests(4), *requests(3, "trace")])
        assert len(server.times) == 12
        half = [dataclasses.replace(requests(2)[1], candidate=""), requests(3)[2], *requests(3, "trace")[:2]]
        empty, *others = make(server, tmp_path / "b", joint=True).judge(half)
        assert (empty.reason, len(server.times)) == ("empty", 14)
        assert [v.score for v in others] == [0.5, 0.5, 0.25]  # the trace without partner is judged alone


def test_half_of_a_joint_verdict_is_kept_and_stays_when_the_other_half_comes(tmp_path):
    replies = ['{"answer": 0.75}', '{"answer": 0.75}', '{"answer": 0.25, "trace": 0.5}']
    with Server(Script(answer=lambda messages: replies.pop(0))) as server:
        asked = [requests(1)[0], requests(1, "trace")[0]]
        answer, trace = make(server, tmp_path, joint=True, malformed_retries=1).judge(asked)
        assert (answer.score, isinstance(trace, Missing)) == (0.75, True)
        answer, trace = make(server, tmp_path, joint=True).judge(asked)
        assert (answer.score, trace.score) == (0.75, 0.5)
        answer, trace = make(server, tmp_path, joint=True).judge(asked)
        assert (answer.score, trace.score) == (0.75, 0.5)
        assert replies == []


def test_another_repeat_another_model_and_another_sampling_have_verdicts_of_their_own(tmp_path):
    with Server(Script(models=())) as server:
        for options in ({}, {"repeat": 1}, {"prompts": "v1", "language": "zh"}):
            make(server, tmp_path, **options).judge(requests(2))
        for settings in ({"model": "judge-2"}, {"temperature": 1.0}, {"seed": 3}):
            make(server, tmp_path, settings).judge(requests(2))
        assert len(server.times) == 12


class TestBreaker:
    def test_an_outage_pauses_the_run_and_leaves_no_verdict_missing(self, tmp_path):
        lines = []
        with Server(Script(down=True)) as server:
            judge = make(server, tmp_path, {"retries": 2}, log=lines.append)

            def recover():
                time.sleep(0.8)
                server.script.down = False

            threading.Thread(target=recover).start()
            verdicts = judge.judge(requests(40))
            assert all(right(verdicts))
            asked_while_down = server.faults["503"]
        assert asked_while_down < 40
        assert any("paused" in line for line in lines)
        assert any("answers again" in line for line in lines)

    def test_a_single_request_is_not_given_up_while_nothing_else_succeeds(self, tmp_path):
        with Server(Script(down=True)) as server:
            judge = make(server, tmp_path, {"retries": 0, "patience": 0.3})
            with pytest.raises(EndpointDown, match="nothing received is lost"):
                judge.judge(requests(1))

    def test_failures_during_a_pause_are_charged_to_no_request(self):
        endpoint = Endpoint(EndpointSettings("http://h", "m", key_env="", retries=0), Budget("m", ()))
        good = ChatReply("Score: 0.5", True, 1, 1, 0.0)
        outcomes = [("HTTP 503", None)] * 3 + [(good, None)]

        async def attempt(payload, expected):
            endpoint._successes += 1  # others' successes, so that giving up would be allowed
            endpoint.breaker.is_open = len(outcomes) > 1
            return outcomes.pop(0)

        endpoint._attempt = attempt
        assert asyncio.run(endpoint.complete([{"role": "user", "content": "x"}])) is good

    def test_many_retries_pause_the_run_too(self, tmp_path):
        lines = []
        with Server(Script(share=0.5, faults=("500",))) as server:
            settings = {"retry_share": 0.1, "breaker_failures": 100, "retries": 100}
            assert all(right(make(server, tmp_path, settings, log=lines.append).judge(requests(20))))
        assert any("too many retries" in line for line in lines)


class TestMoney:
    PRICED: ClassVar = {"prices": (("judge", 10.0, 100.0),), "max_tokens": 20}

    def test_work_that_costs_too_much_is_refused_before_anything_is_sent(self, tmp_path):
        lines = []
        with Server(Script()) as server:
            judge = make(server, tmp_path, {**self.PRICED, "max_cost": 0.05}, log=lines.append)
            with pytest.raises(BudgetSpent, match=r"judge\.max_cost=0\.05"):
                judge.judge(requests(100))
            assert not server.times
        assert lines[0].startswith("judge judge-1: 100 calls, about ")

    def test_a_budget_that_is_spent_on_the_way_keeps_what_came_and_holds_over_restarts(self, tmp_path):
        with Server(Script(share=0.3, faults=CONTENT)) as server:
            settings = {**self.PRICED, "max_cost": 0.12}
            judge = make(server, tmp_path, settings, run="W")
            verdicts = []

            def go_on():
                for start in range(0, 100, 5):
                    verdicts.extend(judge.judge(requests(start + 5)[start:]))

            with pytest.raises(BudgetSpent):
                go_on()
            assert 0 < judge.budget.spent <= 0.12
            again = make(server, tmp_path, settings, run="W")
            assert again.budget.spent == pytest.approx(judge.budget.spent)
            before = len(server.times)
            known = [r for r, v in zip(requests(len(verdicts)), verdicts, strict=True) if isinstance(v, Verdict)]
            assert len(again.judge(known)) == len(known) > 10
            assert len(server.times) == before
            assert make(server, tmp_path, settings, run="other").budget.spent == 0

    def test_a_verdict_that_came_before_the_budget_was_spent_is_kept_though_its_other_half_is_missing(self, tmp_path):
        priced = {"prices": (("judge", 0.0, 100_000.0),), "max_tokens": 20, "max_cost": 2.5}  # 1 a reply, at most 2
        with Server(Script(answer=lambda messages: '{"answer": 0.75}')) as server:
            judge = make(server, tmp_path, priced, joint=True)
            with pytest.raises(BudgetSpent):
                judge.judge([requests(1)[0], requests(1, "trace")[0]])
            assert len(server.times) == len(judge.cache) == 1
            assert judge.cache.claim(judge._key([requests(1)[0], requests(1, "trace")[0]]))

    def test_a_dry_run_shows_ten_requests_and_sends_none(self, tmp_path):
        lines = []
        with Server(Script()) as server:
            judge = make(server, tmp_path, dry_run=True, log=lines.append)
            with pytest.raises(SystemExit) as left:
                judge.judge(requests(12))
            assert left.value.code == 0
            assert server.connections == 0
        assert len(lines) == 11
        assert "answer 3 worth 0.75" in lines[3]
        assert "12 calls" in lines[-1]


class TestOneClearLine:
    SECRET = "sk-very-secret-0123456789"

    def test_no_key(self, tmp_path, monkeypatch):
        monkeypatch.delenv("JUDGE_KEY", raising=False)
        settings = EndpointSettings("https://judge.invalid/v1", "m", key_env="JUDGE_KEY")
        with pytest.raises(UserError, match=r"no key \[JUDGE_KEY\]"):
            OpenAIJudge(settings, cache=VerdictCache(tmp_path / "c"))

    def test_an_unreachable_host(self, tmp_path):
        with Server(Script()) as server:
            pass
        with pytest.raises(UserError, match=r"cannot connect to 127\.0\.0\.1"):
            make(server, tmp_path)

    def test_an_unknown_model_is_told_with_its_neighbours(self, tmp_path):
        with (
            Server(Script(models=("judge-10", "other"))) as server,
            pytest.raises(UserError, match=r"does not know the model 'judge-1'.*it has judge-10"),
        ):
            make(server, tmp_path)

    def test_an_endpoint_that_lists_no_models_is_not_one_without_the_model(self, tmp_path):
        endpoint = Endpoint(EndpointSettings("http://h", "m", key_env=""), Budget("m", ()))

        async def request(*_, **__):
            return HttpReply(404, {}, b"Cannot GET /v1/models")

        endpoint._http.request = request
        asyncio.run(endpoint.check())

    @pytest.mark.parametrize(
        ("reason", "finished"), [("stop", True), ("length", False), ("eos_token", None), (None, None), ([], None)]
    )
    def test_only_what_is_known_to_be_cut_off_is_read_as_such(self, reason, finished):
        endpoint = Endpoint(EndpointSettings("http://h", "m", key_env=""), Budget("m", ()))
        body = json.dumps({"choices": [{"message": {"content": "Score: 0.5"}, "finish_reason": reason}]}).encode()
        assert endpoint._read(HttpReply(200, {}, body), {}, 1).finished is finished

    def test_a_key_that_is_none_takes_nothing_out_of_a_reply(self, tmp_path, monkeypatch):
        monkeypatch.setenv("JUDGE_KEY", "e")
        with Server(Script()) as server:
            assert all(right(make(server, tmp_path, {"key_env": "JUDGE_KEY"}).judge(requests(5))))

    def test_the_section_that_is_meant_is_the_one_that_is_named(self):
        with pytest.raises(UserError, match=r"policy\.max_cost.*\[policy\.prices\]"):
            Budget("m", (), 1.0, section="policy")
        with pytest.raises(BudgetSpent, match=r"raise policy\.max_cost"):
            Budget("m", (("m", 1.0, 1.0),), 0.0, section="policy").reserve(1, 1)
        with pytest.raises(UserError, match=r"\[policy\.base_url\]"):
            Endpoint(EndpointSettings("ftp://h", "m", key_env=""), Budget("m", ()), section="policy")

    def test_a_wrong_path(self, tmp_path):
        with Server(Script(models=())) as server:
            judge = make(server, tmp_path, {"base_url": server.url + "/v2"})
            with pytest.raises(UserError, match="no /chat/completions"):
                judge.judge(requests(1))

    @pytest.mark.parametrize(
        "url", ["judge.example/v1", "ftp://h/v1", "http://key@h/v1", "http://h/v1?key=1", "http://"]
    )
    def test_what_is_no_base_url(self, tmp_path, url):
        with pytest.raises(UserError, match="base URL"):
            OpenAIJudge(EndpointSettings(url, "m", key_env=""), cache=VerdictCache(tmp_path / "c"), check=False)

    def test_config_fields(self):
        config = ConfigDict({"kind": "openai", "base_url": None, "model": "m"})
        with pytest.raises(UserError, match=r"judge\.base_url"):
            EndpointSettings.from_config(config, "judge")
        config = ConfigDict({"base_url": "http://h", "model": "m", "body": "[]"})
        with pytest.raises(UserError, match=r"judge\.body"):
            EndpointSettings.from_config(config, "judge")

    def test_the_key_is_sent_and_stands_in_no_error_log_or_file(self, tmp_path, monkeypatch, caplog, capfd):
        caplog.set_level(logging.DEBUG)
        monkeypatch.setenv("JUDGE_KEY", self.SECRET)
        with Server(Script(key=self.SECRET, answer=lambda m: f"You sent {self.SECRET}. Score: ?")) as server:
            judge = make(server, tmp_path, {"key_env": "JUDGE_KEY"}, log=print)
            (verdict,) = judge.judge(requests(1))
            assert isinstance(verdict, Missing)
            monkeypatch.setenv("JUDGE_KEY", "sk-another-secret")
            with pytest.raises(UserError, match="refuses the key") as error:
                make(server, tmp_path, {"key_env": "JUDGE_KEY"})
            (good,) = [p for p in (tmp_path / "cache").parent.iterdir() if p.name == "cache"]
        seen = [repr(verdict), repr(judge.report()), repr(judge.description), str(error.value), repr(error.value)]
        seen += [caplog.text, *capfd.readouterr(), good.read_bytes().decode("latin-1")]
        assert not any(secret in text for text in seen for secret in (self.SECRET, "sk-another-secret"))
        assert "You sent [key]" in verdict.raw

    def test_a_request_that_the_endpoint_refuses_is_missing_and_the_others_go_on(self, tmp_path):
        settings = {"body": '{"max_tokens": null, "top_k": 1}'}
        with Server(Script()) as server:
            judge = make(server, tmp_path, settings)
            assert all(right(judge.judge(requests(3))))
            assert all("max_tokens" not in p and p["top_k"] == 1 and "seed" not in p for p in server.payloads)
        reply = type("R", (), {"status": 400, "body": b'{"error": "too long"}', "headers": {}})
        endpoint = Endpoint(EndpointSettings(server.url, "m", key_env=""), judge.budget)
        assert "HTTP 400" in endpoint._read(reply, {}, 1).reason


def test_a_config_section_makes_the_judge(tmp_path):
    with Server(Script()) as server:
        config = ConfigDict({"kind": "openai", "base_url": server.url, "model": "judge-1", "key_env": ""})
        config.update({"cache": str(tmp_path / "x"), "joint": True, "prices": (("judge", 1, 2),), "max_cost": 1.0})
        judge = from_config(config, "zh", workdir=tmp_path, log=str)
        assert all(right(judge.judge(requests(5))))
        assert judge.cache.spent(str(tmp_path.resolve())) > 0
        judge.close()
