import json
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.benchmark import html
from evads_jax.benchmark.chart import Series, line_chart, thin, ticks
from evads_jax.benchmark.curves import curves
from evads_jax.benchmark.evaluate import evaluate
from evads_jax.benchmark.files import Split
from evads_jax.benchmark.report import write_report
from evads_jax.errors import UserError

from .small_world import Knowing, WordJudge, jpeg, make_config, make_record

HOSTILE = (
    "</pre></script><script>alert('x')</script><img src=x onerror=alert(1)> &amp; \x00\x1b\u202e\ud800 ]]> {{7*7}}"
)


def parse(text):
    """The document as XML: fails on anything that is not well formed."""
    return ET.fromstring(text.removeprefix("<!DOCTYPE html>\n"))


@pytest.fixture
def run(make_run):
    workdir = make_run()
    events = [{"schema": 1, "kind": "run", "time": 0, "environment": {"jax": "0.0", "commit": None}}]
    for stage, fields in (("sft", {"loss": 2.0}), ("mg_grpo", {"loss": 0.1, "reward": 0.3, "kl": 0.01, "entropy": 1})):
        for step in range(50):
            values = {k: v * math.exp(-step / 20) for k, v in fields.items()}
            events.append({"schema": 1, "kind": "train", "stage": stage, "step": step, **values, "seconds": 1.0})
    events.append({"schema": 1, "kind": "validation", "stage": "sft", "step": 20, "loss": 1.0})
    events.append({"schema": 1, "kind": "prepare", "time": 0, "bad_rows": 3, "detail": "<b>row</b>"})
    (workdir / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    return workdir


def test_the_report_is_one_well_formed_file_without_scripts_or_links_outside(run, records):
    text = write_report(run, records).read_text(encoding="utf-8")
    root = parse(text)
    assert not list(root.iter("script"))
    sources = [e.get("src") or e.get("href") for e in root.iter() if e.get("src") or e.get("href")]
    assert sources
    assert all(s.startswith(("data:image/jpeg;base64,", "#")) for s in sources)
    assert "http" not in text.replace("http-equiv", "")
    assert root.find(".//meta[@name='viewport']") is not None
    assert "prefers-color-scheme: dark" in text
    assert "image-rendering: pixelated" in text


def test_the_report_shows_scores_curves_videos_completions_failures_and_environment(run, records):
    root = parse(write_report(run, records).read_text(encoding="utf-8"))
    assert [s.get("id") for s in root.iter("section")] == [
        "scores",
        "curves",
        "gallery",
        "completions",
        "failures",
        "environment",
    ]
    section = {s.get("id"): s for s in root.iter("section")}
    said = {name: " ".join("".join(s.itertext()).split()) for name, s in section.items()}
    titles = {figure.findtext("b") for figure in section["curves"].iter("figure")}
    assert {"Loss (supervised)", "Loss (reinforced)", "Validation loss", "Reward", "Entropy"} <= titles
    assert len(list(section["gallery"].iter("article"))) == 12
    assert len(list(section["gallery"].iter("img"))) == 24
    assert len(list(section["completions"].iter("pre"))) == 10 * 5
    assert "prompts that lost event lines to fit" in said["failures"]
    assert "bad_rows: 3" in said["failures"]
    assert "<b>row</b>" in said["failures"]
    assert "strict" not in said["environment"]
    assert "words" in said["environment"]


def test_hostile_text_from_data_and_model_stays_text(tmp_path):
    import dataclasses

    record = make_record(0)
    questions = tuple(
        dataclasses.replace(q, id=q.id + HOSTILE.replace("\ud800", ""), question=HOSTILE, answer=HOSTILE)
        for q in record.questions
    )
    record = dataclasses.replace(record, video=HOSTILE, questions=questions, category=HOSTILE, facts={HOSTILE: HOSTILE})

    class Hostile(Knowing):
        def _answer(self, question):
            return HOSTILE

    evaluate(Hostile(0.0, HOSTILE, extra=HOSTILE), Split.of([record]), tmp_path, "sft", WordJudge(), make_config())
    text = write_report(tmp_path, [record]).read_text(encoding="utf-8")
    root = parse(text)
    assert not list(root.iter("script"))
    assert all(e.get("onerror") is None for e in root.iter())
    assert "<script" not in text
    assert "\u202e" not in text
    shown = "".join(root.itertext())
    assert "<script>alert('x')</script>" in shown
    assert "{{7*7}}" in shown


def test_a_run_without_events_or_labels_has_a_report_too(make_run):
    workdir = make_run(labelled=False)
    records = [make_record(n, labelled=False) for n in range(18)]
    assert "No training steps" in write_report(workdir, records).read_text(encoding="utf-8")


def test_missing_verdicts_are_listed_with_their_reason(make_run, records):
    workdir = make_run(missing={("v0", "BP")})
    root = parse(write_report(workdir, records).read_text(encoding="utf-8"))
    rows = ["|".join("".join(td.itertext()) for td in tr) for tr in root.iter("tr")]
    assert "sft|missing verdicts: no reply|1" in rows


def test_an_evaluation_of_another_protocol_is_named_and_does_not_stop_the_report(run, split, records):
    evaluate(Knowing(0.4, "sft", format="asr_ocr"), split, run, "sft", WordJudge(), make_config())
    assert "different protocol.format" in write_report(run, records).read_text(encoding="utf-8")


def test_a_folder_without_evaluation_is_a_clear_error(tmp_path, records):
    with pytest.raises(UserError, match="no evaluation"):
        write_report(tmp_path, records)


def test_large_frames_are_made_small_and_unreadable_ones_do_not_stop_the_report(run, records):
    import dataclasses

    records[0] = dataclasses.replace(records[0], frames=(jpeg(9, size=2000), b"no jpeg"))
    many = [dataclasses.replace(r, frames=records[0].frames) for r in records]
    text = write_report(run, many).read_text(encoding="utf-8")
    parse(text)
    assert "data:," in text
    assert len(text) < 1_000_000


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_escaped_text_parses_back_to_what_was_written(text):
    element = ET.fromstring(f'<a b="{html.escape(text)}">{html.escape(text)}</a>')
    kept = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]", "", text)
    written = element.text or ""
    assert [c for c in written if c != "▯"] == [c for c in kept.replace("\r\n", "\n").replace("\r", "\n") if c != "▯"]


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e30, 1e30) | st.just(math.nan) | st.just(math.inf)), max_size=600)
)
def test_any_numbers_give_a_well_formed_chart_inside_its_frame(points):
    chart = line_chart("t", [Series("s", tuple(sorted(points, key=lambda p: p[0])))])
    if any(math.isfinite(y) for _, y in points):
        path = ET.fromstring(chart).find(".//path").get("d")
        numbers = np.array([float(x) for x in re.findall(r"[-\d.]+", path)]).reshape(-1, 2)
        assert (numbers >= -0.1).all()
        assert (numbers <= [420.1, 220.1]).all()


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_enclose_the_data_with_few_round_steps(low, span):
    marks = ticks(low, low + span, 4)
    assert marks[0] <= low + 1e-6 * span
    assert marks[-1] >= low + span - 1e-6 * span
    assert 2 <= len(marks) <= 8


def test_thinning_keeps_the_mean_and_short_lines_as_they_are():
    points = [(float(i), float(i % 7)) for i in range(960)]
    thinned = thin(points)
    assert len(thinned) <= 240
    assert np.mean([y for _, y in thinned]) == pytest.approx(np.mean([y for _, y in points]))
    assert thin(points[:9]) == tuple(points[:9])


def test_a_null_in_the_events_breaks_the_line_and_not_the_report():
    events = [{"kind": "train", "stage": "sft", "step": s, "loss": None if s == 1 else 1.0 * s} for s in range(4)]
    assert curves(events).count("M") >= 2
