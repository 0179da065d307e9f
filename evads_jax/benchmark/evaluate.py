"""One stage, from its parameters to `summary.json`."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evads_jax import processes
from evads_jax import workdir as run_folder
from evads_jax.benchmark import agreement, files
from evads_jax.benchmark.chance import ConstantPolicy, best_constants
from evads_jax.benchmark.files import Split
from evads_jax.benchmark.predict import NO_VIDEO, Failed, Policy, StreamingPolicy, predict
from evads_jax.benchmark.score import as_json, judge_answers, request, shuffle_answers, summarise
from evads_jax.benchmark.statistics import Interval, Videos
from evads_jax.judge.divided import divided
from evads_jax.judge.verdict import Judge

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Again:
    """A further judgement of the same answers.

    Attributes:
      judge: who gives it.
      identity: what its verdicts depend on (`identity`).
    """

    judge: Judge
    identity: Mapping[str, Any]


def evaluate(
    policy: Policy | StreamingPolicy,
    split: Split,
    workdir: Path,
    stage: str,
    judge: Judge,
    config: Mapping[str, Any],
    log: Log | None = None,
    repeats: Sequence[Judge] = (),
    second: Again | None = None,
) -> dict[str, Any]:
    """Predicts, judges and sums up; goes on where a killed run stopped, and asks nothing twice.

    Several processes divide the questions and the judge's work among them; process 0 writes the files, which are those
    that it would have written alone.

    Args:
      policy: the stage's policy; with `blank_frames` in its protocol the folder is `<stage>_blanked`.
      split: the test questions.
      workdir: the run's folder.
      stage: base, sft, control, mg_grpo, or another name.
      judge: the judge.
      config: the run's config (read: run.language, run.seed, judge, eval.bootstrap; the whole is hashed). With
        `eval.shuffled` False no answers are shuffled, which takes up to 16 further verdicts a question.
      log: gets a line now and then.
      repeats: the same judge again, with verdicts of its own: how far it agrees with itself.
      second: another judge: how far the two agree. The scores are those of `judge` alone.

    Returns:
      The summary, as written.
    """
    judge, repeats = divided(judge), [divided(repeat) for repeat in repeats]
    second = second and dataclasses.replace(second, judge=divided(second.judge))
    folder = files.folder(workdir, stage, bool(policy.protocol.get("blank_frames")))
    language, seed = config["run"]["language"], config["run"]["seed"]
    samples = policy.protocol.get("samples", 1)
    processes.by_first(lambda: _write_questions(split, folder), "write the questions", str(folder))
    completions = predict(policy, split, folder, log)
    rows = judge_answers(split, completions, judge, language, folder, samples=samples)
    if config["eval"].get("shuffled", True):
        rows = shuffle_answers(split, rows, judge, language, seed)
    else:
        rows = [{**row, "shuffled": None} for row in rows]
    _write_verdicts(folder / "verdicts.jsonl", rows)
    plain = json.loads(config.to_json() if hasattr(config, "to_json") else json.dumps(config))
    again = {}
    if repeats or second:
        again = _judge_again(split, completions, rows, folder, config, samples, repeats, second)

    def sum_up() -> dict[str, Any]:
        summary = {
            "stage": folder.name,
            **summarise(split, rows, config["eval"]["bootstrap"], seed),
            **again,
            **_missing_videos(rows),
            "prompts": _shortened(folder),
            **_costs(folder),
            "protocol": dict(policy.protocol),
            "weights": policy.weights,
            "judge": {**identity(judge, plain["judge"]), "name": judge.name, "language": language},
            "seed": seed,
            "config_hash": files.config_hash(plain),
            "commit": run_folder.environment()["commit"],
        }
        files.write(folder / "summary.json", files.to_json(summary, indent=2) + "\n")
        return summary

    return processes.by_first(sum_up, "sum up", str(folder))


def evaluate_chance(
    choosing: Split, split: Split, workdir: Path, judge: Judge, config: Mapping[str, Any], log: Log | None = None
) -> dict[str, Any]:
    """The best constant answers, chosen on `choosing` (validation videos) and evaluated like a stage."""
    language, seed = config["run"]["language"], config["run"]["seed"]
    constants = best_constants(
        choosing, divided(judge), lambda example, answer: request(example, answer, language), seed
    )
    return evaluate(ConstantPolicy(constants), split, workdir, files.CHANCE, judge, config, log)


def identity(judge: Judge, section: Mapping[str, Any]) -> dict[str, Any]:
    """What a judge's verdicts depend on, for results that are compared: not its limits, prices or retries.

    Args:
      judge: the judge.
      section: the config section that it was made from.
    """
    described = getattr(judge, "description", None)
    return dict(described) if described else {k: section[k] for k in ("kind", "path") if section.get(k)}


def second_file(second: Again) -> str:
    """The name of the file with a second judge's verdicts; every judge has its own."""
    digest = hashlib.sha256(files.to_json({**second.identity, "name": second.judge.name}).encode()).hexdigest()
    return f"verdicts_second_{digest[:12]}.jsonl"


def _write_questions(split: Split, folder: Path) -> None:
    rows = [
        {
            "id": example.question.id,
            "video": example.video,
            "task": example.question.task,
            "category": example.category,
            "question": example.question.question,
            "reference": example.question.answer,
            "clues": example.question.clues,
        }
        for example in split.examples
    ]
    files.write(folder / "questions.jsonl", "".join(files.to_json(row) + "\n" for row in rows))


def _write_verdicts(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(files.to_json(row) + "\n" for row in rows)
    processes.by_first(lambda: files.write(path, text), "write the verdicts", str(path))


def _judge_again(
    split: Split,
    completions: Mapping[str, str | Failed],
    rows: Sequence[Mapping[str, Any]],
    folder: Path,
    config: Mapping[str, Any],
    samples: int,
    repeats: Sequence[Judge],
    second: Again | None,
) -> dict[str, Any]:
    """`repeatability` and `second_judge` of the summary; answers that failed take no part."""
    language = config["run"]["language"]
    names = [row["video"] for row in rows]
    videos = Videos(split.videos, config["eval"]["bootstrap"], config["run"]["seed"], split.hash)

    def scores(found: Sequence[Mapping[str, Any]]) -> np.ndarray:
        return np.array([math.nan if row["score"] is None else row["score"] for row in found], dtype=np.float64)

    def judged(judge: Judge, name: str) -> np.ndarray:
        found = judge_answers(split, completions, judge, language, folder, samples=samples, name=name)
        _write_verdicts(folder / name, found)
        return scores(found)

    out: dict[str, Any] = {}
    if repeats:
        others = [judged(judge, f"verdicts_repeat{number}.jsonl") for number, judge in enumerate(repeats, 1)]
        out["repeatability"] = agreement.repeatability(videos, names, np.stack([scores(rows), *others], axis=1))
    if second:
        found = judged(second.judge, second_file(second))
        known = found[~np.isnan(found)]
        out["second_judge"] = {
            "judge": {**second.identity, "name": second.judge.name},
            "mean": float(known.mean()) if len(known) else None,
            **agreement.between(videos, names, scores(rows), found),
        }
    return {
        block: {k: as_json(v) if isinstance(v, Interval) else v for k, v in figures.items()}
        for block, figures in out.items()
    }


def _missing_videos(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    missing = {row["video"]: row["reason"] for row in rows if row.get("failure") == NO_VIDEO}
    return {"missing_videos": missing} if missing else {}


def _shortened(folder: Path) -> dict[str, int]:
    dropped = [row.get("dropped_lines", 0) for row in files.read_lines(folder / "predictions.jsonl")]
    return {"shortened": sum(map(bool, dropped)), "dropped_lines": sum(dropped)}


def _costs(folder: Path) -> dict[str, Any]:
    """What the completions of a model behind an endpoint took, and how many were cut off."""
    asked = [row for row in files.read_lines(folder / "predictions.jsonl") if "output_tokens" in row]
    if not asked:
        return {}
    sums = {name: sum(row[name] for row in asked) for name in ("input_tokens", "output_tokens", "cost")}
    return {"predictions": {**sums, "cut_off": sum(row["finished"] is False for row in asked)}}
