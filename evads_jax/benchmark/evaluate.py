"""One stage, from its parameters to `summary.json`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evads_jax import workdir as run_folder
from evads_jax.benchmark import files
from evads_jax.benchmark.chance import ConstantPolicy, best_constants
from evads_jax.benchmark.files import Split
from evads_jax.benchmark.predict import Policy, predict
from evads_jax.benchmark.score import judge_answers, request, shuffle_answers, summarise
from evads_jax.judge.verdict import Judge

Log = Callable[[str], None]


def evaluate(
    policy: Policy,
    split: Split,
    workdir: Path,
    stage: str,
    judge: Judge,
    config: Mapping[str, Any],
    log: Log | None = None,
) -> dict[str, Any]:
    """Predicts, judges and sums up; goes on where a killed run stopped, and asks nothing twice.

    Args:
      policy: the stage's policy; with `blank_frames` in its protocol the folder is `<stage>_blanked`.
      split: the test questions.
      workdir: the run's folder.
      stage: base, sft, control, mg_grpo, or another name.
      judge: the judge.
      config: the run's config (read: run.language, run.seed, judge, eval.bootstrap; the whole is hashed).
      log: gets a line now and then.

    Returns:
      The summary, as written.
    """
    folder = files.folder(workdir, stage, bool(policy.protocol.get("blank_frames")))
    language, seed = config["run"]["language"], config["run"]["seed"]
    completions = predict(policy, split, folder, log)
    rows = judge_answers(split, completions, judge, language, folder)
    rows = shuffle_answers(split, rows, judge, language, seed)
    files.write(folder / "verdicts.jsonl", "".join(files.to_json(row) + "\n" for row in rows))
    dropped = [row.get("dropped_lines", 0) for row in files.read_lines(folder / "predictions.jsonl")]
    plain = json.loads(config.to_json() if hasattr(config, "to_json") else json.dumps(config))
    summary = {
        "stage": folder.name,
        **summarise(split, rows, config["eval"]["bootstrap"], seed),
        "prompts": {"shortened": sum(map(bool, dropped)), "dropped_lines": sum(dropped)},
        "protocol": dict(policy.protocol),
        "weights": policy.weights,
        "judge": {**plain["judge"], "name": judge.name, "language": language},
        "seed": seed,
        "config_hash": files.config_hash(plain),
        "commit": run_folder.environment()["commit"],
    }
    files.write(folder / "summary.json", files.to_json(summary, indent=2) + "\n")
    return summary


def evaluate_chance(
    choosing: Split, split: Split, workdir: Path, judge: Judge, config: Mapping[str, Any], log: Log | None = None
) -> dict[str, Any]:
    """The best constant answers, chosen on `choosing` (validation videos) and evaluated like a stage."""
    language, seed = config["run"]["language"], config["run"]["seed"]
    constants = best_constants(choosing, judge, lambda example, answer: request(example, answer, language), seed)
    return evaluate(ConstantPolicy(constants), split, workdir, files.CHANCE, judge, config, log)
