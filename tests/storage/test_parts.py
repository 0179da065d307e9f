import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.errors import UserError
from evads_jax.storage import parts
from evads_jax.storage.parts import Log, log_of
from tests.storage.memory import Killed, Memory


def opened(store, name="events.jsonl"):
    """The log as a process finds it, and what it holds."""
    log = Log(store, name, [part for part in store.objects if log_of(part) == name])
    return log, log.read()


LINES = st.binary(min_size=1, max_size=4)
ACTIONS = st.one_of(
    st.tuples(st.just("append"), LINES),
    st.tuples(st.just("cut"), st.integers(0, 12)),
    st.tuples(st.just("replace"), LINES),
    st.tuples(st.just("push"), st.just(0)),
    st.tuples(st.just("fail"), st.integers(0, 4)),
    st.tuples(st.just("fail late"), st.integers(0, 4)),
    st.tuples(st.just("delete"), st.integers(0, 4)),
    st.tuples(st.just("kill"), st.integers(0, 4)),
    st.tuples(st.just("kill late"), st.integers(0, 4)),
)


@given(actions=st.lists(ACTIONS, max_size=30))
def test_any_sequence_of_appends_cuts_pushes_and_kills_gives_the_log_back(actions):
    store, content, possible = Memory(), b"", {b""}
    log, _ = opened(store)
    original, parts.COMPACT = parts.COMPACT, 3
    try:
        for action, value in [*actions, ("push", 0)]:
            if action == "append":
                content += value
            elif action == "cut":
                content = content[:value]
            elif action == "replace":
                content = value + content[1:]
            elif action == "delete":
                store.left, store.arrives = value, False
                with contextlib.suppress(Killed):
                    log.delete()
                store.left = None
                possible = {opened(store)[1]}
            else:  # killed or failed at a later change than there is: a push like any other
                store.left, store.arrives = (None if action == "push" else value), action.endswith("late")
                try:
                    log.write(content)
                    possible = {content}
                except Killed:
                    possible |= {content}
                store.left = None
                assert opened(store)[1] in possible
                if action.startswith("kill"):
                    log, content = opened(store)
                    possible = {content}
    finally:
        parts.COMPACT = original
    assert opened(store)[1] == content


def test_only_what_is_new_goes_up():
    store = Memory()
    log, _ = opened(store)
    for content in (b"one\n", b"one\ntwo\n", b"one\ntwo\n", b"one\nthree\n", b"one\n"):
        log.write(content)
    names = ["00000001-0", "00000002-4", "00000003-4", "00000004-4"]
    assert store.changes == [("put", f"events.jsonl.parts/{name}") for name in names]
    assert list(store.objects.values()) == [b"one\n", b"two\n", b"three\n", b""]
    assert opened(store)[1] == b"one\n"


def test_many_parts_become_one():
    store = Memory()
    log, content = opened(store)
    for number in range(parts.COMPACT + 1):
        content += b"%d\n" % number
        log.write(content)
    assert list(store.objects.values()) == [content]
    again, held = opened(store)
    assert held == content
    again.write(content + b"on\n")
    assert len(store.objects) == 2
    assert opened(store)[1] == content + b"on\n"


def test_a_deleted_log_is_at_any_moment_a_beginning_of_itself():
    store = Memory()
    log, _ = opened(store)
    for content in (b"a", b"ab", b"abc"):
        log.write(content)
    for left in (b"ab", b"a", b""):
        store.left = 1
        with pytest.raises(Killed) if left else contextlib.nullcontext():
            log.delete()
        assert opened(store)[1] == left


def test_a_missing_part_is_named():
    store = Memory()
    log, _ = opened(store)
    for content in (b"a", b"ab", b"abc"):
        log.write(content)
    del store.objects["events.jsonl.parts/00000002-1"]
    with pytest.raises(UserError, match=r"a part of a log is missing.*00000003-2"):
        opened(store)
