"""A_den and O_den from events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.data.records import Event
from evads_jax.density.text import OCR_COUNTING, TextSettings, overlay_density, speech_density
from evads_jax.errors import UserError

EVENTS = (
    Event(0, 1, ("限时特价", "SALE"), "今天"),
    Event(2, 2, ("限时特价", "SALE"), "来 buy one"),
    Event(4, 4, ("限时特价",)),
    Event(5, 5, (), "good"),
)


def overlays(counting: str) -> float:
    return overlay_density(EVENTS, 10, TextSettings(ocr_counting=counting)).value


def test_an_overlay_counts_in_every_second_once_a_run_or_once_a_video():
    assert overlays("per_second") == pytest.approx((5 * 3 + 4) / 10)
    assert overlays("per_run") == pytest.approx((5 + 4) / 10)
    assert overlays("distinct") == pytest.approx(5 / 10)


def test_speech_counts_once_over_the_seconds_of_its_event():
    result = speech_density(EVENTS, 10, TextSettings())
    assert result.value == pytest.approx((2 + 3 + 1) / 10)
    assert result.curve == (1.0, 1.0, 3.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0)


events = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.lists(st.sampled_from(["甲", "乙丙", "ok go"]), max_size=3)),
    max_size=8,
).map(lambda parts: _timeline(parts))


def _timeline(parts: list) -> tuple[Event, ...]:
    second, out = 0, []
    for gap, length, texts in parts:
        second += gap
        out.append(Event(second, second + length, tuple(texts), " ".join(texts) or None))
        second += length + 1
    return tuple(out)


@given(events)
def test_the_three_countings_are_ordered_and_their_curves_add_up(timeline):
    duration = (timeline[-1].end if timeline else 0) + 1
    results = {c: overlay_density(timeline, duration, TextSettings(ocr_counting=c)) for c in OCR_COUNTING}
    assert results["per_second"].value >= results["per_run"].value
    for result in (*results.values(), speech_density(timeline, duration, TextSettings())):
        assert sum(result.curve) == pytest.approx(result.value * duration)


@given(events)
def test_splitting_an_event_into_its_seconds_changes_no_overlay_density(timeline):
    apart = tuple(Event(s, s, e.ocr) for e in timeline for s in range(e.start, e.end + 1))
    duration = (timeline[-1].end if timeline else 0) + 1
    for counting in OCR_COUNTING:
        settings = TextSettings(ocr_counting=counting)
        together, split = (overlay_density(x, duration, settings).value for x in (timeline, apart))
        assert together == pytest.approx(split)


def test_without_duration_there_is_no_density():
    assert speech_density(EVENTS, 0, TextSettings()).missing == "zero_duration"


def test_an_unknown_rule_is_one_line():
    with pytest.raises(UserError, match="one of cjk_char_latin_run"):
        TextSettings(words="whitespace")
