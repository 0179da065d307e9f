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
from typing import Any

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
from evads_jax.density.measurement import VISUAL, Measurement, read_lines
from evads_jax.density.report import figures, tables
from evads_jax.density.report.corpus import comparison, corpus_summary, write_json
from evads_jax.density.report.page import pick_extremes, render_page, strip
from evads_jax.density.results import Results, collect, read_at, read_measured, read_questions, write_events
from evads_jax.density.scale.local import run_local
from evads_jax.density.scale.parts import partition
from evads_jax.density.settings import MeasureSettings
from evads_jax.errors import UserError

NOTES_SHOWN = 20
COMPARISON = "comparison"  # what corpus.json and a table call the difference to another corpus


def run(config: config_dict.ConfigDict, workdir: Path) -> None:
    """Measures the corpus that the config names; goes on where an earlier call in the same folder stopped.

    Args:
        config: from configs/density.py.
        workdir: results go to its folder `density`.

    Raises:
        UserError: no input, nothing readable in it, an engine without its model, or too many failures.
    """
    settings = MeasureSettings.from_config(config)
    check(config)
    asked = read_questions(config.questions) if config.questions else []
    other = read_measured(config.report.compare_with) if config.report.compare_with else None
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
    found = collect(parts, folder, out, each_once=bool(config.shards))
    notes = _notes(found, settings)
    if config.write_events:
        lost = sorted(write_events(out, read_lines(out / "videos.jsonl"), asked))
        notes += [f"questions about a video that was not measured: {video}" for video in lost]
    for note in _some(notes):
        _say(note)
    write_report(out, config, settings, found, other, [*_some(corpus.notes), *_some(notes)])


def check(config: config_dict.ConfigDict) -> None:
    """What no measuring can make right.

    Raises:
        UserError: sources that exclude each other, or a field that would do nothing.
    """
    named = [source for source in ("videos", "shards", "annotations") if config[source]]
    if not named:
        raise UserError("nothing to measure", "config", "give --config.videos, --config.shards or --config.annotations")
    if "videos" in named and "shards" in named:
        raise UserError("both videos and shards are given", "config", "give one of them")
    for field in ("annotations", "transcripts"):
        if "shards" in named and config[field]:
            do = "shards hold their own annotations; measure the videos with them instead"
            raise UserError(f"{field} beside shards", f"config.{field}", do)
    if config.split and not config.shards:
        raise UserError("a split without shards", "config.split", "it is a folder of config.shards")
    if config.questions and not config.write_events:
        raise UserError("questions to which no events are added", "config.questions", "set --config.write_events=True")
    if config.name == COMPARISON:
        raise UserError(f"a corpus cannot be called {COMPARISON!r}", "config.name", "corpus.json has that for another")


def read_corpus(config: config_dict.ConfigDict) -> Corpus:
    """The corpus from the sources that the config names.

    Raises:
        UserError: one cannot be read.
    """
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


def write_report(
    out: Path,
    config: config_dict.ConfigDict,
    settings: MeasureSettings,
    found: Results,
    other: Sequence[Measurement] | None,
    notes: Sequence[str],
) -> None:
    """Writes corpus.json, tables, figures and the page, and prints the table.

    Args:
        out: W/density.
        config: from configs/density.py.
        settings: the rules.
        found: the corpus's results.
        other: those of the corpus to compare with; None: no comparison.
        notes: lines for the page.
    """
    report, measurements = config.report, found.measurements
    summary = corpus_summary(measurements, settings.rules, report.bootstrap, report.seed, report.bins)
    document: dict[str, Any] = {config.name: summary}
    pages = {
        "density": (tables.HEAD, tables.density_rows(config.name, summary)),
        "categories": (tables.HEAD, tables.density_rows(config.name, summary, categories=True)),
        "published": (tables.PUBLISHED_HEAD, tables.comparison_rows(config.name, summary)),
    }
    if other is not None:
        compared = comparison(measurements, other, report.paired, report.bootstrap, report.seed)
        document[COMPARISON] = {"with": report.compare_with, **compared}
        pages[COMPARISON] = (tables.DIFFERENCE_HEAD, tables.difference_rows(compared))
    write_json(out / "corpus.json", document)
    for folder in (out / "tables", out / "figures"):
        folder.mkdir(exist_ok=True)
    for suffix, form in tables.FORMATS.items():
        for name, (head, rows) in pages.items():
            (out / "tables" / f"{name}.{suffix}").write_text(form(head, rows), encoding="utf-8")
    drawn = {"scatter": figures.png(figures.scatter(config.name, summary))}
    if (histograms := figures.histograms(measurements, summary)) is not None:
        drawn["histograms"] = figures.png(histograms)
    for name, data in drawn.items():
        (out / "figures" / f"{name}.png").write_bytes(data)
    places = pick_extremes(measurements, report.extremes)
    shown = read_at(out, {i for chosen in places.values() for i in chosen})
    extremes = {heading: [shown[i] for i in chosen] for heading, chosen in places.items()}
    strips = _strips([found.items[i] for i in sorted(shown)], settings)
    page = render_page(config.name, len(measurements), summary, pages, extremes, strips, notes, drawn)
    (out / "report.html").write_text(page, encoding="utf-8")
    print(tables.as_markdown(*pages["density"]), end="")
    _say(f"report: {out / 'report.html'}")


def _some(notes: Sequence[str]) -> list[str]:
    """The first notes, and how many more there are."""
    more = len(notes) - NOTES_SHOWN
    return [*notes[:NOTES_SHOWN], *([f"and {more} more notes"] if more > 0 else [])]


def _notes(found: Results, settings: MeasureSettings) -> list[str]:
    """What a reader must know of these results beside their numbers."""
    notes = []
    if found.repeated:
        notes.append(f"{found.repeated} videos stand in a second split too and are counted once")
    kinds = Counter(m.failure[0] for m in found.measurements if m.failure)
    notes += [f"{count} videos failed: {kind}" for kind, count in sorted(kinds.items())]
    rate = settings.features.frame_rate
    seen = [m for m in found.measurements if m.frames and m.duration and not m.values.keys().isdisjoint(VISUAL)]
    if few := sum(m.frames < 0.9 * rate * m.duration - 1 for m in seen if m.duration):
        why = "shards hold the frames that they were made with; a video gives at most visual.max_frames"
        notes.append(f"{few} videos show fewer than visual.frame_rate={rate:g} frames a second: {why}")
    return notes + [
        f"{m.video}: {len(m.bad_frames)} frames with features that are not finite"
        for m in found.measurements
        if m.bad_frames
    ]


def _strips(items: Sequence[Item], settings: MeasureSettings) -> dict:
    """A few frames of each video that has media; a video whose media fails has none."""
    bare = dataclasses.replace(settings, features=dataclasses.replace(settings.features, features="none"))
    tools: Tools = make_tools(bare, has_media=False)
    tools.records.ahead = False  # a few videos of many shards
    found = {}
    for item in items:
        item, played = open_media(item, tools, frame_rate=1.0, size=160)
        if isinstance(played, Media) and played.frames:
            found[item.name] = strip(played.frames)
    tools.close()
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr)
