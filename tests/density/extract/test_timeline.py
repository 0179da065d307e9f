"""Words and overlays on a timeline of whole seconds."""

from hypothesis import given
from hypothesis import strategies as st

from evads_jax.data.records import Event
from evads_jax.density.extract.timeline import Segment, overlays_of, speech_of, spread, to_events
from evads_jax.density.words import WORD_RULES

segments = st.lists(
    st.builds(
        lambda start, length, text: Segment(start, start + length, text),
        st.floats(0, 20),
        st.floats(0, 9),
        st.text(alphabet="ab 今天,é😀", max_size=20),
    ),
    max_size=5,
)


@given(segments)
def test_spreading_speech_over_seconds_changes_no_word_count(found):
    for rule in WORD_RULES.values():
        assert sum(map(rule, spread(found).values())) == sum(rule(s.text) for s in found)


@given(segments)
def test_words_stay_within_the_seconds_of_their_segment(found):
    for segment in found:
        for second in spread([segment]):
            assert int(segment.start) <= second <= int(segment.end)


def test_no_latin_word_is_cut():
    assert spread([Segment(0, 3, "buy one get one")]) == {0: "buy", 1: "one get", 2: "one"}
    assert spread([Segment(0.5, 2.5, "今天特价")]) == {0: "今", 1: "天特", 2: "价"}
    assert spread([Segment(0, 2, "\U0001b001\U0001b002")]) == {
        0: "\U0001b001",
        1: "\U0001b002",
    }  # old kana are one each too


def test_equal_neighbours_without_speech_become_one_run():
    events = to_events({0: ("甲",), 1: ("甲",), 2: ("甲",), 4: ("甲",), 5: ()}, {2: "说"})
    assert events == (Event(0, 1, ("甲",)), Event(2, 2, ("甲",), "说"), Event(4, 4, ("甲",)))


def test_events_give_back_their_overlays_and_speech():
    events = (Event(0, 2, ("甲",), "说"), Event(3, 3, (), "话"))
    assert overlays_of(events) == {0: ("甲",), 1: ("甲",), 2: ("甲",)}
    assert speech_of(events) == {0: "说", 3: "话"}


def test_events_that_overlap_show_the_overlays_of_each():
    events = (Event(0, 3, ("SALE",)), Event(2, 2, ("50%", "SALE")))
    assert overlays_of(events) == {0: ("SALE",), 1: ("SALE",), 2: ("SALE", "50%", "SALE"), 3: ("SALE",)}
