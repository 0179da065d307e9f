"""Audio in windows, from files and from shards."""

import numpy as np
import pytest

from density.films import film
from evads_jax.data import media, shards
from evads_jax.data.records import VideoRecord
from evads_jax.density.extract import speech
from evads_jax.density.extract.speech import WINDOW_SECONDS, Window, transcribe, windows
from evads_jax.density.extract.timeline import Segment
from evads_jax.density.scale.records import ShardVideos
from evads_jax.density.settings import SpeechSettings
from evads_jax.errors import UserError


def loud(window: Window) -> list[Segment]:
    """Hears a word wherever a second is loud."""
    seconds = window.samples.reshape(WINDOW_SECONDS, -1)
    return [Segment(i, i + 1, "loud") for i in range(WINDOW_SECONDS) if np.abs(seconds[i]).max() > 0.5]


def test_windows_have_one_shape_and_lose_nothing():
    audio = np.random.default_rng(0).uniform(-1, 1, 70 * 16_000).astype(np.float32)
    found = list(windows(audio))
    assert [(w.start, w.length) for w in found] == [(0, 30), (30, 30), (60, 10)]
    assert {w.samples.shape for w in found} == {(WINDOW_SECONDS * 16_000,)}
    assert np.abs(np.concatenate([w.samples for w in found])[: len(audio)] - audio).max() < 2e-5


def test_times_are_those_of_the_whole_track():
    audio = np.zeros(65 * 16_000, np.float32)
    audio[62 * 16_000 + 10] = 0.9
    assert transcribe(audio, loud) == [Segment(62, 63, "loud")]


def test_an_mp4_and_the_shards_made_of_it_give_the_same_windows_bit_for_bit(tmp_path):
    path = film(tmp_path / "a.mp4", scenes=2, audio=True)
    played = media.decode(path, 1, 6, 64)
    record = VideoRecord(
        "a",
        tuple(map(media.encode_jpeg, played.frames)),
        played.times,
        played.duration,
        (),
        media.encode_flac(played.audio),
    )
    shards.write([record], tmp_path / "shards" / "all", split="all")
    [shard] = (tmp_path / "shards" / "all").glob("*.array_record")
    _, from_shard = ShardVideos()(str(shard), 0)
    for a, b in zip(windows(played.audio), windows(from_shard.audio), strict=True):
        assert (a.start, a.length) == (b.start, b.length)
        assert np.array_equal(a.samples, b.samples)


def test_whisper_without_its_extra_or_its_model_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(speech, "installed", lambda: False)
    with pytest.raises(UserError, match="not installed"):
        speech.WhisperTranscriber(SpeechSettings(model=str(tmp_path)))
    monkeypatch.setattr(speech, "installed", lambda: True)
    with pytest.raises(UserError, match=r"holds model\.bin"):
        speech.WhisperTranscriber(SpeechSettings(model=str(tmp_path)))


@pytest.mark.skipif(not speech.installed(), reason="needs the extra asr")
def test_the_voice_activity_detector_hears_nothing_in_silence():
    from faster_whisper.vad import get_speech_timestamps

    assert get_speech_timestamps(np.zeros(WINDOW_SECONDS * 16_000, np.float32)) == []
