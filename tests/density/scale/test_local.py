"""Many videos over worker processes: every one accounted for, none counted twice, whatever dies."""

import collections
import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from density.films import chaos, film, settings_of
from evads_jax.density.items import Item, from_videos
from evads_jax.density.measure import make_tools
from evads_jax.density.scale import local
from evads_jax.density.scale.local import run_local
from evads_jax.density.scale.parts import Part, partition, read_part, run_part, safely
from evads_jax.density.settings import MeasureSettings
from evads_jax.errors import UserError

SETTINGS = MeasureSettings.from_config(settings_of(**{"ocr.engine": "none"}))


def copies(folder: Path, count: int, broken_every: int = 0) -> Path:
    """`count` videos that are links to a few, some of them broken."""
    folder.mkdir(parents=True)
    kept = folder.parent / "kept"
    good = [film(kept / f"{i}.mp4", scenes=i + 1, seconds=2, seed=i) for i in range(3)]
    bad = kept / "bad.mp4"
    bad.write_bytes(good[0].read_bytes()[:700])
    for i in range(count):
        broken = broken_every and i % broken_every == broken_every - 1
        os.link(bad if broken else good[i % 3], folder / f"{i:05d}.mp4")
    return folder


def first_part_broken(folder: Path) -> tuple[Part, ...]:
    """Parts of shards: in the first all videos are broken."""
    paths = [film(folder / "v" / f"{i}.mp4", scenes=i + 2, seconds=2) for i in range(2)]
    good = tuple(Item(path.name, path=str(path)) for path in paths)
    return Part(0, (Item("gone", broken=("empty", "0 bytes")),)), Part(1, good)


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_processes_give_the_bytes_that_one_process_gives(tmp_path):
    parts = partition(from_videos(copies(tmp_path / "videos", 12)).items, 4)
    run_local(parts, SETTINGS, tmp_path / "one", workers=0, max_bad_share=0.1)
    run_local(parts, SETTINGS, tmp_path / "two", workers=2, max_bad_share=0.1)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert sorted(files(tmp_path / "one")) == ["00000.jsonl", "00001.jsonl", "00002.jsonl"]


def test_a_worker_that_is_killed_costs_nothing_but_time(tmp_path):
    parts = partition(from_videos(copies(tmp_path / "videos", 60)).items, 15)
    killed = threading.Event()

    def kill_one() -> None:
        while not killed.is_set():
            at_work = list((tmp_path / "disturbed").glob("*.partial"))
            if any(p.stat().st_size for p in at_work if p.exists()):
                os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
                killed.set()
            time.sleep(0.002)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    run_local(parts, SETTINGS, tmp_path / "disturbed", workers=1, max_bad_share=0.0)
    assert killed.is_set()
    run_local(parts, SETTINGS, tmp_path / "calm", workers=0, max_bad_share=0.0)
    assert files(tmp_path / "disturbed") == files(tmp_path / "calm")


def test_odd_and_broken_files_are_each_accounted_for_by_kind(tmp_path):
    expected = chaos(tmp_path / "videos")
    [part] = partition(from_videos(tmp_path / "videos").items, 100)
    run_local([part], SETTINGS, tmp_path / "out", workers=0, max_bad_share=0.9)
    found = {m.video: m for m in read_part(part, tmp_path / "out")}
    assert found.keys() == expected.keys()
    for name, measured in found.items():
        assert (measured.failure and measured.failure[0]) in expected[name], name
        assert ("V_blocks" in measured.values) != ("V_blocks" in measured.missing), name
    assert found["one_frame.mp4"].missing["V_blocks"] == "one_frame"
    assert found["variable_rate.mp4"].values["V_blocks"] > 0


def test_videos_with_three_percent_broken_are_all_there_once(tmp_path):
    parts = partition(from_videos(copies(tmp_path / "videos", 100, broken_every=33)).items, 30)
    run_local(parts, SETTINGS, tmp_path / "out", workers=0, max_bad_share=0.05)
    measured = [m for part in parts for m in read_part(part, tmp_path / "out")]
    assert [m.video for m in measured] == [f"{i:05d}.mp4" for i in range(100)]
    assert [m.failure[0] for m in measured if m.failure] == ["truncated"] * 3


@pytest.mark.slow
def test_ten_thousand_tiny_videos_with_three_percent_broken_are_all_there_once(tmp_path):
    parts = partition(from_videos(copies(tmp_path / "videos", 10_000, broken_every=33)).items, 500)
    run_local(parts, SETTINGS, tmp_path / "out", workers=2, max_bad_share=0.05)
    measured = [m for part in parts for m in read_part(part, tmp_path / "out")]
    assert [m.video for m in measured] == [f"{i:05d}.mp4" for i in range(10_000)]
    assert collections.Counter(m.failure[0] for m in measured if m.failure) == {"truncated": 303}


def test_too_many_failures_stop_the_job_and_what_was_measured_is_kept(tmp_path):
    parts = partition(from_videos(copies(tmp_path / "videos", 20, broken_every=2)).items, 5)
    with pytest.raises(UserError, match=r"(\d+) of 20 videos failed \(\1 truncated\)"):
        run_local(parts, SETTINGS, tmp_path / "out", workers=0, max_bad_share=0.1)
    assert "00000.jsonl" in files(tmp_path / "out")


def test_a_stopped_part_goes_on_behind_its_last_whole_line(tmp_path):
    [part] = partition(from_videos(copies(tmp_path / "videos", 4)).items, 10)
    tools = make_tools(SETTINGS)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    run_part(part, tools, SETTINGS, whole)
    first, second = part.done(whole).read_bytes().split(b"\n")[:2]
    marked = first.replace(b'"failure":null', b'"failure":["was","there"]')
    part.partial(cut).write_bytes(marked + b"\n" + second[:20])
    run_part(part, tools, SETTINGS, cut)
    tools.close()
    assert part.done(cut).read_bytes() == part.done(whole).read_bytes().replace(first, marked)
    assert not part.partial(cut).exists()


class DeadlyWorker:
    """A worker that dies whenever the video `deadly` is in work."""

    def __init__(self, settings, folder, media):
        self.folder, self.ready = folder, False
        self.pipe, self._theirs = multiprocessing.Pipe()
        self._theirs.send(local._READY)
        self.process = type("Process", (), {"exitcode": -9, "join": lambda s: None, "kill": lambda s: None})()

    def give(self, part: Part | None) -> None:
        self.part = part
        done = part.partial(self.folder).read_bytes().count(b"\n") if part and part.partial(self.folder).exists() else 0
        for item in part.items[done:] if part else ():
            if item.name == "deadly":
                self._theirs.close()
                return
            with part.partial(self.folder).open("ab") as file:
                file.write(local.failed(item, "fine", "").line().encode() + b"\n")
        if part:
            part.partial(self.folder).replace(part.done(self.folder))
            self._theirs.send(collections.Counter())


def test_a_video_that_kills_its_worker_twice_is_given_up_and_the_rest_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_Worker", DeadlyWorker)
    part = Part(0, tuple(Item(name) for name in ("a", "deadly", "b")))
    run_local([part], SETTINGS, tmp_path / "out", workers=1, max_bad_share=1.0)
    kinds = {m.video: m.failure[0] for m in read_part(part, tmp_path / "out")}
    assert kinds == {"a": "fine", "deadly": "worker_killed", "b": "fine"}


class StillbornWorker(DeadlyWorker):
    """A worker that dies before it is ready."""

    def __init__(self, settings, folder, media):
        super().__init__(settings, folder, media)
        self.pipe, self._theirs = multiprocessing.Pipe()

    def give(self, part: Part | None) -> None:
        self.part = part
        self._theirs.close()


def test_workers_that_die_before_they_are_ready_are_no_videos_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_Worker", StillbornWorker)
    part = Part(0, (Item("a"), Item("b")))
    with pytest.raises(UserError, match="die while they load their tools"):
        run_local([part], SETTINGS, tmp_path / "out", workers=1, max_bad_share=1.0)
    assert files(tmp_path / "out") == {}


def test_whatever_keeps_a_worker_from_its_tools_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_end_with_parent", lambda: None)
    monkeypatch.setattr(local, "make_tools", lambda *_: 1 / 0)
    ours, theirs = multiprocessing.Pipe()
    local._serve(theirs, SETTINGS, tmp_path, True)
    assert "a worker cannot load its tools: ZeroDivisionError" in str(ours.recv())


def test_a_worker_that_died_between_two_parts_is_noticed_not_fatal():
    worker = object.__new__(local._Worker)
    worker.pipe, theirs = multiprocessing.Pipe()
    theirs.close()
    worker.give(part := Part(0, (Item("a"),)))
    assert worker.part is part
    with pytest.raises((EOFError, ConnectionResetError)):
        worker.pipe.recv()


def test_a_job_that_goes_on_writes_what_one_in_one_go_writes(tmp_path):
    parts = first_part_broken(tmp_path)
    run_local(parts, SETTINGS, tmp_path / "whole", workers=0, max_bad_share=0.9)
    run_local(parts, SETTINGS, tmp_path / "resumed", workers=0, max_bad_share=0.9)
    parts[0].done(tmp_path / "resumed").unlink()
    run_local(parts, SETTINGS, tmp_path / "resumed", workers=0, max_bad_share=0.9)
    assert files(tmp_path / "resumed") == files(tmp_path / "whole")


def test_results_that_cannot_be_written_are_one_line(tmp_path):
    part = Part(0, (Item("a", broken=("empty", "")),))
    part.partial(tmp_path).mkdir()
    with pytest.raises(UserError, match="cannot write what was measured: Is a directory"):
        run_local([part], SETTINGS, tmp_path, workers=0, max_bad_share=1.0)


def test_a_worker_that_cannot_load_its_tools_says_so_in_one_line(tmp_path):
    config = settings_of(**{"visual.features": "dinov3"})
    parts = partition(from_videos(copies(tmp_path / "videos", 2)).items, 4)
    with pytest.raises(UserError, match="no DINOv3 weights"):
        run_local(parts, MeasureSettings.from_config(config), tmp_path / "out", workers=1, max_bad_share=0.1)


def test_an_exception_over_one_video_is_that_videos_failure(tmp_path, monkeypatch):
    tools = make_tools(SETTINGS)
    monkeypatch.setattr("evads_jax.density.scale.parts.measure", lambda *_: 1 / 0)
    assert safely(Item("a"), tools, SETTINGS).failure == ("exception", "ZeroDivisionError: division by zero")


def test_features_that_are_not_finite_are_named_counted_and_left_out(tmp_path):
    tools = make_tools(SETTINGS)

    class Spoiled:
        metric, frame_size = "V_blocks", 64

        def __call__(self, frames):
            found = np.ones((len(frames), 3), np.float32)
            found[2] = np.nan
            return found

    found = safely(
        Item("a", path=str(film(tmp_path / "a.mp4", scenes=2))),
        dataclasses.replace(tools, features=Spoiled()),
        SETTINGS,
    )
    tools.close()
    assert (found.missing["V_blocks"], found.bad_frames) == ("nan_features", (2,))
    assert "V_blocks" not in found.values


def test_parts_follow_shards_and_cut_files_by_number():
    in_shards = [Item(str(i), record=(f"s{i // 3}", i % 3)) for i in range(7)]
    assert [len(p.items) for p in partition(in_shards, 2)] == [3, 3, 1]
    assert [len(p.items) for p in partition([Item(str(i)) for i in range(7)], 3)] == [3, 3, 1]
