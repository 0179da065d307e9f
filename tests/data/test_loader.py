"""The loader: every unit once an epoch, and a position that is restored exactly."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evads_jax.data import shards
from evads_jax.data.loader import make_loader
from evads_jax.data.records import Question, VideoRecord

VIDEOS = 13


def record(index: int) -> VideoRecord:
    questions = tuple(Question(f"{index}/{k}", "?", "!") for k in range(1 + index % 3))
    return VideoRecord(f"{index}", (b"jpeg",), (0.0,), 1.0, questions)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loader")
    shards.write([record(i) for i in range(VIDEOS)], folder, split="sft", per_shard=5)
    return shards.RecordSource(folder)


def name(video: VideoRecord, question: int | None) -> str:
    return video.video if question is None else video.questions[question].id


def loader(source, transform=name, **options):
    return make_loader(source, transform, list, **({"batch": 4} | options))


@pytest.mark.parametrize("unit", ["video", "question"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_gives_every_unit_once(source, unit, shuffle):
    batches = list(loader(source, unit=unit, shuffle=shuffle, epochs=1, drop_remainder=False))
    names = [name for batch in batches for name in batch]
    videos = [record(i) for i in range(VIDEOS)]
    expected = [v.video for v in videos] if unit == "video" else [q.id for v in videos for q in v.questions]
    assert (sorted(names) == sorted(expected)) if shuffle else names == expected
    assert not shuffle or names != expected


def test_every_epoch_has_its_own_order_and_the_same_seed_the_same(source):
    def order(seed):
        return [x for batch in loader(source, seed=seed, epochs=2, drop_remainder=False) for x in batch]

    names = order(0)
    assert sorted(names[:VIDEOS]) == sorted(names[VIDEOS:])
    assert names[:VIDEOS] != names[VIDEOS:]
    assert names == order(0) != order(1)


def test_batches_have_one_size_and_the_remainder_is_dropped(source):
    assert {len(batch) for batch in loader(source, epochs=1)} == {4}
    assert len(list(loader(source, epochs=1))) == VIDEOS // 4


@given(before=st.integers(0, 12), unit=st.sampled_from(["video", "question"]))
def test_a_restored_iterator_goes_on_exactly_where_the_saved_one_did(source, before, unit):
    running = loader(source, unit=unit)
    list(itertools.islice(running, before))
    state = running.get_state()
    expected = list(itertools.islice(running, 6))
    fresh = loader(source, unit=unit)
    next(fresh)
    fresh.set_state(state)
    assert list(itertools.islice(fresh, 6)) == expected


@pytest.mark.parametrize("rows", [[[0, 1], [2, 3]], [[0, 2], [1, 3]], [[3], [0, 1, 2]]])
@pytest.mark.parametrize("drop_remainder", [True, False])
def test_the_rows_of_all_processes_are_the_batches_of_one(source, rows, drop_remainder):
    options = {"epochs": 1, "seed": 3, "drop_remainder": drop_remainder}  # 13 videos: the last batch is of one
    whole = list(loader(source, **options))
    parts = [list(loader(source, rows=part, **options)) for part in rows]
    assert [len(part) for part in parts] == [len(whole)] * 2
    for batch, *read in zip(whole, *parts, strict=True):
        at = {row: name for part, names in zip(rows, read, strict=True) for row, name in zip(part, names, strict=False)}
        assert [at[row] for row in sorted(at)] == batch


@settings(max_examples=10)
@given(before=st.integers(0, 7), rows=st.lists(st.integers(0, 3), unique=True, min_size=1))
def test_a_place_is_that_of_any_number_of_processes(source, before, rows):
    first, one, part = loader(source, rows=rows), loader(source), loader(source, rows=[3, 0])
    list(itertools.islice(first, before))
    for other in (one, part):
        other.set_state(first.get_state())
    for _ in range(3):
        whole = next(one)
        assert next(part) == [whole[3], whole[0]]


@pytest.mark.timeout(120)
def test_worker_processes_give_the_same_batches_from_the_same_place(source):
    plain, running = loader(source, batch=2), loader(source, workers=2, batch=2)
    next(plain)
    running.set_state(plain.get_state())
    assert [next(running) for _ in range(3)] == [next(plain) for _ in range(3)]
    assert running.get_state() == plain.get_state()


def test_what_a_transform_draws_differs_between_epochs_and_is_the_same_after_a_restart(source):
    def draw(video, question, rng):
        return video.video, int(rng.integers(1 << 30))

    def batches():
        return loader(source, draw, seed=5, epochs=3, random=True)

    everything = list(itertools.islice(batches(), 9))
    drawn = [value for batch in everything for _, value in batch]
    assert len(set(drawn)) == len(drawn)
    iterator = batches()
    first = [next(iterator) for _ in range(4)]
    state = iterator.get_state()
    again = batches()
    again.set_state(state)
    assert first + list(itertools.islice(again, 5)) == everything
    part = loader(source, draw, seed=5, epochs=3, random=True, rows=[2])
    assert [batch[0] for batch in part] == [batch[2] for batch in everything]
