"""Stand-in videos of annotated rows."""

import dataclasses

import numpy as np
import pytest

from evads_jax.data import media
from evads_jax.data.records import Event, Example, Question
from evads_jax.data.render import fonts, speech, standin

EXAMPLE = Example(
    Question("q", "?", "!"),
    "../videos/1.mp4",
    duration=6,
    events=(Event(0, 1, ("限时8折",), "今天很便宜"), Event(3, 3, (), "再见"), Event(4, 9, ("END",))),
    source="sft",
)


def taken(tmp_path, example=EXAMPLE):
    standin.draw_standin(example, tmp_path / "v.mp4", "zh")
    result = media.decode(tmp_path / "v.mp4", 1.0, 100, 224)
    assert isinstance(result, media.Media)
    return result


def test_overlay_and_speech_stand_at_their_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(speech, "speaker", lambda: "tones")
    result = taken(tmp_path)
    assert len(result.frames) == result.duration == 6
    assert max(result.frames[0].shape) == 224
    dark = [(np.asarray(f, int)[10:24].max(-1) < 60).mean() > 0.4 for f in result.frames]
    assert dark == [True, True, False, False, True, True]
    loud = [np.abs(second).max() > 0.01 for second in result.audio.reshape(6, -1)]
    assert loud == [True, True, False, True, False, False]


def test_the_judges_overlays_are_drawn_where_the_policys_events_have_none(tmp_path):
    spoken = tuple(dataclasses.replace(e, ocr=()) for e in EXAMPLE.events)
    row = dataclasses.replace(EXAMPLE, events=spoken, judge_events=EXAMPLE.events, source="rl")
    np.testing.assert_array_equal(taken(tmp_path, row).frames, taken(tmp_path).frames)


def test_a_stand_in_is_the_same_each_time_and_another_for_another_video(tmp_path):
    standin.draw_standin(EXAMPLE, tmp_path / "a.mp4", "zh")
    standin.draw_standin(EXAMPLE, tmp_path / "b.mp4", "zh")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    other = dataclasses.replace(EXAMPLE, video="../videos/2.mp4")
    standin.draw_standin(other, tmp_path / "b.mp4", "zh")
    assert (tmp_path / "a.mp4").read_bytes() != (tmp_path / "b.mp4").read_bytes()


def test_a_row_without_events_or_duration_still_has_a_video(tmp_path):
    assert taken(tmp_path, Example(EXAMPLE.question, "x.mp4")).duration == 1


@pytest.mark.parametrize("found", [True, False])
def test_it_says_how_overlays_are_written(monkeypatch, found):
    monkeypatch.setattr(fonts, "cjk_font", lambda: "font.ttc" if found else None)
    assert standin.overlays() == ("cjk" if found else "latin")


def test_latin_overlays_keep_what_any_font_has_and_repetition():
    written = fonts.latin("限时8折 限 SALE！")
    assert written.isascii()
    assert "8" in written
    assert "SALE" in written
    assert written.startswith(fonts.latin("限"))


def test_espeak_is_used_where_it_is_installed(tmp_path, monkeypatch):
    """A program of that name that gives one second of a tone at 22,050 Hz."""
    wave = tmp_path / "wave.wav"
    import av

    with av.open(str(wave), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=22_050, layout="mono")
        samples = (8000 * np.sin(2 * np.pi * 300 * np.arange(22_050) / 22_050)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 22_050
        container.mux([*stream.encode(frame), *stream.encode()])
    program = tmp_path / "espeak-ng"
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "eSpeak NG 9.9 Data at: /x" || cat {wave}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    speech.speaker.cache_clear()
    try:
        assert speech.speaker() == "eSpeak NG 9.9"
        track = speech.speak(EXAMPLE.events, 6, "zh")
    finally:
        speech.speaker.cache_clear()
    assert [np.abs(second).max() > 0.1 for second in track.reshape(6, -1)] == [True, False, False, True, False, False]
