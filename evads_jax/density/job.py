"""The density job: a corpus in, W/density out.

W/density/videos.jsonl     a line a video      corpus.json      statistics
W/density/tables/*         md, csv, tex, html  figures/*.png    histograms, scatter
W/density/failures.jsonl   the dead letters    report.html      one page
W/density/events.jsonl, questions.jsonl        with write_events: what was read and heard, as E-VAds events
"""

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ml_collections import config_dict

from evads_jax.data.media import Media
from evads_jax.density.extract import ocr
from evads_jax.density.extract.transcripts import READERS
from evads_jax.density.items import (
    Corpus,
    Item,
    from_annotations,
    from_shards,
    from_videos,
    stamp_of,
    with_annotations,
    with_transcripts,
)
from evads_jax.density.measure import Tools, make_tools, open_media
from evads_jax.density.measurement import Measurement
from evads_jax.density.report import figures, tables
from evads_jax.density.report.corpus import comparison, corpus_summary, write_json
from evads_jax.density.report.page import pick_extremes, render_page, strip
from evads_jax.density.scale.local import run_local
from evads_jax.density.scale.parts import partition, read_part
from evads_jax.density.settings import MeasureSettings
from evads_jax.errors import UserError

NOTES_SHOWN = 20


def run(config: config_dict.ConfigDict, workdir: Path) -> None:
    """Measures the corpus that the config names; goes on where an earlier call in the same folder stopped.

    Args:
        config: from configs/density.py.
        workdir: results go to its folder `density`.

    Raises:
        UserError: no input, nothing readable in it, an engine without its model, or too many failures.
    """
    settings = MeasureSettings.from_config(config)
    corpus = read_corpus(config)
    for note in _some(corpus.notes):
        _say(note)
    if settings.features.kind in ("blocks", "dinov3_random") and any(i.path or i.record for i in corpus.items):
        _say("no DINOv3 weights (visual.model): V is measured on other features and is not called V_den")
    out = workdir / "density"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the work directory: {error.strerror}", str(workdir)) from error
    write_json(out / "config.json", json.loads(config.to_json()))
    parts = partition(corpus.items, config.run.videos_per_part)
    models = ((config.visual.model, "*.safetensors"), (config.asr.model, "model.bin"))
    weights = [stamp_of(path) for model, files in models if model for path in sorted(Path(model).glob(files))]
    reads = config.ocr.engine == "auto" and ocr.installed()
    folder = out / "parts" / settings.digest(corpus.items, config.run.videos_per_part, weights, reads)
    if config.run.runner == "beam":
        from evads_jax.density.scale.beam import run_beam  # Beam takes seconds to import

        run_beam(parts, settings, folder, options=config.run.beam_options, max_bad_share=config.run.max_bad_share)
    else:
        run_local(
            parts,
            settings,
            folder,
            workers=config.run.workers if any(i.path or i.record for i in corpus.items) else 0,
            max_bad_share=config.run.max_bad_share,
            progress=lambda done, total, failed: _say(f"{done} of {total} videos, {failed} failed"),
        )
    measurements = [m for part in parts for m in read_part(part, folder)]
    if config.shards:
        corpus, measurements = _each_once(corpus, measurements)
    _write_videos(out, measurements)
    if config.write_events:
        write_events(out, measurements, config.questions)
    write_report(out, config, settings, corpus, measurements)


def read_corpus(config: config_dict.ConfigDict) -> Corpus:
    """The corpus from the sources that the config names.

    Raises:
        UserError: none is named, or one cannot be read.
    """
    named = [source for source in ("videos", "shards", "annotations") if config[source]]
    if not named:
        raise UserError("nothing to measure", "config", "give --config.videos, --config.shards or --config.annotations")
    if "videos" in named and "shards" in named:
        raise UserError("both videos and shards are given", "config", "give one of them")
    annotated = from_annotations(config.annotations) if config.annotations else None
    if config.videos:
        corpus = from_videos(config.videos)
    elif config.shards:
        corpus = from_shards(config.shards, config.split)
    else:
        assert annotated is not None
        corpus, annotated = annotated, None
    if annotated is not None:
        corpus = with_annotations(corpus, annotated)
    if config.transcripts:
        corpus = with_transcripts(corpus, config.transcripts, READERS)
    return corpus


def write_events(out: Path, measurements: Sequence[Measurement], questions: str | None) -> None:
    """Writes the events of each video, and the user's questions with them.

    `questions.jsonl` is what `data.source=folder` reads for SFT, MG-GRPO and evaluation. A question keeps its own
    events and duration where nothing was found.

    Raises:
        UserError: the questions are not readable JSONL.
    """
    rows = {}
    for m in measurements:
        events = [{k: v for k, v in dataclasses.asdict(e).items() if v} | {"start": e.start} for e in m.events or ()]
        rows[m.video] = {"duration": None if m.duration is None else max(round(m.duration), 1), "events": events}
    lines = [json.dumps({"video": video, **row}, ensure_ascii=False) for video, row in rows.items()]
    (out / "events.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    if questions:
        try:
            asked = [
                json.loads(line) for line in Path(questions).read_text(encoding="utf-8-sig").split("\n") if line.strip()
            ]
            found = {video: {name: value for name, value in row.items() if value} for video, row in rows.items()}
            merged = [question | found.get(question["video"], {}) for question in asked]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                "not readable as JSONL of questions", questions, "each line is an object with a video"
            ) from error
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in merged)
        (out / "questions.jsonl").write_text(text, encoding="utf-8")


def write_report(
    out: Path,
    config: config_dict.ConfigDict,
    settings: MeasureSettings,
    corpus: Corpus,
    measurements: Sequence[Measurement],
) -> None:
    """Writes corpus.json, tables, figures and the page, and prints the table."""
    report = config.report
    summary = corpus_summary(measurements, settings.rules, report.bootstrap, report.seed, report.bins)
    document = {config.name: summary}
    if report.compare_with:
        document["comparison"] = {
            "with": report.compare_with,
            **comparison(measurements, report.compare_with, report.paired, report.bootstrap, report.seed),
        }
    write_json(out / "corpus.json", document)
    for folder in (out / "tables", out / "figures"):
        folder.mkdir(exist_ok=True)
    for suffix, form in tables.FORMATS.items():
        pages = {
            "density": form(tables.HEAD, tables.density_rows(config.name, summary)),
            "categories": form(tables.HEAD, tables.density_rows(config.name, summary, categories=True)),
            "published": form(["benchmark", "V_den", "A_den", "O_den"], tables.comparison_rows(config.name, summary)),
        }
        for name, text in pages.items():
            (out / "tables" / f"{name}.{suffix}").write_text(text, encoding="utf-8")
    drawn = {"scatter": figures.png(figures.scatter(config.name, summary))}
    if (histograms := figures.histograms(measurements, summary)) is not None:
        drawn["histograms"] = figures.png(histograms)
    for name, data in drawn.items():
        (out / "figures" / f"{name}.png").write_bytes(data)
    extremes = pick_extremes(measurements, report.extremes)
    shown = {m.video for found in extremes.values() for m in found}
    strips = _strips([i for i, m in zip(corpus.items, measurements, strict=True) if m.video in shown], settings)
    notes = [*_some(corpus.notes), *_failure_notes(measurements)]
    page = render_page(config.name, measurements, summary, extremes, strips, notes, drawn)
    (out / "report.html").write_text(page, encoding="utf-8")
    print(tables.as_markdown(tables.HEAD, tables.density_rows(config.name, summary)), end="")
    _say(f"report: {out / 'report.html'}")


def _each_once(corpus: Corpus, measurements: Sequence[Measurement]) -> tuple[Corpus, list[Measurement]]:
    """The same without the repetitions of a video: sft and rl of one's own data hold the same ones."""
    first: dict[object, tuple[Item, Measurement]] = {}
    for item, m in zip(corpus.items, measurements, strict=True):
        values = tuple(f"{name} {value:.5g}" for name, value in sorted(m.values.items()))
        first.setdefault((m.video, m.duration, m.frames, m.failure, values), (item, m))
    notes = corpus.notes
    if again := len(measurements) - len(first):
        notes = (*notes, f"{again} videos stand in a second split too and are counted once")
        _say(notes[-1])
    items, kept = zip(*first.values(), strict=True)
    return Corpus(items, notes), list(kept)


def _some(notes: Sequence[str]) -> list[str]:
    """The first notes, and how many more there are."""
    more = len(notes) - NOTES_SHOWN
    return [*notes[:NOTES_SHOWN], *([f"and {more} more notes"] if more > 0 else [])]


def _write_videos(out: Path, measurements: Sequence[Measurement]) -> None:
    for name, chosen in (("videos", measurements), ("failures", [m for m in measurements if m.failure])):
        (out / f"{name}.jsonl").write_text("".join(m.line() + "\n" for m in chosen), encoding="utf-8")


def _failure_notes(measurements: Sequence[Measurement]) -> list[str]:
    kinds = Counter(m.failure[0] for m in measurements if m.failure)
    spoiled = [m for m in measurements if m.bad_frames]
    notes = [f"{count} videos failed: {kind}" for kind, count in sorted(kinds.items())]
    return notes + [f"{m.video}: {len(m.bad_frames)} frames with features that are not finite" for m in spoiled]


def _strips(items: Sequence[Item], settings: MeasureSettings) -> dict:
    """A few frames of each video that has media; a video whose media fails has none."""
    bare = dataclasses.replace(settings, features=dataclasses.replace(settings.features, features="none"))
    tools: Tools = make_tools(bare, has_media=False)
    found = {}
    for item in items:
        item, played = open_media(item, tools, frame_rate=1.0, size=160)
        if isinstance(played, Media) and played.frames:
            found[item.name] = strip(played.frames)
    tools.decode.close()
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr)
