import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console
from toy_stage import STAGE, Batches, ToyLearner, run

from evads_jax.errors import UserError
from evads_jax.events import EventLog, read_events, without_wall_clock
from evads_jax.train import loop
from evads_jax.train.checkpoint import Checkpoints, finished
from evads_jax.train.loop import fit
from evads_jax.train.preemption import EXIT_PREEMPTED, Preempted
from evads_jax.train.stage import Stage

TOY = Path(__file__).with_name("toy_stage.py")


def toy(workdir, *arguments):
    """The toy stage in a process of its own."""
    return subprocess.run([sys.executable, TOY, workdir, *arguments], capture_output=True, text=True, check=False)


def events(workdir):
    return [without_wall_clock(e) for e in read_events(workdir)]


def weights(workdir, learner=None):
    """The parameters that the finished toy stage of a folder left."""
    return jax.tree.map(np.asarray, run(workdir, learner, patience=0).params)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    run(workdir, patience=0)
    return workdir


def test_a_stage_on_an_accelerator_is_the_same_stage(tmp_path, uninterrupted, monkeypatch):
    # There the metrics of a step are fetched while the next one is under way.
    monkeypatch.setattr(loop, "_overlaps", lambda metrics: True)
    run(tmp_path, patience=0)
    assert events(tmp_path) == events(uninterrupted)


def test_on_an_accelerator_too_a_bad_step_stops_before_the_next_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_overlaps", lambda metrics: True)
    for step in (7, 8):
        with pytest.raises(UserError, match=f"step {step}"):
            run(tmp_path / str(step), ToyLearner(poison=step), patience=0)
        assert Checkpoints(tmp_path / str(step), "toy").latest() == 4


@pytest.mark.parametrize("phase", ["draw:11", "step:9", "validate:4", "save:3", "end:1"])
def test_a_stage_killed_in_any_phase_ends_like_one_that_was_not(phase, tmp_path, uninterrupted):
    killed = toy(tmp_path, phase)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert finished(tmp_path, "toy") is None
    run(tmp_path, patience=0)
    assert_equal(weights(tmp_path), weights(uninterrupted))
    assert events(tmp_path) == events(uninterrupted)


def test_a_stage_killed_before_its_first_checkpoint_begins_anew(tmp_path, uninterrupted):
    log = EventLog(tmp_path)
    log.write("stage_start", stage="toy", parameters=0)
    log.write("train", stage="toy", step=1)
    run(tmp_path, patience=0)
    assert events(tmp_path) == events(uninterrupted)


def test_every_step_is_an_event_with_its_clocks(uninterrupted):
    train = read_events(uninterrupted, "train")
    assert [e["step"] for e in train] == list(range(1, 21))
    fields = {"loss", "grad_norm", "seconds", "seconds_data", "seconds_checkpoint", "compilations", "time"}
    assert all(fields <= e.keys() for e in train)
    kinds = [e["kind"] for e in read_events(uninterrupted)]
    assert kinds[0] == "stage_start"
    assert kinds[-1] == "stage_end"
    # Validated and saved before anything is drawn.
    assert kinds[1:4] == ["validation", "checkpoint", "train"]


def test_a_finished_stage_is_not_run_again(uninterrupted):
    learner, before = ToyLearner(), events(uninterrupted)
    weights(uninterrupted, learner)
    assert learner.validations == 0
    assert events(uninterrupted) == before


def test_a_finished_stage_that_is_to_last_longer_says_that_it_does_not(tmp_path, capsys):
    run(tmp_path, patience=0, max_steps=5)
    capsys.readouterr()
    assert run(tmp_path, patience=0, max_steps=5).step == 5
    assert capsys.readouterr().out == ""
    assert run(tmp_path, patience=0, max_steps=9).step == 5
    assert "toy  ended at step 5, not 9: what is finished does not go on" in capsys.readouterr().out


def test_sigterm_saves_where_it_is_and_leaves_with_42(tmp_path, uninterrupted):
    class Terminated(Batches):
        def __next__(self):
            if self.index == 10:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__next__()

    with pytest.raises(Preempted) as stop:
        run(tmp_path, batches=Terminated(), patience=0)
    assert stop.value.code == EXIT_PREEMPTED
    assert (
        Checkpoints(tmp_path, "toy").latest() == 11
    )  # the step that was under way is finished; 11 is no multiple of 4
    run(tmp_path, patience=0)
    assert_equal(weights(tmp_path), weights(uninterrupted))
    assert events(tmp_path) == events(uninterrupted)


def test_sigterm_at_the_end_of_a_stage_is_not_forgotten(tmp_path, uninterrupted):
    class Terminated(ToyLearner):
        def validate(self, now):
            if int(now.step) == 20:  # the last boundary has looked for a signal by then
                os.kill(os.getpid(), signal.SIGTERM)
            return super().validate(now)

    with pytest.raises(Preempted):
        run(tmp_path, Terminated(), patience=0)
    assert finished(tmp_path, "toy")["step"] == 20
    assert events(tmp_path) == events(uninterrupted)


def test_a_gradient_that_is_not_finite_stops_the_run_and_leaves_the_last_checkpoint(tmp_path):
    with pytest.raises(UserError, match="step 7: gradient of layer/weight is not finite"):
        run(tmp_path, ToyLearner(poison=7), patience=0, max_steps=8)
    assert read_events(tmp_path, "failure")[0]["message"].startswith("stage toy, step 7")
    checkpoints = Checkpoints(tmp_path, "toy")
    assert checkpoints.latest() == 4
    state, _, _ = checkpoints.restore(4, ToyLearner().initial())
    assert np.isfinite(state.params["layer"]["weight"]).all()


def test_a_gradient_that_is_not_finite_at_a_checkpoint_is_not_saved(tmp_path):
    with pytest.raises(UserError, match="step 8"):
        run(tmp_path, ToyLearner(poison=8), patience=0)
    assert Checkpoints(tmp_path, "toy").latest() < 8


def test_a_stage_ends_after_its_patience_with_the_best_parameters(tmp_path, capsys):
    result = run(tmp_path, ToyLearner(floor=6), max_steps=100, patience=3)
    # Losses at 0, 5, 10, 15, 20: 7, 2, 5, 10, 15.
    assert (result.step, result.best_step, result.reason) == (20, 5, "patience")
    reference = run(tmp_path / "five", patience=0, max_steps=5)
    assert_equal(result.params, reference.params)
    assert (tmp_path / "checkpoints/toy/5").is_dir()
    assert not (tmp_path / "checkpoints/toy/12").exists()


def test_a_stage_ends_with_its_data(tmp_path):
    result = run(tmp_path / "data", batches=Batches(stop=7), patience=0)
    assert (result.step, result.reason) == (7, "data")


def test_a_stage_without_an_end_is_refused():
    with pytest.raises(UserError, match="never end"):
        Stage("endless", seed=0, max_steps=None)


def test_another_seed_does_not_resume_a_stage(tmp_path):
    with pytest.raises(UserError, match="not finite"):
        run(tmp_path, ToyLearner(poison=7), patience=0)
    with pytest.raises(UserError, match="another seed"):
        run(tmp_path, seed=4)


def test_what_was_written_beside_a_checkpoint_is_forgotten_on_resume(tmp_path):
    with pytest.raises(UserError, match="not finite"):
        run(tmp_path, ToyLearner(poison=7), patience=0, validate_every=0)
    learner = ToyLearner()
    run(tmp_path, learner, patience=0, validate_every=0)
    assert learner.rewound == [4]


def test_a_step_is_compiled_once(tmp_path):
    learner = ToyLearner()
    run(tmp_path, learner)
    assert learner.update._cache_size() == 1


def test_progress_is_plain_lines_with_an_eta_where_there_is_no_terminal(tmp_path):
    text = io.StringIO()
    fit(ToyLearner(), Batches(), STAGE, tmp_path, EventLog(tmp_path), Console(file=text))
    lines = text.getvalue().splitlines()
    assert any(re.fullmatch(r"toy  10/20  loss \S+  ETA 0:\d\d", line) for line in lines)
    assert "\x1b" not in text.getvalue()


def test_progress_is_a_live_line_on_a_terminal(tmp_path):
    text = io.StringIO()
    fit(ToyLearner(), Batches(), STAGE, tmp_path, EventLog(tmp_path), Console(file=text, force_terminal=True))
    assert "15/20" in text.getvalue()


def test_tensorboard_and_the_parameter_overview_are_written(uninterrupted):
    assert list((uninterrupted / "tensorboard" / "toy").glob("events.out.tfevents.*"))
    assert "layer/weight" in (uninterrupted / "parameters.txt").read_text()


def test_other_devices_than_those_of_the_checkpoint_are_told(tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="not finite"):
        run(tmp_path, ToyLearner(poison=7), patience=0)
    now = {"devices": 8, "processes": 2}
    monkeypatch.setattr(loop, "_devices", lambda state: now)
    run(tmp_path, patience=0)
    (event,) = read_events(tmp_path, "resume")
    before = {"devices_before": 1, "processes_before": 1}
    assert without_wall_clock(event) == {"schema": 1, "kind": "resume", "stage": "toy", "step": 4, **now, **before}
    assert "goes on at step 4 with 8 device(s) of 2 process(es), was made with 1 device(s)" in capsys.readouterr().out


@pytest.mark.slow
def test_a_stage_killed_at_any_moment_ends_like_one_that_was_not(tmp_path, uninterrupted):
    for moment in range(20):
        workdir = tmp_path / str(moment)
        process = subprocess.Popen([sys.executable, TOY, workdir], stdout=subprocess.DEVNULL)
        while not (workdir / "events.jsonl").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.1 * moment)
        process.kill()
        process.wait()
        run(workdir, patience=0)
        assert_equal(weights(workdir), weights(uninterrupted))
        assert events(workdir) == events(uninterrupted)
