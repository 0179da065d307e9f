"""From a config to the splits, for each kind of source."""

import dataclasses
import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from evads_jax.data import annotations, media, prepare, shards
from evads_jax.data.makers import locate
from evads_jax.data.records import Event, Example, Question
from evads_jax.errors import UserError
from tests.train.side_by_side import side_by_side

CONFIG = Path(__file__).parents[2] / "configs" / "mg_grpo.py"
SIZES = {"sft": 5, "rl": 3, "validation": 2, "test": 2}


def config(**data):
    made = runpy.run_path(str(CONFIG))["get_config"]()
    for split, count in SIZES.items():
        made.data[f"videos_{split}"] = count
    made.data.records_per_shard = 4
    made.data.update({k: str(v) if isinstance(v, Path) else v for k, v in data.items()})
    return made


def videos(opened) -> dict[str, list[str]]:
    return {split: [record.video for record in source] for split, source in opened.items()}


def test_ads_are_drawn_for_every_split_and_reused(tmp_path):
    lines: list[str] = []
    opened = prepare.prepare(config(), tmp_path, lines.append)
    assert {split: len(source) for split, source in opened.items()} == SIZES
    assert any("tones" in line for line in lines)
    again: list[str] = []
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.array_record")}
    prepare.prepare(config(), tmp_path, again.append)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.array_record")} == stamps
    assert not any(" of " in line for line in again)


def test_another_seed_or_size_makes_other_shards(tmp_path):
    first = prepare.prepare(config(), tmp_path, print)["test"][0]
    changed = config(frame_size=32)
    second = prepare.prepare(changed, tmp_path, print)["test"][0]
    assert media.decode_jpeg(second.frames[0]).shape == (32, 32, 3)
    assert first.questions == second.questions
    changed.run.seed = 1
    assert prepare.prepare(changed, tmp_path, print)["test"][0].questions != second.questions


def test_a_named_folder_of_shards_serves_other_runs_but_not_with_other_media(tmp_path):
    named = tmp_path / "named"
    prepare.prepare(config(shards=named), tmp_path / "a", print)
    prepare.prepare(config(shards=named, source="annotations"), tmp_path / "b", print)
    assert not (tmp_path / "b" / "shards").exists()
    with pytest.raises(UserError, match="size 64, the config asks for 32"):
        prepare.prepare(config(shards=named, frame_size=32), tmp_path / "b", print)


@pytest.fixture
def mine(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for k in range(20):
        media.write_mp4(folder / f"{k}.mp4", [np.full((32, 48, 3), 10 * k, np.uint8)] * 2, 1)
    rows = [{"video": f"{k}.mp4", "question": f"q{j}", "answer": "a"} for k in range(20) for j in range(2)]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def own(folder, **data):
    caps = dict.fromkeys((f"videos_{split}" for split in SIZES), 0)
    return config(source="folder", jsonl=folder / "q.jsonl", held_out=0.2, **caps | data)


def test_ones_own_videos_are_split_by_video_and_serve_sft_and_rl(mine, tmp_path):
    split = videos(prepare.prepare(own(mine), tmp_path / "w", print))
    assert {name: len(names) for name, names in split.items()} == {"sft": 16, "rl": 16, "validation": 2, "test": 2}
    assert split["sft"] == split["rl"]
    assert len({*split["sft"], *split["validation"], *split["test"]}) == 20
    other = own(mine)
    other.run.seed = 1
    assert videos(prepare.prepare(other, tmp_path / "w", print))["test"] != split["test"]


def test_a_broken_video_is_counted_named_and_left_out(mine, tmp_path):
    (mine / "3.mp4").write_bytes((mine / "3.mp4").read_bytes()[:-40])
    lines: list[str] = []
    opened = prepare.prepare(own(mine, max_bad_share=0.5), tmp_path / "w", lines.append)
    broken = [item for source in opened.values() for item in source.manifest.broken]
    assert {(item.video, item.kind) for item in broken} == {("3.mp4", "truncated")}
    assert not [name for names in videos(opened).values() for name in names if name == "3.mp4"]
    assert any("3.mp4: truncated" in line for line in lines)


def test_broken_videos_fail_the_job_in_one_line_only_above_the_share(mine, tmp_path):
    kept = videos(prepare.prepare(own(mine), tmp_path / "w", print))["sft"]
    for name in kept[:4]:
        (mine / name).write_bytes(b"")
    prepare.prepare(own(mine, max_bad_share=0.25), tmp_path / "w", print)
    with pytest.raises(UserError, match="4 of 16 videos of sft are broken") as caught:
        prepare.prepare(own(mine, max_bad_share=0.24), tmp_path / "w", print)
    assert "\n" not in str(caught.value)


def test_a_mended_video_is_read_again(mine, tmp_path):
    whole = (mine / "3.mp4").read_bytes()
    (mine / "3.mp4").write_bytes(b"")
    prepare.prepare(own(mine, max_bad_share=0.9), tmp_path / "w", print)
    (mine / "3.mp4").write_bytes(whole)
    opened = prepare.prepare(own(mine), tmp_path / "w", print)
    assert not [item for source in opened.values() for item in source.manifest.broken]


def rows(source: str, numbers) -> list[Example]:
    events = (Event(0, 1, ("八折",), "今天便宜"), Event(2, 2, (), "再见"))
    spoken = tuple(dataclasses.replace(e, ocr=()) for e in events)
    made = []
    for n in numbers:
        questions = [Question(f"{n}-{k}", "价格？", "八折。", "第0秒写着八折。") for k in range(2)]
        common = {"video": f"../videos/{n}.mp4", "category": "其他", "duration": 3, "source": source}
        judged = {"events": spoken, "judge_events": events} if source == "rl" else {"events": events}
        made += [Example(q, **common, **judged) for q in questions]
    return made


@pytest.fixture
def released(tmp_path):
    folder = tmp_path / "annotations"
    folder.mkdir()
    annotations.write_sft(folder / "EVAds_SFT.parquet", rows("sft", range(20)))
    annotations.write_rl(folder / "EVAds_RL.parquet", rows("rl", range(20, 30)))
    return folder


def released_config(folder, **data):
    caps = dict.fromkeys((f"videos_{split}" for split in SIZES), 0)
    made = config(source="annotations", annotations=folder, held_out=0.2, **caps | data)
    made.run.language = "zh"
    return made


def test_the_released_rows_keep_their_splits_but_for_the_videos_held_out(released, tmp_path):
    lines: list[str] = []
    opened = prepare.prepare(released_config(released), tmp_path / "w", lines.append)
    split = videos(opened)
    assert {len(split["validation"]), len(split["test"])} == {3}
    assert len({name for names in split.values() for name in names}) == sum(map(len, split.values())) == 30
    assert all(record.source == "sft" for record in opened["sft"])
    assert all(record.source == "rl" and record.judge_events for record in opened["rl"])
    assert all(len(record.questions) == 2 for source in opened.values() for record in source)
    assert any("overlays are" in line for line in lines)
    assert opened["sft"].manifest.recipe["overlay"] in ("latin", "cjk")


def test_caps_take_a_part_of_each_split(released, tmp_path):
    opened = prepare.prepare(released_config(released, videos_sft=4, videos_test=1), tmp_path, print)
    assert (len(opened["sft"]), len(opened["test"])) == (4, 1)


def test_released_videos_are_found_by_the_last_part_of_their_name(mine, released, tmp_path):
    for k in range(20, 30):
        shutil.copy(mine / "1.mp4", mine / f"{k}.mp4")
    opened = prepare.prepare(released_config(released, videos=mine), tmp_path / "w", print)
    assert sum(map(len, opened.values())) == 30
    assert opened["rl"][0].duration == 2


def test_a_name_never_leads_out_of_the_folder_of_videos(mine):
    (mine.parent / "outside.mp4").write_bytes(b"outside")
    (mine / "part").mkdir()
    shutil.copy(mine / "1.mp4", mine / "part" / "1.mp4")
    assert locate(mine, "part/1.mp4").parent.name == "part"
    assert locate(mine, "../videos/1.mp4") == mine / "1.mp4"
    assert locate(mine, "../outside.mp4") == mine / "outside.mp4"


@pytest.fixture
def here(monkeypatch):
    """Shards are made without further processes."""
    monkeypatch.setattr(prepare, "WORKERS", 0)
    return monkeypatch


def test_processes_of_one_folder_have_the_same_records_and_say_nothing_of_machines(tmp_path, here):
    lines: list[str] = []
    ended = side_by_side(here, 2, lambda i: videos(prepare.prepare(config(), tmp_path, lines.append)))
    assert ended[0] == ended[1]
    assert {split: len(names) for split, names in ended[0].items()} == SIZES
    assert not any("every machine" in line for line in lines)


def test_machines_apart_make_the_same_shards_and_say_so(tmp_path, here):
    lines: list[str] = []
    work = [tmp_path / name for name in ("a", "b")]
    ended = side_by_side(here, 2, lambda i: videos(prepare.prepare(config(), work[i], lines.append)))
    assert ended[0] == ended[1]
    assert sum("every machine makes all shards" in line for line in lines) == 2


def test_machines_whose_videos_differ_are_refused(mine, tmp_path, here):
    other = shutil.copytree(mine, tmp_path / "other")
    for path in other.glob("*.mp4"):
        shutil.copy(mine / "0.mp4", path)
    work, source = [tmp_path / name for name in ("a", "b")], [mine, other]
    ended = side_by_side(here, 2, lambda i: prepare.prepare(own(source[i]), work[i], str))
    assert all("process 1 has other records of sft than process 0" in str(error) for error in ended)


def test_a_named_folder_that_only_one_process_finds_finished_is_refused(tmp_path, here):
    named = [tmp_path / name for name in ("a", "b")]
    prepare.prepare(config(shards=named[1]), tmp_path / "w", str)
    ended = side_by_side(here, 2, lambda i: prepare.prepare(config(shards=named[i]), tmp_path / "w", str))
    assert all("process 1 finds finished shards there, process 0 does not" in str(error) for error in ended)


def test_a_source_that_one_process_does_not_find_ends_all(mine, tmp_path, here):
    source = [mine, tmp_path / "nowhere"]
    first, second = side_by_side(here, 2, lambda i: prepare.prepare(own(source[i]), tmp_path / str(i), str))
    assert "no such file" in str(second)
    assert str(first).startswith("process 1 could not read the source of the data: no such file")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"source": "web"}, "unknown source"),
        ({"source": "annotations"}, "no annotations"),
        ({"source": "annotations", "annotations": "nowhere"}, "no such folder"),
        ({"source": "folder"}, "no file of questions"),
        ({"source": "folder", "jsonl": "nowhere.jsonl"}, "no such file"),
    ],
)
def test_bad_sources_are_told_in_one_line(tmp_path, data, message):
    with pytest.raises(UserError, match=message):
        prepare.prepare(config(**data), tmp_path, print)


def test_shards_of_a_killed_preparation_are_completed(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    real, calls = shards.make_shard, []

    def dying(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(prepare, "WORKERS", 0)
    monkeypatch.setattr(shards, "make_shard", dying)
    with pytest.raises(Killed):
        prepare.prepare(config(), tmp_path / "w", print)
    prepare.prepare(config(), tmp_path / "w", print)
    prepare.prepare(config(), tmp_path / "whole", print)
    files = sorted(p.relative_to(tmp_path / "w") for p in (tmp_path / "w").rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*") if p.is_file())
    assert all((tmp_path / "w" / f).read_bytes() == (tmp_path / "whole" / f).read_bytes() for f in files)
