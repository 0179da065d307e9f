"""The loader: every unit once an epoch, and a position that is restored exactly."""

import itertools

import pytest
from hypothesis import given
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


def without_threes(video: VideoRecord, question: int | None) -> str | None:
    return None if "3" in video.video else name(video, question)


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


def test_what_the_transform_leaves_out_leaves_no_gap(source):
    names = [x for batch in loader(source, without_threes, epochs=1, drop_remainder=False) for x in batch]
    assert sorted(names) == sorted(str(i) for i in range(VIDEOS) if "3" not in str(i))


@given(before=st.integers(0, 12), unit=st.sampled_from(["video", "question"]))
def test_a_restored_iterator_goes_on_exactly_where_the_saved_one_did(source, before, unit):
    running = loader(source, without_threes, unit=unit)
    list(itertools.islice(running, before))
    state = running.get_state()
    expected = list(itertools.islice(running, 6))
    fresh = loader(source, without_threes, unit=unit)
    next(fresh)
    fresh.set_state(state)
    assert list(itertools.islice(fresh, 6)) == expected


def test_processes_share_an_epoch_between_them(source):
    parts = [
        [x for b in loader(source, epochs=1, process_index=i, process_count=3, drop_remainder=False) for x in b]
        for i in range(3)
    ]
    assert sorted(x for part in parts for x in part) == sorted(str(i) for i in range(VIDEOS))
    assert {len(part) for part in parts} == {4, 5}


@pytest.mark.timeout(120)
def test_worker_processes_restore_exactly_too(source):
    running = loader(source, workers=1, batch=2)
    first = [next(running) for _ in range(3)]
    state = running.get_state()
    expected = [next(running) for _ in range(3)]
    fresh = loader(source, workers=1, batch=2)
    fresh.set_state(state)
    assert [next(fresh) for _ in range(3)] == expected
    assert first == [batch for batch, _ in zip(loader(source, batch=2), range(3), strict=False)]


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
