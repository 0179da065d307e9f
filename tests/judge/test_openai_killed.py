"""The endpoint judge in a process of its own: killed and started again, and under a long load of faults."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evads_jax.judge.cache import VerdictCache
from evads_jax.judge.verdict import GRID

from .server import Script, Server

CLIENT = """
import json, sys
from evads_jax.judge.cache import VerdictCache
from evads_jax.judge.endpoint import EndpointSettings
from evads_jax.judge.openai import OpenAIJudge
from tests.judge.asking import requests
url, path, first, last, options = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), json.loads(sys.argv[5])
settings = EndpointSettings(url, "judge-1", key_env="", **options)
judge = OpenAIJudge(settings, cache=VerdictCache(path), log=str)
for start in range(first, last, 500):
    verdicts = judge.judge(requests(min(start + 500, last))[start:])
    # Its own peak: ru_maxrss is at least that of the process that started it.
    peak = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) / 1024
    print(json.dumps({"memory": peak, "scores": [getattr(v, "score", None) for v in verdicts]}), flush=True)
"""


def client(server: Server, path: Path, first: int, last: int, options: dict) -> subprocess.Popen:
    command = [sys.executable, "-c", CLIENT, server.url, str(path), str(first), str(last), json.dumps(options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def killed_and_resumed(path: Path, count: int, kill_after: int, options: dict, script: Script) -> tuple[Server, list]:
    """Runs `count` requests, kills the client after so many delivered verdicts, and runs them again."""
    with Server(script) as server:
        first = client(server, path, 0, count, options)
        while sum(server.delivered.values()) < kill_after:
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        first.wait()
        kept = VerdictCache(path)
        known = len(kept)
        delivered_before = set(server.delivered)
        server.attempts_before = sum(server.attempts.values())
        second = client(server, path, 0, count, options)
        out, _ = second.communicate(timeout=300)
        # Replies on their way to the client and to its disk at the moment of the kill are all that can be lost.
        assert 0 <= len(delivered_before) - known <= 4 * options["concurrency"]
        server.known = known
        return server, [json.loads(line) for line in out.splitlines()]


def test_a_killed_client_asks_only_for_what_is_missing(tmp_path):
    options = {"concurrency": 4, "timeout": 2.0, "back_off": 0.02}
    server, lines = killed_and_resumed(tmp_path / "c", 120, 40, options, Script(latency=0.02))
    scores = [score for line in lines for score in line["scores"]]
    assert scores == [GRID[i % 5] for i in range(120)]
    assert sum(server.attempts.values()) - server.attempts_before == 120 - server.known
    assert max(server.delivered.values()) <= 2


@pytest.mark.slow
def test_two_thousand_requests_with_thirty_per_cent_faults(tmp_path):
    rate = 60.0
    options = {"concurrency": 32, "timeout": 1.5, "back_off": 0.05, "requests_per_minute": rate * 60}
    with Server(Script(share=0.3, hang=4.0)) as server:
        server.keep_payloads = False
        process = client(server, tmp_path / "c", 0, 2000, options)
        out, _ = process.communicate(timeout=550)
        lines = [json.loads(line) for line in out.splitlines()]
        scores = [score for line in lines for score in line["scores"]]
        assert all(score in (None, GRID[i % 5]) for i, score in enumerate(scores))
        assert scores.count(None) <= 60
        assert max(server.delivered.values()) == 1
        seconds = [server.times[0] + 3 * i for i in range(round((server.times[-1] - server.times[0]) // 3))]
        rates = sorted(sum(s <= t < s + 3 for t in server.times) / 3 for s in seconds)
        mean = len(server.times) / (server.times[-1] - server.times[0])
        print({"missing": scores.count(None), "attempts": len(server.times), "per second": mean, "windows": rates})
        print({"faults": dict(server.faults), "peak memory MiB": [round(line["memory"]) for line in lines]})
        assert 0.85 * rate <= mean <= 1.15 * rate
        assert rates[-1] <= 1.15 * rate
        assert lines[-1]["memory"] - lines[0]["memory"] < 15


@pytest.mark.slow
def test_two_thousand_requests_survive_a_kill_in_the_middle(tmp_path):
    options = {"concurrency": 32, "timeout": 1.5, "back_off": 0.05}
    script = Script(share=0.3, hang=4.0)
    server, lines = killed_and_resumed(tmp_path / "c", 2000, 900, options, script)
    scores = [score for line in lines for score in line["scores"]]
    assert all(score in (None, GRID[i % 5]) for i, score in enumerate(scores))
    assert server.known >= 850
    assert sum(times > 1 for times in server.delivered.values()) <= 4 * options["concurrency"]
    print({"kept": server.known, "asked again though delivered": sum(t > 1 for t in server.delivered.values())})
