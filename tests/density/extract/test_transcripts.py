"""Transcripts as users have them."""

import json

import pytest

from evads_jax.density.extract.timeline import Segment
from evads_jax.density.extract.transcripts import UnreadableTranscript, read_transcript

SRT = "1\n00:00:01,500 --> 00:00:03,000\nHello <i>there</i>\nagain\n\n2\n00:01:00,000 --> 00:01:02,000\n你好\n"
VTT = (
    "WEBVTT\n\nNOTE a note\n\nintro\n00:01.500 --> 00:03.000 align:start\nHello <b>there</b>\nagain\n\n"
    "01:00.000 --> 01:02.000\n你好\n"
)
EXPECTED = (Segment(1.5, 3.0, "Hello there again"), Segment(60.0, 62.0, "你好"))


def written(tmp_path, name: str, text: str, encoding: str = "utf-8"):
    (tmp_path / name).write_text(text, encoding=encoding)
    return tmp_path / name


@pytest.mark.parametrize(("name", "text"), [("a.srt", SRT), ("a.vtt", VTT), ("b.srt", SRT.replace("\n", "\r\n"))])
def test_srt_and_vtt_give_the_same_segments(tmp_path, name, text):
    assert read_transcript(written(tmp_path, name, text)) == EXPECTED


def test_a_byte_order_mark_is_no_text(tmp_path):
    assert read_transcript(written(tmp_path, "a.srt", SRT, "utf-8-sig")) == EXPECTED


def test_json_holds_segments_or_events(tmp_path):
    rows = [{"start": 60, "end": 62, "text": "你好"}, {"start": 1.5, "end": 3, "text": " Hello there again "}]
    for name, content in (("list.json", rows), ("object.json", {"language": "zh", "segments": rows})):
        assert read_transcript(written(tmp_path, name, json.dumps(content))) == EXPECTED
    events = [{"start": 0, "end": 1, "ocr": ["x"], "asr": "你好"}, {"start": 4, "ocr": ["x"]}]
    assert read_transcript(written(tmp_path, "e.json", json.dumps(events))) == (Segment(0, 2, "你好"),)


def test_event_lines_are_the_annotations_own(tmp_path):
    text = 'Time 0-1s: OCR Text: [x] ; ASR Text: "你好"\nTime 3s: ASR Text: "ok"\n'
    assert read_transcript(written(tmp_path, "a.txt", text)) == (Segment(0, 2, "你好"), Segment(3, 4, "ok"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.srt", "no cue at all"),
        ("a.srt", "1\n00:00:05,000 --> 00:00:01,000\nbackwards\n"),
        ("a.json", "{"),
        ("a.json", '{"text": "no times"}'),
        ("a.json", "[1, 2]"),
        ("a.json", '[{"text": "no times"}]'),
        ("a.txt", "no event line"),
        ("a.doc", "x"),
    ],
)
def test_what_is_no_transcript_is_refused_by_name(tmp_path, name, text):
    with pytest.raises(UnreadableTranscript, match=name.replace(".", r"\.")):
        read_transcript(written(tmp_path, name, text))


def test_another_encoding_is_refused(tmp_path):
    with pytest.raises(UnreadableTranscript, match="UTF-8"):
        read_transcript(written(tmp_path, "a.srt", SRT, "gb18030"))


def test_an_empty_transcript_says_nothing(tmp_path):
    assert read_transcript(written(tmp_path, "a.srt", "")) == ()
    assert read_transcript(written(tmp_path, "a.vtt", "WEBVTT\n")) == ()
