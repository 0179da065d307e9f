"""The whole experiment, in its smallest form, with a model behind an endpoint as the judge."""

import json
import random
import runpy
from pathlib import Path

import pytest

from evads_jax.train.experiment import run

from .server import Script, Server

CONFIG = Path(__file__).parents[2] / "configs" / "mg_grpo.py"
GRID = (0, 0.25, 0.5, 0.75, 1)


def opinion(messages) -> str:
    """A verdict that depends on the request alone."""
    text = messages[-1]["content"]
    draw = random.Random(text)
    if '"trace"' in text:
        return json.dumps({"reason": "r", "answer": draw.choice(GRID), "trace": draw.choice(GRID)})
    return json.dumps({"reason": "r", "score": draw.choice(GRID)})


@pytest.mark.slow
def test_training_and_evaluation_run_on_an_endpoints_verdicts_and_the_second_time_pay_nothing(tmp_path, capsys):
    namespace = runpy.run_path(str(CONFIG))
    config = namespace["get_config"]("openai")
    namespace["_smoke"](config)
    config.run.stages = ("base", "sft", "mg_grpo")
    with Server(Script(share=0.1, hang=3.0, answer=opinion)) as server:
        server.keep_payloads = False
        config.judge.base_url, config.judge.model, config.judge.key_env = server.url, "judge-1", ""
        config.judge.timeout, config.judge.cache = 2.0, str(tmp_path / "verdicts.sqlite")
        config.judge.prices, config.judge.max_cost = (("judge", 1.0, 1.0),), 50.0
        run(config, tmp_path / "W")
        asked = len(server.times)
        assert asked > 500
        assert "judge judge-1:" in capsys.readouterr().out
        run(config, tmp_path / "again")  # another run, the same judge, the same cache
        assert len(server.times) - asked < 0.02 * asked
        assert json.loads((tmp_path / "again/evaluation/sft/summary.json").read_text())["judge"]["name"] == "openai"
