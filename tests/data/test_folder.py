"""One's own questions: what docs/your_data.md says is what happens, and a bad row is told by its line."""

import json
import re
from pathlib import Path

import pytest

from evads_jax.data.folder import read_questions
from evads_jax.data.prompts import render
from evads_jax.data.records import Event
from evads_jax.errors import UserError

GUIDE = (Path(__file__).parents[2] / "docs" / "your_data.md").read_text(encoding="utf-8")
GOOD = {"video": "a.mp4", "question": "Why?", "answer": "Because."}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The guide's folder; reading questions asks only whether the videos are there."""
    (tmp_path / "mine" / "videos").mkdir(parents=True)
    for name in ("kettle.mp4", "scarf.mp4"):
        (tmp_path / "mine" / "videos" / name).touch()
    (tmp_path / "mine" / "questions.jsonl").write_text(blocks("jsonl")[0], encoding="utf-8")
    (tmp_path / "mine" / "questions.csv").write_text(blocks("csv")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mine"


def write(folder, *rows, name="q.jsonl"):
    (folder / "a.mp4").touch()
    (folder / "b.mp4").touch()
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder / name


def test_the_guides_program_prints_what_the_guide_says(mine, capsys):
    exec(blocks("python")[0], {})
    printed = capsys.readouterr().out.strip()
    assert f"prints `{printed}`" in GUIDE


def test_the_guides_bad_row_is_told_as_the_guide_says(mine):
    with (mine / "questions.jsonl").open("a") as file:
        file.write(json.dumps(GOOD | {"video": "teapot.mp4"}) + "\n")
    bad = read_questions(mine / "questions.jsonl", mine / "videos").bad
    assert f"```\n{bad[0]}\n```" in GUIDE


def test_the_guides_jsonl_and_csv_are_read(mine):
    jsonl = read_questions(mine / "questions.jsonl", mine / "videos").examples
    csv = read_questions(mine / "questions.csv", mine / "videos").examples
    assert [e.question.task for e in jsonl] == ["BP", "ML", None]
    assert [e.question.id for e in jsonl] == ["questions:1", "questions:2", "questions:3"]
    assert [(e.video, e.question.answer) for e in csv] == [(jsonl[i].video, jsonl[i].question.answer) for i in (0, 2)]
    assert csv[0].events == (Event(0, 0, asr="look at this"),)
    assert jsonl[0].events[1] == Event(1, 3, ("50% off", "today only"), "boils in two minutes")


def test_what_belongs_to_the_video_is_stated_once_for_all_its_rows(mine):
    first, second, other = read_questions(mine / "questions.jsonl", mine / "videos").examples
    assert (first.events, first.category) == (second.events, second.category)
    assert render(first, "sft_released", "en").prefix == render(second, "sft_released", "en").prefix
    assert (other.events, other.category) == ((), None)


def test_the_guides_fields_are_all_the_fields():
    from evads_jax.data import folder

    named = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", GUIDE, re.MULTILINE)
    assert sorted(re.findall(r"\w+", " ".join(named))) == sorted((*folder.REQUIRED, *folder.OPTIONAL))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{not json", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ('{"video": "a.mp4", "question": "Why? \\ud83d", "answer": "b"}', "surrogates not allowed"),
        ({"video": "a.mp4", "question": "Why?"}, "answer is missing"),
        (GOOD | {"answer": " "}, "answer is missing"),
        (GOOD | {"answer": 7}, "answer is not a text"),
        (GOOD | {"video": "c.mp4"}, "no such video: c.mp4"),
        (GOOD | {"clue": "x"}, "unknown field 'clue'"),
        (GOOD | {"task": "XX"}, "task is 'XX'"),
        (GOOD | {"clues": "a</think>"}, "tag"),
        (GOOD | {"duration": 1.5}, "duration"),
        (GOOD | {"duration": -1}, "duration"),
        ('{"video": "a.mp4", "question": "Why?", "answer": "b", "duration": Infinity}', "duration"),
        (GOOD | {"events": {"start": 1}}, "events is not a list"),
        (GOOD | {"events": [{"start": 1}]}, "neither ocr nor asr"),
        (GOOD | {"events": [{"start": 3, "end": 1, "asr": "x"}]}, "in order"),
        (GOOD | {"events": [{"start": 0.5, "asr": "x"}]}, "whole seconds"),
        (GOOD | {"events": [{"start": 0, "text": "x"}]}, "an object of"),
        (GOOD | {"events": [{"start": 0, "ocr": [1]}]}, "list of texts"),
        (GOOD | {"id": "first"}, "taken by line 1"),
        (GOOD | {"category": "other"}, "category of a.mp4 is not that of line 1"),
    ],
)
def test_a_bad_row_is_told_by_line_and_reason_and_the_others_are_read(tmp_path, row, reason):
    first = GOOD | {"id": "first", "category": "one"}
    result = read_questions(write(tmp_path, first, "", row, GOOD | {"id": "last"}))
    assert [e.question.id for e in result.examples] == ["first", "last"]
    assert [(b.file, b.row) for b in result.bad] == [("q.jsonl", 3)]
    assert reason in result.bad[0].reason


def test_a_name_that_leads_to_another_file_than_would_be_read_is_a_bad_row(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.mp4").write_bytes(b"another video")
    (tmp_path / "mine").mkdir()
    rows = [GOOD, GOOD | {"video": "../other/a.mp4"}, GOOD | {"video": "../gone/b.mp4"}]
    for need_videos in (True, False):
        result = read_questions(write(tmp_path / "mine", *rows), need_videos=need_videos)
        assert [bad.row for bad in result.bad] == [2]
        assert "leads out of the folder" in result.bad[0].reason


def test_events_stand_in_order_of_time_each_on_one_line(tmp_path):
    events = [{"start": 4, "asr": "later"}, {"start": 0, "ocr": "one\ntext"}]
    example = read_questions(write(tmp_path, GOOD | {"events": events})).examples[0]
    assert example.events == (Event(0, 0, ("one text",)), Event(4, 4, asr="later"))


def test_a_csv_needs_its_columns_and_tells_a_row_that_is_too_long(tmp_path):
    with pytest.raises(UserError, match="no column answer"):
        read_questions(write(tmp_path, "video,question", "a.mp4,Why?", name="q.csv"))
    path = write(tmp_path, "\ufeffvideo,question,answer", 'a.mp4,"two\nlines?",b', "a.mp4,Why?,b,c", name="q.csv")
    result = read_questions(path)
    assert result.examples[0].question.question == "two\nlines?"
    assert "beyond the last column" in result.bad[0].reason


def test_files_that_cannot_be_read_are_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_questions(tmp_path / "q.jsonl")
    with pytest.raises(UserError, match="no question"):
        read_questions(write(tmp_path, "", ""))
    with pytest.raises(UserError, match="no such folder of videos"):
        read_questions(tmp_path / "q.jsonl", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"use \.jsonl or \.csv"):
        read_questions(write(tmp_path, GOOD, name="q.txt"))
    (tmp_path / "q.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        read_questions(tmp_path / "q.jsonl")
