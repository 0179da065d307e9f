"""The state machine, whatever the world does."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from tpu.supervise import GAVE_UP, STILL_THERE, Limits, Observation, Phase, Seen, State, Worker, advance, held

LIMITS = Limits(hosts=2, held=3000.0, wait=1000.0, attempts=3, setup=300.0, tries=4)
WORKERS = st.builds(
    Worker,
    st.sampled_from(["setup", "ready", "running", "exited"]),
    st.sampled_from([None, 0, 1, 42]),
    st.floats(0, 2000),
)
LOOKS = st.builds(
    Observation,
    st.just(0.0),
    st.sampled_from(Seen),
    st.dictionaries(st.integers(0, 1), WORKERS, max_size=2),
    st.sampled_from(["", "", "", "quota"]),
    st.sampled_from([False, False, False, True]),
)


def live(looks):
    """Plays looks 60 s apart, the last one for ever; yields (state before, look, state after, deeds)."""
    state, now = State(), 0.0
    for number in range(len(looks) + 100):
        look = dataclasses.replace(looks[min(number, len(looks) - 1)], now=now)
        after, deeds = advance(state, look, LIMITS)
        yield state, look, after, deeds
        if after.phase is Phase.DONE:
            return
        state, now = after, now + 60.0


@given(st.lists(LOOKS, min_size=1, max_size=20))
def test_a_run_ends_only_when_its_slice_is_seen_to_be_gone_or_says_that_it_is_not(looks):
    for _, look, after, _ in live(looks):
        if after.phase is Phase.DONE:
            assert after.code is not None
            assert look.slice is Seen.ABSENT or after.code == STILL_THERE


@given(st.lists(LOOKS, min_size=1, max_size=20))
def test_every_run_ends(looks):
    *_, (_, _, last, _) = live([*looks, *[Observation(0.0, Seen.ACTIVE)] * 60, Observation(0.0, Seen.ABSENT)])
    assert last.phase is Phase.DONE


@given(st.lists(LOOKS, min_size=1, max_size=20))
def test_a_second_slice_is_never_made_beside_a_first(looks):
    for _, look, _, deeds in live(looks):
        assert "create" not in deeds or look.slice is Seen.ABSENT


@given(st.lists(LOOKS, min_size=1, max_size=20))
def test_attempts_are_counted_and_nothing_is_held_for_longer_than_was_paid_for(looks):
    for before, look, after, deeds in live(looks):
        assert after.attempt <= LIMITS.attempts
        if "create" in deeds or "start" in deeds:
            assert held(before, look.now) < LIMITS.held


def test_interruption_while_a_slice_is_given_back_makes_no_further_one():
    state = State(phase=Phase.DELETE, attempt=1, acted=0.0, tries=1)
    after, deeds = advance(state, Observation(60.0, Seen.ABSENT, interrupted=True), LIMITS)
    assert (after.phase, after.code, deeds) == (Phase.DONE, 130, ())


def test_a_quota_that_is_looked_at_after_the_request_was_taken_is_told_at_once():
    state = State(phase=Phase.WAIT)
    after, deeds = advance(state, Observation(60.0, Seen.WAITING, refused="no quota"), LIMITS)
    assert (after.phase, after.code, after.why, deeds) == (Phase.DELETE, GAVE_UP, "no quota", ("delete",))
