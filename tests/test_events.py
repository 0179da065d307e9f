import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.errors import UserError
from evads_jax.events import SCHEMA, EventLog, read_events, without_wall_clock


def steps(workdir):
    return [event["step"] for event in read_events(workdir)]


def test_events_are_lines_of_json_with_a_schema(tmp_path):
    EventLog(tmp_path).write("train", step=1, loss=jnp.float32(0.5), note="白色", parts={"a": np.arange(2)})
    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    event = json.loads(line)
    assert event.pop("time") > 1.7e9
    assert event == {"schema": SCHEMA, "kind": "train", "step": 1, "loss": 0.5, "note": "白色", "parts": {"a": [0, 1]}}


def test_a_number_that_is_not_finite_is_null(tmp_path):
    EventLog(tmp_path).write("train", loss=float("nan"), norm=np.inf, parts=[float("-inf")])
    event = read_events(tmp_path)[0]
    assert (event["loss"], event["norm"], event["parts"]) == (None, None, [None])


@given(cut=st.integers(min_value=0))
def test_a_last_line_that_was_cut_anywhere_is_left_out_and_written_over(tmp_path_factory, cut):
    workdir = tmp_path_factory.mktemp("cut")
    log = EventLog(workdir)
    log.write("train", step=1)
    whole = (workdir / "events.jsonl").stat().st_size
    log.write("train", step=2, text="价格")
    content = (workdir / "events.jsonl").read_bytes()
    (workdir / "events.jsonl").write_bytes(content[: whole + cut % (len(content) - whole)])
    assert steps(workdir) == [1]
    log = EventLog(workdir)
    assert len(log) == 1
    log.write("train", step=3)
    assert steps(workdir) == [1, 3]


def test_truncating_forgets_what_came_after_a_checkpoint(tmp_path):
    log = EventLog(tmp_path)
    for step in range(5):
        log.write("train", step=step)
    log.truncate(3)
    log.write("train", step=9)
    assert steps(tmp_path) == [0, 1, 2, 9]
    assert len(log) == 4
    log.truncate(7)  # more than there are: nothing happens
    assert len(log) == 4


def test_rewinding_forgets_from_the_first_match_on(tmp_path):
    log = EventLog(tmp_path)
    for step, stage in enumerate(["sft", "sft", "control"]):
        log.write("stage_start", stage=stage, step=step)
    log.rewind("stage_start", stage="absent")
    assert steps(tmp_path) == [0, 1, 2]
    log.rewind("stage_start", stage="sft")
    assert steps(tmp_path) == []


def test_only_one_process_writes(tmp_path):
    log = EventLog(tmp_path / "absent", writes=False)
    log.write("train", step=1)
    log.truncate(0)
    assert len(log) == 0
    assert not (tmp_path / "absent").exists()


def test_clocks_are_what_equal_runs_differ_in():
    event = {"time": 1, "seconds": 2, "seconds_data": 3, "tokens_per_second": 4, "step": 5, "stage": "sft"}
    event["compilations"] = 6  # of this process
    assert without_wall_clock(event) == {"step": 5, "stage": "sft"}


@pytest.mark.parametrize("line", ["not json", "[1]", '{"kind": "train"}', f'{{"schema": {SCHEMA + 1}}}'])
def test_a_line_that_is_no_event_is_named(tmp_path, line):
    (tmp_path / "events.jsonl").write_text(f'{{"schema": 1, "kind": "run"}}\n{line}\n')
    with pytest.raises(UserError, match=r"events\.jsonl:2"):
        read_events(tmp_path)
