"""`W/report.html`: one file that shows a run: figures, curves, videos with answers, raw completions, failures.

It is made from the run's folder and the test records alone, needs no network and holds no script. Every text that
comes from data or model is escaped.
"""

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evads_jax import workdir as run_folder
from evads_jax.benchmark import html, tables
from evads_jax.benchmark.curves import curves
from evads_jax.benchmark.files import CHANCE, Evaluation, load, write
from evads_jax.benchmark.html import chip, definitions, escape, figure_table, fold, plain_table
from evads_jax.benchmark.learning import learning
from evads_jax.benchmark.pictures import data_url
from evads_jax.benchmark.table import Table
from evads_jax.data.records import Event, Question, Records, VideoRecord
from evads_jax.errors import UserError
from evads_jax.events import read_events

GALLERY, COMPLETIONS, FRAMES = 12, 10, 8
_SHOWN_KINDS = ("run", "train", "validation", "checkpoint", "stage_start", "stage_end")


def write_report(workdir: Path, records: Records, seed: int = 0) -> Path:
    """Writes `W/report.html`.

    Args:
      workdir: the folder of a run with at least one evaluation.
      records: the test videos, for their frames.
      seed: picks the videos and completions that are shown.

    Returns:
      The file.

    Raises:
      UserError: the run has no evaluation, or the file cannot be written.
    """
    evaluations, events = load(workdir), read_events(workdir)
    first = next(iter(evaluations.values())).summary
    described = [
        f"config {first['config_hash']}",
        f"commit {first['commit'] or 'unknown'}",
        f"seed {first['seed']}",
        f"{first['split']['videos']} test videos, {first['split']['questions']} questions",
        time.strftime("written %Y-%m-%d %H:%M UTC", time.gmtime()),
    ]
    subtitle = f'<p class="soft">{escape(" · ".join(described))}</p>'
    stages = {name: e for name, e in evaluations.items() if name != CHANCE}
    sections = [
        ("scores", "Scores", _scores(workdir)),
        ("curves", "Curves", curves(events)),
        ("gallery", "Videos and answers", _gallery(stages, records, seed)),
        ("completions", "Raw completions", _completions(stages, seed)),
        ("failures", "Failures and losses", _failures(evaluations, events)),
        ("environment", "Environment", _environment(workdir, evaluations, events)),
    ]
    path = workdir / "report.html"
    write(path, html.page(f"evads_jax · {workdir.resolve().name}", subtitle, sections))
    return path


def _scores(workdir: Path) -> str:
    """R5 in full; differences and pixels; R3 and R2 folded away."""
    try:
        r5, *others = tables.main([workdir])
        stages, *lessons = learning([workdir])
    except UserError as error:  # an evaluation left over from another protocol: say so, and show the rest
        return f'<p class="note">{escape(error)}</p>'
    parts = [
        "<h3>R5 by stage and task</h3>",
        figure_table(r5),
        "<h3>Facts and answers</h3>",
        figure_table(_beside(stages)),
    ]
    parts += [f"<h3>{escape(table.title)}</h3>{figure_table(table)}" for table in lessons]
    parts += [fold(table.title, figure_table(table)) for table in others]
    return "".join(parts)


def _beside(stages: Table) -> Table:
    """The table of stages without the scores, which stand above it already."""
    kept = [i for i, column in enumerate(stages.columns) if not column.startswith("R5 ")]
    rows = tuple(tuple(row[i] for i in kept) for row in stages.rows)
    return dataclasses.replace(stages, columns=tuple(stages.columns[i] for i in kept), rows=rows)


def _gallery(stages: Mapping[str, Evaluation], records: Records, seed: int) -> str:
    picked = np.random.default_rng(seed).permutation(len(records))[:GALLERY]
    verdicts = {name: {row["id"]: row for row in e.verdicts} for name, e in stages.items()}
    return "".join(_video(records[int(i)], verdicts) for i in sorted(picked))


def _video(record: VideoRecord, verdicts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    shown = sorted({round(i) for i in np.linspace(0, len(record.frames) - 1, min(FRAMES, len(record.frames)))})
    frames = "".join(
        f'<div><img alt="frame at {record.times[i]:.1f} seconds" src="{data_url(record.frames[i])}"/>'
        f"{record.times[i]:.1f} s</div>"
        for i in shown
    )
    facts = ", ".join(f"{slot}: {value}" for slot, value in record.facts.items())
    about = " · ".join(x for x in (record.category or "", f"{record.duration:.0f} s", facts) if x)
    events = "".join(f"<div>{escape(_event(event))}</div>" for event in record.events)
    questions = "".join(_question(question, verdicts) for question in record.questions)
    return (
        f'<article class="card"><h3>{escape(record.video)}</h3><p class="soft">{escape(about)}</p>'
        f'<div class="frames">{frames}</div>{events and fold("What is written and said", events)}{questions}</article>'
    )


def _question(question: Question, verdicts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    task = f"{question.task} · " if question.task else ""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{chip(row['score'])}</td><td>{escape(row['answer']) or '–'}"
        f"<small>{escape(row['reason'])}</small></td></tr>"
        for name, rows in verdicts.items()
        if (row := rows.get(question.id))
    )
    return (
        f"<h3>{escape(task + question.question)}</h3><p>{escape(question.answer)} "
        f'<span class="soft">(reference)</span></p><div class="scroll"><table class="answers"><tbody>{rows}</tbody>'
        "</table></div>"
        if rows
        else f"<h3>{escape(task + question.question)}</h3><p>{escape(question.answer)}</p>"
    )


def _event(event: Event) -> str:
    span = f"{event.start}–{event.end} s" if event.end > event.start else f"{event.start} s"
    said = f"“{event.asr}”" if event.asr else ""
    return f"{span}: " + " ; ".join(x for x in (" | ".join(event.ocr), said) if x)


def _completions(stages: Mapping[str, Evaluation], seed: int) -> str:
    """The same questions for every stage, so that stages can be read against each other."""
    parts = []
    for name, evaluation in stages.items():
        rows, raw = evaluation.verdicts, evaluation.completions()
        picked = sorted(np.random.default_rng(seed).permutation(len(rows))[:COMPLETIONS])
        shown = "".join(
            f'<p class="soft">{escape(rows[i]["id"])} {chip(rows[i]["score"])}</p>'
            f"<pre>{escape(raw.get(rows[i]['id'], ''))}</pre>"
            for i in picked
        )
        parts.append(f"<h3>{escape(name)}</h3>" + fold(f"{len(picked)} completions as the model wrote them", shown))
    return "".join(parts)


def _failures(evaluations: Mapping[str, Evaluation], events: Iterable[Mapping[str, Any]]) -> str:
    rows: list[tuple[str, str, str | int]] = []
    for name, evaluation in evaluations.items():
        reasons = Counter(row["reason"] for row in evaluation.verdicts if row["score"] is None)
        rows += [(name, f"missing verdicts: {reason}", count) for reason, count in reasons.most_common()]
        broken = sum(not row["well_formed"] for row in evaluation.verdicts) if name != CHANCE else 0
        rows += [(name, "completions that are not well formed", broken)] * bool(broken)
        cut = evaluation.summary["prompts"]
        rows += [(name, "prompts that lost event lines to fit", cut["shortened"])] * bool(cut["shortened"])
        rows += [(name, "event lines lost", cut["dropped_lines"])] * bool(cut["dropped_lines"])
    for event in events:
        if event["kind"] not in _SHOWN_KINDS:
            about = {k: v for k, v in event.items() if k not in ("schema", "kind", "time", "stage")}
            text = ", ".join(
                f"{k}: {v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)}" for k, v in about.items()
            )
            rows.append((event.get("stage", ""), event["kind"], text))
    return plain_table(("stage", "what", "number or detail"), rows) if rows else "<p>None.</p>"


def _environment(workdir: Path, evaluations: Mapping[str, Evaluation], events: Sequence[Mapping[str, Any]]) -> str:
    runs = [event for event in events if event["kind"] == "run"]
    environment = (runs[-1].get("environment") if runs else None) or run_folder.environment()
    parts = [definitions((k, "unknown" if v is None else v) for k, v in environment.items())]
    ends = [event for event in events if event["kind"] == "stage_end"]
    if ends:
        rows = [
            (
                e.get("stage", ""),
                e.get("step", ""),
                e.get("best_step", ""),
                e.get("reason", ""),
                f"{e.get('seconds') or 0:.0f}",
            )
            for e in ends
        ]
        parts.append("<h3>Stages</h3>" + plain_table(("stage", "steps", "best step", "ended by", "seconds"), rows))
    for name, evaluation in evaluations.items():
        s = evaluation.summary
        about = {"weights": s["weights"], "protocol": s["protocol"], "judge": s["judge"], "split": s["split"]}
        parts.append(
            fold(f"How {name} was evaluated", f"<pre>{escape(json.dumps(about, indent=2, ensure_ascii=False))}</pre>")
        )
    path = workdir / "config.json"
    if path.exists():
        parts.append(fold("Config", f"<pre>{escape(path.read_text(encoding='utf-8'))}</pre>"))
    return "".join(parts)
