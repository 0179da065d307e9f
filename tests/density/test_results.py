"""From the parts' files to those that a user reads."""

import dataclasses
import json
import tracemalloc

import pytest

from evads_jax.data.records import Event
from evads_jax.density.items import Item
from evads_jax.density.measurement import Measurement, read_lines
from evads_jax.density.report.corpus import comparison
from evads_jax.density.results import collect, read_at, read_measured, read_questions, write_events
from evads_jax.density.scale.parts import Part
from evads_jax.errors import UserError

EVENTS = (Event(0, 1, ("限时特价\u2028",), "今天"),)


def made(number: int, seconds: int = 3, **changes) -> Measurement:
    curve = tuple(number + second / 7 for second in range(seconds))
    return Measurement(
        f"{number}.mp4", None, float(seconds), {"A_den": float(number)}, {"V_den": "why"}, {"A_den": curve}, **changes
    )


def finished(folder, *groups: list[Measurement]) -> list[Part]:
    folder.mkdir()
    parts = [Part(k, tuple(Item(f"place {m.video}") for m in group)) for k, group in enumerate(groups)]
    for part, group in zip(parts, groups, strict=True):
        part.done(folder).write_text("".join(m.line() + "\n" for m in group), encoding="utf-8")
    return parts


def test_every_video_is_written_whole_and_held_without_its_curves(tmp_path):
    groups = [made(0, events=EVENTS), made(1, failure=("empty", "0 bytes"))], [made(2)]
    parts = finished(tmp_path / "parts", *groups)
    found = collect(parts, tmp_path / "parts", tmp_path, each_once=False)
    whole = [m for group in groups for m in group]
    assert [m.video for m in read_lines(tmp_path / "videos.jsonl")] == ["0.mp4", "1.mp4", "2.mp4"]
    assert (tmp_path / "videos.jsonl").read_text(encoding="utf-8") == "".join(m.line() + "\n" for m in whole)
    assert (tmp_path / "failures.jsonl").read_text(encoding="utf-8") == whole[1].line() + "\n"
    assert found.measurements == tuple(dataclasses.replace(m, curves={}, events=None) for m in whole)
    assert [item.name for item in found.items] == ["place 0.mp4", "place 1.mp4", "place 2.mp4"]
    assert {i: m.line() for i, m in read_at(tmp_path, {2, 0}).items()} == {i: whole[i].line() for i in (0, 2)}
    assert read_at(tmp_path, set()) == {}


def test_a_video_of_two_splits_counts_once_and_another_of_its_name_too(tmp_path):
    other = dataclasses.replace(made(0), duration=9.0)
    parts = finished(tmp_path / "parts", [made(0), made(1)], [made(1), other])
    found = collect(parts, tmp_path / "parts", tmp_path, each_once=True)
    assert [(m.video, m.duration) for m in found.measurements] == [("0.mp4", 3.0), ("1.mp4", 3.0), ("0.mp4", 9.0)]
    assert found.repeated == 1
    assert len(found.items) == 3
    assert len(list(read_lines(tmp_path / "videos.jsonl"))) == 3


def test_a_long_corpus_needs_memory_for_its_values_not_for_its_curves(tmp_path):
    parts = finished(tmp_path / "parts", *[[made(10 * k + i, seconds=2000) for i in range(10)] for k in range(10)])
    written = sum(part.done(tmp_path / "parts").stat().st_size for part in parts)
    tracemalloc.start()
    collect(parts, tmp_path / "parts", tmp_path, each_once=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < written / 3


def test_a_question_keeps_its_own_events_where_nothing_was_found(tmp_path):
    own = {"video": "a.mp4", "question": "?\u2028", "answer": "!", "duration": 9, "events": [{"start": 0, "asr": "x"}]}
    (tmp_path / "q.jsonl").write_text("\ufeff" + json.dumps(own, ensure_ascii=False) + "\n", encoding="utf-8")
    asked = read_questions(tmp_path / "q.jsonl")
    assert write_events(tmp_path, [Measurement("a.mp4", None, None, events=())], asked) == set()
    [row] = map(json.loads, (tmp_path / "questions.jsonl").read_text(encoding="utf-8").split("\n")[:-1])
    assert row == own


def test_questions_about_videos_that_were_not_measured_are_told(tmp_path):
    asked = [{"video": name, "question": "?", "answer": "!"} for name in ("0.mp4", "gone.mp4")]
    assert write_events(tmp_path, [made(0, events=EVENTS)], asked) == {"gone.mp4"}
    first, second = map(json.loads, (tmp_path / "questions.jsonl").read_text(encoding="utf-8").split("\n")[:-1])
    assert first["events"] == [{"start": 0, "end": 1, "ocr": ["限时特价\u2028"], "asr": "今天"}]
    assert second == asked[1]


@pytest.mark.parametrize("text", ["{", "[1]", '{"question": "?"}', '{"video": 7}', '{"video": "\\udc80"}'])
def test_what_are_no_questions_is_one_line(tmp_path, text):
    (tmp_path / "q.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="not readable as JSONL of questions"):
        read_questions(tmp_path / "q.jsonl")


def test_texts_with_other_ends_of_lines_are_compared(tmp_path):
    theirs = [Measurement("a\u2028\x85", None, 1.0, {"A_den": float(i)}) for i in range(2)]
    (tmp_path / "videos.jsonl").write_text("".join(m.line() + "\n" for m in theirs), encoding="utf-8")
    found = comparison(theirs, read_measured(tmp_path / "videos.jsonl"), paired=True, resamples=10, seed=0)
    assert found["A_den"]["mean"] == 0
