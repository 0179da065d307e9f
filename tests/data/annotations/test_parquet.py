"""The parquet files: what is written is read back, and what is wrong is told with file, row and reason."""

import dataclasses

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evads_jax.data import annotations
from evads_jax.data.annotations import FILES, SCHEMAS, read_folder
from evads_jax.data.records import Event, Example, Question
from evads_jax.errors import UserError

FULL = (Event(0, 0, ("限时", "5折"), "看这里"), Event(3, 5, ("EXIT] ; ASR Text: x",)), Event(6, 6, asr=" 好 "))
SPOKEN = (Event(0, 0, asr="看 这里"), Event(6, 6, asr="好"))


def example(kind: str, number: int = 0) -> Example:
    question = Question(
        f"ques_{number}", f"问题{number}？", f"答案{number}。", "线索\n两行", "CM" if kind == "test" else None
    )
    lists = (FULL, None) if kind == "sft" else (SPOKEN, FULL)
    return Example(question, "../videos/7.mp4", "其他", 8, *lists, source=kind)


def write(kind, path, examples):
    getattr(annotations, f"write_{kind}")(path, examples)


def read(kind, path):
    return getattr(annotations, f"read_{kind}")(path)


def rewrite(path, change):
    """Changes the rows of a parquet in place, keeping its schema."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


@pytest.mark.parametrize("kind", ["sft", "rl", "test"])
def test_written_examples_are_read_back(tmp_path, kind):
    examples = [example(kind, i) for i in range(3)]
    write(kind, tmp_path / FILES[kind], examples)
    assert read(kind, tmp_path / FILES[kind]) == annotations.AnnotationFile(examples, [])
    assert list(read_folder(tmp_path)) == [kind]


@pytest.mark.parametrize("kind", ["sft", "rl"])
def test_the_released_files_are_written_as_they_were(tmp_path, released_annotations, kind):
    released = released_annotations / FILES[kind]
    write(kind, tmp_path / "again.parquet", read(kind, released).examples)
    assert pq.read_schema(tmp_path / "again.parquet").equals(pq.read_schema(released))
    assert pq.read_table(tmp_path / "again.parquet").equals(pq.read_table(released))


def test_an_rl_row_keeps_the_judges_overlays_from_the_policy(tmp_path):
    write("rl", tmp_path / "rl.parquet", [example("rl")])
    back = read("rl", tmp_path / "rl.parquet").examples[0]
    assert not any(event.ocr for event in back.events)
    assert back.evidence == FULL


def test_a_malformed_row_is_told_and_the_others_are_read(tmp_path):
    path = tmp_path / "EVAds_SFT.parquet"
    write("sft", path, [example("sft", i) for i in range(4)])

    def damage(rows):
        rows[1]["prompt"][0]["content"] = rows[1]["prompt"][0]["content"].replace("Time 3-5s", "Time 5-3s")
        rows[2]["answer"] = "no tags"

    rewrite(path, damage)
    result = read("sft", path)
    assert [e.question.id for e in result.examples] == ["ques_0", "ques_3"]
    assert [(b.file, b.row) for b in result.bad] == [("EVAds_SFT.parquet", 1), ("EVAds_SFT.parquet", 2)]
    assert "Time 5-3s" in result.bad[0].reason
    assert "<think>" in result.bad[1].reason
    result.check(max_bad_share=0.5)
    with pytest.raises(UserError, match="2 of 4 rows are malformed"):
        result.check(max_bad_share=0.49)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: r.update(ability="x"), "ability"),
        (lambda r: r.update(prompt=[]), "single message"),
        (lambda r: r.update(extra_info=None), "video_path"),
        (lambda r: r.update(videos=None), "videos is missing"),
        (lambda r: r.update(reward_model=None), "answer is missing"),
        (lambda r: r["reward_model"].update(ground_truth="x"), "ground_truth"),
        (lambda r: r["reward_model"].update(verifier=[]), "verifier"),
        (lambda r: r["reward_model"].update(format_ratio=2), "format_ratio"),
        (lambda r: r["reward_model"]["verifier"][0].update(clues=None), "clues is missing"),
        (lambda r: r["reward_model"]["verifier"][0].update(meta_info="x"), "Time-aligned Events"),
        (lambda r: r["prompt"][0].update(content=r["prompt"][0]["content"].replace("8s", "9s")), "duration is 9"),
    ],
)
def test_every_way_an_rl_row_can_be_broken_is_a_bad_row(tmp_path, change, reason):
    write("rl", tmp_path / "rl.parquet", [example("rl")])
    rewrite(tmp_path / "rl.parquet", lambda rows: change(rows[0]))
    result = read("rl", tmp_path / "rl.parquet")
    assert not result.examples
    assert reason in result.bad[0].reason


def test_test_rows_may_hold_plain_speech_and_the_papers_task_names(tmp_path):
    write("test", tmp_path / "test.parquet", [example("test", i) for i in range(3)])

    def change(rows):
        rows[0].update(asr_input="看这里，好。", ques_categories="Marketing Logic")
        rows[1].update(ques_categories="")
        rows[2].update(ques_categories="guess")

    rewrite(tmp_path / "test.parquet", change)
    result = read("test", tmp_path / "test.parquet")
    assert [e.question.task for e in result.examples] == ["ML", None]
    assert result.examples[0].events == (Event(0, 7, asr="看这里，好。"),)
    assert "'guess'" in result.bad[0].reason


def test_a_missing_or_unreadable_parquet_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"missing parquet .*EVAds_SFT\.parquet"):
        annotations.read_sft(tmp_path / "EVAds_SFT.parquet")
    (tmp_path / "EVAds_RL.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="not a readable parquet"):
        annotations.read_rl(tmp_path / "EVAds_RL.parquet")
    with pytest.raises(UserError, match=r"missing parquet: EVAds_SFT\.parquet"):
        read_folder(tmp_path, required=("sft", "rl"))
    with pytest.raises(UserError, match="no such folder"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="missing parquet"):
        read_folder(tmp_path / "empty")


def test_a_parquet_of_another_schema_is_refused_by_its_column(tmp_path):
    path = tmp_path / "x.parquet"
    write("sft", path, [example("sft")])
    with pytest.raises(UserError, match="no column 'reward_model'"):
        annotations.read_rl(path)
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.schema.get_field_index("answer"), "answer", pa.array([7])), path)
    with pytest.raises(UserError, match="column answer is int64, not string"):
        annotations.read_sft(path)
    rows = [dict.fromkeys(SCHEMAS["test"].names, "x") | {"asr_ocr_meta": [1.5]}]
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(UserError, match="column asr_ocr_meta is list"):
        annotations.read_test(path)


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("sft", {"events": (Event(0, 0, ("two\nlines",)),)}, "event"),
        ("sft", {"events": (Event(0, 0, ("a | b",)),)}, "events"),
        ("sft", {"events": (Event(0, 0, asr='say "x"'),)}, "OCR Text nor ASR Text"),
        ("rl", {"events": FULL}, "events"),
        ("rl", {"category": "a\nDuration: 3s"}, "head"),
        ("test", {"question": Question("1", "q", "a", "<think>")}, "tag"),
    ],
)
def test_what_a_schema_cannot_hold_is_not_written(tmp_path, kind, changes, reason):
    with pytest.raises(UserError, match=f"cannot hold this example.*{reason}"):
        write(kind, tmp_path / "x.parquet", [dataclasses.replace(example(kind), **changes)])
    assert not list(tmp_path.iterdir())
