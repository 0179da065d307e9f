"""The error rate of hearing, with voices and hearers of known skill."""

import numpy as np
import pytest

from evads_jax.data.media import SAMPLE_RATE
from evads_jax.density import measure_asr
from evads_jax.density.extract.timeline import Segment
from evads_jax.density.measure_asr import NOISES, accuracy_table, error_rate, letters, noisy, sentences
from evads_jax.errors import UserError

VOICE = np.sin(np.arange(SAMPLE_RATE) / 10).astype(np.float32) / 2


@pytest.fixture
def said(monkeypatch):
    """What the voice has said, in order."""
    texts = []

    def speak(events, duration, language):
        texts.extend(event.asr for event in events)
        return np.pad(VOICE, (0, SAMPLE_RATE * duration - len(VOICE)))

    monkeypatch.setattr(measure_asr, "speak", speak)
    monkeypatch.setattr(measure_asr, "speaker", lambda: "a voice")
    return texts


def test_a_perfect_hearer_makes_no_errors_and_a_deaf_one_nothing_but(said):
    texts = sentences("en")
    assert len(set(texts)) == measure_asr.SENTENCES
    assert error_rate(texts, "en", lambda window: [Segment(0, 1, said[-1].upper() + " !")], None) == 0
    assert said == texts
    assert error_rate(texts, "en", lambda window: [], None) == 1
    wrong = error_rate(texts, "en", lambda window: [Segment(0, 1, said[-1] + "xy")], None)
    assert wrong == pytest.approx(2 * len(texts) / sum(len(letters(text)) for text in texts))


def test_noise_is_as_far_below_the_voice_as_it_says():
    audio = np.pad(VOICE, (0, 3 * SAMPLE_RATE))
    for decibels in (20, 5):
        noise = noisy(audio, decibels, 0) - audio
        found = 10 * np.log10(np.mean(np.square(VOICE)) / np.mean(np.square(noise)))
        assert found == pytest.approx(decibels, abs=0.1)
    assert not noisy(np.zeros(10, np.float32), 5, 0).any()


def test_only_letters_and_digits_count_in_one_width_and_case():
    assert letters("Ｓale: 5０ %, 限时！") == "sale50限时"


def test_the_table_has_a_row_a_language_and_a_column_a_noise(said):
    hears = [lambda window: [Segment(0, 1, said[-1])], lambda window: []]
    head, _, english, chinese = accuracy_table(dict(zip(("en", "zh"), hears, strict=True))).split("\n")
    assert head.count("noise") == len(NOISES)
    assert english == "| en | 0.0 % | 0.0 % | 0.0 % |"
    assert chinese == "| zh | 100.0 % | 100.0 % | 100.0 % |"


def test_without_a_voice_it_is_one_line(monkeypatch):
    monkeypatch.setattr(measure_asr, "speaker", lambda: "tones")
    with pytest.raises(UserError, match="no voice"):
        accuracy_table({})
