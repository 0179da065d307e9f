"""Judges the answers of an evaluation and sums them up: R5, R3, R2 by task, dimension and category, and what stands
beside them: facts, lengths, distinct answers, shuffled answers.

`R5` is the judge's score; `R3` merges its outer steps (.75 → .5, .25 → 0); `R2` is 1 only for a perfect answer
(papers: E-VAds, evaluation). What has no score is counted and left out of `mean_valid`; `mean_all_bounds` leaves
nothing out: a video that is missing or a prediction that failed counts 0, and a missing verdict, which is not a zero,
once 0 and once 1. With k samples a question, its k answers are k rows, and n counts answers.
"""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from evads_jax import processes
from evads_jax.benchmark.chance import shuffled_scores
from evads_jax.benchmark.facts import count_facts
from evads_jax.benchmark.files import Split, append_lines, name_sample, read_lines
from evads_jax.benchmark.predict import NO_PREDICTION, NO_VIDEO, Failed
from evads_jax.benchmark.statistics import Interval, Videos
from evads_jax.data.prompts import Completion, parse_completion
from evads_jax.data.records import DIMENSIONS, TASKS, Example
from evads_jax.judge.verdict import Judge, JudgeRequest, Missing

METRICS = ("R5", "R3", "R2")
ALL = "all"
NOTHING = Completion("", "", False)
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
    split: Split,
    completions: Mapping[str, str | Failed],
    judge: Judge,
    language: str,
    folder: Path,
    batch: int = 256,
    samples: int = 1,
    name: str = "verdicts.jsonl",
) -> list[dict[str, Any]]:
    """Makes or completes `verdicts.jsonl`; an answer that this judge has scored is not judged again.

    With several processes the file is process 0's, and the judge is one whose work they divide (`judge.divided`).

    Args:
      split: the questions.
      completions: answer id → raw completion or why there is none, for each question and sample.
      judge: the judge.
      language: "zh" or "en".
      folder: the evaluation's folder.
      batch: requests per call and process; verdicts are on disk after each call.
      samples: completions per question.
      name: the file.

    Returns:
      The lines of the file, in the order of the split: id, sample (but for the first), video, task, category, answer,
      well_formed, score (None when missing), failure (`NO_VIDEO` or `NO_PREDICTION`, only where there was nothing to
      judge), reason, cost, judge, facts (expected, right, wrong).
    """
    path = folder / name
    known = {
        (row["id"], row["answer"]): row
        for row in processes.by_first(lambda: read_lines(path), "read the verdicts", str(path))
        if row.get("judge") == judge.name and row.get("score") is not None and {"id", "answer", "facts"} <= row.keys()
    }
    asked = [(e, s, completions[name_sample(e.question.id, s)]) for e in split.examples for s in range(samples)]
    parsed = {(e.question.id, s): parse_completion(said) for e, s, said in asked if not isinstance(said, Failed)}
    examples = {e.question.id: e for e in split.examples}
    waiting = {(i, c.answer): (examples[i], c) for (i, _), c in parsed.items() if (i, c.answer) not in known}
    keys, size = list(waiting), batch * jax.process_count()
    for start in range(0, len(keys), size):
        chunk = [waiting[key] for key in keys[start : start + size]]
        verdicts = judge.judge([request(example, c.answer, language) for example, c in chunk])
        rows = []
        for (example, completion), verdict in zip(chunk, verdicts, strict=True):
            score = None if isinstance(verdict, Missing) else verdict.score
            row = _row(example, completion, judge.name) | {"score": score}
            rows.append(row | {"reason": verdict.reason, "cost": verdict.cost})
        processes.by_first(functools.partial(append_lines, path, rows), "write the verdicts", str(path))
        known |= {(row["id"], row["answer"]): row for row in rows}
    judged = []
    for example, s, said in asked:
        if isinstance(said, Failed):
            row = _row(example, NOTHING, judge.name) | {"failure": said.kind, "reason": said.reason}
        else:
            read = parsed[example.question.id, s]
            row = known[example.question.id, read.answer] | {"well_formed": read.well_formed}
        row = {name: value for name, value in row.items() if name not in ("id", "sample")}
        judged.append({"id": example.question.id, **({"sample": s} if s else {}), **row})
    return judged


def _row(example: Example, completion: Completion, judge: str) -> dict[str, Any]:
    """A line of `verdicts.jsonl` without its verdict."""
    q = example.question
    facts = count_facts(q.rubric, q.answer, completion.answer)
    return {
        "id": q.id,
        "video": example.video,
        "task": q.task,
        "category": example.category,
        "answer": completion.answer,
        "well_formed": completion.well_formed,
        "score": None,
        "reason": "",
        "cost": 0.0,
        "judge": judge,
        "facts": [facts.expected, facts.right, facts.wrong],
    }


def shuffle_answers(
    split: Split, rows: Sequence[Mapping[str, Any]], judge: Judge, language: str, seed: int
) -> list[dict[str, Any]]:
    """The rows with `shuffled`: each question's mean score over answers from other videos; None without a partner.

    Of several samples the first are shuffled. Where nothing was answered there is nothing to deal out.
    """
    first = [n for n, row in enumerate(rows) if not row.get("sample")]
    scores = shuffled_scores(
        split,
        [None if rows[n].get("failure") else rows[n]["answer"] for n in first],
        lambda pairs: judge.judge([request(split.examples[n], answer, language) for n, answer in pairs]),
        seed,
    )
    shuffled = dict(zip(first, (None if math.isnan(score) else score for score in scores.tolist()), strict=True))
    return [{**row, "shuffled": shuffled.get(n)} for n, row in enumerate(rows)]


def summarise(split: Split, rows: Sequence[Mapping[str, Any]], bootstrap: int, seed: int) -> dict[str, Any]:
    """The figures of `summary.json` that follow from the verdicts.

    Args:
      split: the questions.
      rows: the lines of `verdicts.jsonl`, with `shuffled`.
      bootstrap: draws of videos behind an interval; 0 gives none.
      seed: of those draws.

    Returns:
      The figures. Where something has no score, `without_score` says for each task, dimension and category how many
      answers lack it for which reason, and gives the 95 % interval of R5, R3 and R2 over all: from the lower end of the
      lower bound's interval to the upper end of the upper bound's.
    """
    videos = Videos(split.videos, bootstrap, seed, split.hash)
    groups = members(rows)
    tables = {name: _metrics(videos, rows, masks) for name, masks in groups.items()}
    lacking = {name: _without_score(videos, rows, masks) for name, masks in groups.items()}
    return {
        "n": len(rows),
        **tables,
        "facts": fact_shares(videos, rows),
        "answers": _answers(videos, rows),
        "shuffled": _shuffled(videos, rows, groups["tasks"]),
        "split": {"hash": split.hash, "videos": len(set(split.videos)), "questions": len(split.examples)},
        "bootstrap": {"replicates": bootstrap, "seed": seed},
        **({"without_score": lacking} if any(row["score"] is None for row in rows) else {}),
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


def _metrics(videos: Videos, rows: Sequence[Mapping[str, Any]], masks: Mapping[str, np.ndarray]) -> dict:
    out: dict[str, dict[str, Any]] = {name: {} for name in masks}
    if not masks:
        return out
    for kind in METRICS:
        valid, lowest, highest = _values(rows, kind)
        columns = np.stack([np.where(mask, valid, np.nan) for mask in masks.values()], axis=1)
        intervals = videos.mean([row["video"] for row in rows], columns).intervals()
        for (name, mask), interval in zip(masks.items(), intervals, strict=True):
            n, stated = int(mask.sum()), as_json(interval)
            out[name][kind] = {
                "mean_valid": stated["mean"],
                "mean_all_bounds": [float(lowest[mask].mean()), float(highest[mask].mean())] if n else None,
                "ci95": stated["ci95"],
                "n": n,
                "n_missing": int(np.isnan(valid[mask]).sum()),
            }
    return out


def _values(rows: Sequence[Mapping[str, Any]], kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Under one metric: the scores, NaN where there is none, and what each answer counts at least and at most."""
    valid = np.array([math.nan if row["score"] is None else metric(kind, row["score"]) for row in rows], np.float64)
    failed = np.array([row.get("failure") is not None for row in rows], dtype=bool)
    return valid, np.where(np.isnan(valid), 0.0, valid), np.where(np.isnan(valid), np.where(failed, 0.0, 1.0), valid)


def _without_score(
    videos: Videos, rows: Sequence[Mapping[str, Any]], masks: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    reasons = {"videos": NO_VIDEO, "predictions": NO_PREDICTION, "verdicts": None}
    names, failure = [row["video"] for row in rows], np.array([row.get("failure") for row in rows], dtype=object)
    bare = np.array([row["score"] is None for row in rows], dtype=bool)
    out: dict[str, dict[str, Any]] = {}
    for name, mask in masks.items():
        out[name] = {key: int((mask & bare & (failure == reason)).sum()) for key, reason in reasons.items()}
        for kind in METRICS:
            _, lowest, highest = _values(rows, kind)
            columns = np.stack([np.where(mask, side, np.nan) for side in (lowest, highest)], axis=1)
            low, high = (as_json(interval)["ci95"] for interval in videos.mean(names, columns).intervals())
            out[name][kind] = [low[0], high[1]] if low and high else None
    return out


def _answers(videos: Videos, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    out = {}
    for name, mask in members(rows)["tasks"].items():
        mine = [row for row, is_mine in zip(rows, mask, strict=True) if is_mine and not row.get("failure")]
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
