"""Judges the answers of an evaluation and sums them up: R5, R3, R2 by task, dimension and category, and what stands
beside them: facts, lengths, distinct answers, shuffled answers.

`R5` is the judge's score; `R3` merges its outer steps (.75 → .5, .25 → 0); `R2` is 1 only for a perfect answer
(papers: E-VAds, evaluation). A verdict that is missing is not a zero: `mean_valid` leaves it out and counts it,
`mean_all_bounds` gives the mean as if every missing score were 0 and as if it were 1.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evads_jax.benchmark.chance import shuffled_scores
from evads_jax.benchmark.facts import count_facts
from evads_jax.benchmark.files import Split, append_lines, read_lines
from evads_jax.benchmark.statistics import Interval, Videos
from evads_jax.data.prompts import parse_completion
from evads_jax.data.records import DIMENSIONS, TASKS, Example
from evads_jax.judge.verdict import Judge, JudgeRequest, Missing

METRICS = ("R5", "R3", "R2")
ALL = "all"
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_UNIT = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")


def metric(name: str, score: float) -> float:
    """A judge's score under R5, R3 or R2; NaN stays NaN."""
    if name == "R5" or math.isnan(score):
        return score
    if name == "R3":
        return {0.75: 0.5, 0.25: 0.0}.get(score, score)
    return float(score == 1.0)


def length(answer: str) -> int:
    """Words of an answer; a Chinese, Japanese or Korean character counts as one."""
    return len(_UNIT.findall(answer))


def request(example: Example, answer: str, language: str) -> JudgeRequest:
    """What the judge is asked about an answer."""
    q = example.question
    return JudgeRequest(
        question=q.question,
        events=example.evidence,
        clues=q.clues,
        reference=q.answer,
        candidate=answer,
        aspect="answer",
        rubric=q.rubric,
        task=q.task,
        video=example.video,
        language=language,
    )


def judge_answers(
    split: Split, completions: Mapping[str, str], judge: Judge, language: str, folder: Path, batch: int = 256
) -> list[dict[str, Any]]:
    """Makes or completes `verdicts.jsonl`; an answer that this judge has scored is not judged again.

    Args:
      split: the questions.
      completions: question id → raw completion, for each of them.
      judge: the judge.
      language: "zh" or "en".
      folder: the evaluation's folder.
      batch: requests per call; verdicts are on disk after each.

    Returns:
      The lines of the file, in the order of the split: id, video, task, category, answer, well_formed, score (None
      when missing), reason, cost, judge, facts (expected, right, wrong).
    """
    path = folder / "verdicts.jsonl"
    known = {
        (row["id"], row["answer"]): row
        for row in read_lines(path)
        if row.get("judge") == judge.name and row.get("score") is not None and {"id", "answer", "facts"} <= row.keys()
    }
    parsed = [parse_completion(completions[example.question.id]) for example in split.examples]
    keys = [(e.question.id, c.answer) for e, c in zip(split.examples, parsed, strict=True)]
    pending = [n for n, key in enumerate(keys) if key not in known]
    for start in range(0, len(pending), batch):
        chunk = pending[start : start + batch]
        verdicts = judge.judge([request(split.examples[n], parsed[n].answer, language) for n in chunk])
        rows = []
        for n, verdict in zip(chunk, verdicts, strict=True):
            example, q = split.examples[n], split.examples[n].question
            facts = count_facts(q.rubric, q.answer, parsed[n].answer)
            rows.append(
                {
                    "id": q.id,
                    "video": example.video,
                    "task": q.task,
                    "category": example.category,
                    "answer": parsed[n].answer,
                    "well_formed": parsed[n].well_formed,
                    "score": None if isinstance(verdict, Missing) else verdict.score,
                    "reason": verdict.reason,
                    "cost": verdict.cost,
                    "judge": judge.name,
                    "facts": [facts.expected, facts.right, facts.wrong],
                }
            )
        append_lines(path, rows)
        known |= {(row["id"], row["answer"]): row for row in rows}
    return [known[key] for key in keys]


def shuffle_answers(
    split: Split, rows: Sequence[Mapping[str, Any]], judge: Judge, language: str, seed: int
) -> list[dict[str, Any]]:
    """The rows with `shuffled`: each question's mean score over answers from other videos; None without a partner."""
    scores = shuffled_scores(
        split,
        [row["answer"] for row in rows],
        lambda pairs: judge.judge([request(split.examples[n], answer, language) for n, answer in pairs]),
        seed,
    )
    return [
        {**row, "shuffled": None if math.isnan(score) else score}
        for row, score in zip(rows, scores.tolist(), strict=True)
    ]


def summarise(split: Split, rows: Sequence[Mapping[str, Any]], bootstrap: int, seed: int) -> dict[str, Any]:
    """The figures of `summary.json` that follow from the verdicts.

    Args:
      split: the questions.
      rows: the lines of `verdicts.jsonl`, with `shuffled`.
      bootstrap: draws of videos behind an interval; 0 gives none.
      seed: of those draws.
    """
    videos = Videos(split.videos, bootstrap, seed, split.hash)
    scores = np.array([math.nan if row["score"] is None else row["score"] for row in rows])
    groups = members(rows)
    tables = {name: _metrics(videos, split.videos, scores, masks) for name, masks in groups.items()}
    return {
        "n": len(rows),
        **tables,
        "facts": fact_shares(videos, rows),
        "answers": _answers(videos, split.videos, rows),
        "shuffled": _shuffled(videos, rows, groups["tasks"]),
        "split": {"hash": split.hash, "videos": len(set(split.videos)), "questions": len(rows)},
        "bootstrap": {"replicates": bootstrap, "seed": seed},
    }


def members(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    """Which rows belong to each task (with `all`), dimension and category; rows without a label only to `all`."""
    tasks = np.array([row["task"] for row in rows], dtype=object)
    categories = np.array([row["category"] for row in rows], dtype=object)
    everything = np.ones(len(rows), dtype=bool)
    dimensions = {name: np.isin(tasks, np.array(parts, dtype=object)) for name, parts in DIMENSIONS.items()}
    return {
        "tasks": {**{t: tasks == t for t in TASKS if (tasks == t).any()}, ALL: everything},
        "dimensions": {name: mask for name, mask in dimensions.items() if mask.any()},
        "categories": {c: categories == c for c in sorted({c for c in categories if c})},
    }


def fact_shares(videos: Videos, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Per task and `all`: the share of the script's facts stated right, and of the stated values that are wrong."""
    counts = np.array([row["facts"] for row in rows], dtype=np.float64).reshape(len(rows), 3)
    if not counts[:, 0].any():
        return None
    expected, right, wrong = counts.T
    out = {}
    for name, mask in members(rows)["tasks"].items():
        above = np.stack([right, wrong], axis=1) * mask[:, None]
        below = np.stack([expected, right + wrong], axis=1) * mask[:, None]
        stated, false = videos.ratio([row["video"] for row in rows], above, below).intervals()
        out[name] = {"right": as_json(stated), "wrong": as_json(false)}
    return out


def as_json(interval: Interval) -> dict[str, Any]:
    """An interval as it is written; what does not exist is null."""
    mean, low, high = (None if math.isnan(x) else x for x in (interval.mean, interval.low, interval.high))
    return {"mean": mean, "ci95": None if low is None else [low, high], "n": interval.n}


def _metrics(videos: Videos, names: Sequence[str], scores: np.ndarray, masks: Mapping[str, np.ndarray]) -> dict:
    out: dict[str, dict[str, Any]] = {name: {} for name in masks}
    if not masks:
        return out
    for kind in METRICS:
        values = np.array([metric(kind, score) for score in scores])
        columns = np.stack([np.where(mask, values, np.nan) for mask in masks.values()], axis=1)
        for (name, mask), interval in zip(masks.items(), videos.mean(names, columns).intervals(), strict=True):
            n, missing = int(mask.sum()), int(np.isnan(values[mask]).sum())
            total = float(np.nansum(values[mask]))
            stated = as_json(interval)
            out[name][kind] = {
                "mean_valid": stated["mean"],
                "mean_all_bounds": [total / n, (total + missing) / n] if n else None,
                "ci95": stated["ci95"],
                "n": n,
                "n_missing": missing,
            }
    return out


def _answers(videos: Videos, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    out = {}
    for name, mask in members(rows)["tasks"].items():
        mine = [row for row, is_mine in zip(rows, mask, strict=True) if is_mine]
        lengths = np.array([length(row["answer"]) for row in mine], dtype=np.float64)[:, None]
        (interval,) = videos.mean([row["video"] for row in mine], lengths).intervals()
        out[name] = {
            "length": as_json(interval),
            "distinct": len({" ".join(row["answer"].split()) for row in mine}),
            "well_formed": sum(row["well_formed"] for row in mine) / len(mine) if mine else None,
        }
    return out


def _shuffled(
    videos: Videos, rows: Sequence[Mapping[str, Any]], masks: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    scores = np.array([math.nan if row["shuffled"] is None else row["shuffled"] for row in rows])
    columns = np.stack([np.where(mask, scores, np.nan) for mask in masks.values()], axis=1)
    intervals = videos.mean([row["video"] for row in rows], columns).intervals()
    return dict(zip(masks, map(as_json, intervals), strict=True))
