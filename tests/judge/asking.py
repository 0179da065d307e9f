"""Requests whose right verdicts are known, and judges that ask the test server for them."""

from pathlib import Path

from evads_jax.data.records import Event
from evads_jax.judge.cache import VerdictCache
from evads_jax.judge.endpoint import EndpointSettings
from evads_jax.judge.openai import OpenAIJudge
from evads_jax.judge.verdict import GRID, JudgeRequest, Missing, Verdict

from .server import Server

FAST = {"key_env": "", "timeout": 1.0, "back_off": 0.02, "breaker_pause": 0.05, "concurrency": 16}


def requests(count: int, aspect: str = "answer") -> list[JudgeRequest]:
    return [
        JudgeRequest("q", (Event(0, 0, ("a",)),), "c", "r", f"{aspect} {i} worth {GRID[i % 5]:g}", aspect)
        for i in range(count)
    ]


def make(server: Server, path: Path, settings: dict | None = None, **options) -> OpenAIJudge:
    fields = {"base_url": server.url, "model": "judge-1", **FAST, **(settings or {})}
    return OpenAIJudge(EndpointSettings(**fields), cache=VerdictCache(path / "cache"), **{"log": str, **options})


def right(verdicts: list[Verdict | Missing]) -> list[bool]:
    return [isinstance(v, Verdict) and v.score == GRID[i % 5] for i, v in enumerate(verdicts)]
