"""The loop that every stage shares: it knows steps, checkpoints and events, and nothing of SFT or GRPO.

At every boundary between two steps, in this order: validate and log → save {state, input iterator, meta} → and only
then draw the next batch. So a checkpoint holds the iterator as it was before the batch of the next step, and everything
random is derived from (seed, stage, step): a killed and resumed stage ends like one that was never killed, bit for bit,
its events included except for their clocks.
"""

import math
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from rich.console import Console

from evads_jax.errors import UserError
from evads_jax.events import EventLog
from evads_jax.train.checkpoint import Checkpoints, finished, load_params
from evads_jax.train.cost import compilations
from evads_jax.train.numbers import on_host, rounded, write_overview
from evads_jax.train.preemption import Preempted, Preemption
from evads_jax.train.progress import StageProgress, TensorBoard
from evads_jax.train.stage import Batches, Learner, Result, Stage
from evads_jax.train.state import TrainState, released, tensor_names

Batch = TypeVar("Batch")


def fit(
    learner: Learner[Batch],
    batches: Batches[Batch],
    stage: Stage,
    workdir: Path,
    log: EventLog,
    console: Console | None = None,
    about: Mapping[str, Any] | None = None,
) -> Result:
    """Runs a stage to its end, from where an earlier process left it.

    Args:
      learner: what a step is.
      batches: the input iterator, at its beginning; a stage may end because it does.
      stage: how long it runs.
      workdir: the run's folder.
      log: the run's events.
      console: where progress is shown; default standard output.
      about: further fields of the stage's first event.

    Returns:
      The result; of a stage that is marked as finished, at once.

    Raises:
      UserError: a number that is not finite turned up (the last good checkpoint is left as it is), the disk is full,
        or the checkpoints belong to another seed or model.
      Preempted: SIGTERM came; a checkpoint was written, or the stage has been marked as finished.
    """
    workdir = Path(workdir)
    state = learner.initial()
    learner.release()
    if (record := finished(workdir, stage.name)) is not None:
        params = load_params(workdir, stage.name, released(state).params)
        if record["reason"] == "max_steps" and stage.max_steps not in (None, record["step"]):
            note = f"ended at step {record['step']}, not {stage.max_steps}: what is finished does not go on"
            StageProgress(stage.name, None, 0, (), 1, console).note(f"{note}; take another --workdir")
        return Result(params, record["step"], record["best_step"], record["reason"], record["seconds"])
    checkpoints = Checkpoints(workdir, stage.name, stage.keep)
    try:
        run = _Run(learner, batches, stage, workdir, log, checkpoints, state, console, about or {})
        del state  # it is donated by the first step
        return run.to_the_end()
    finally:
        checkpoints.close()


class _Run:
    """One process's part of a stage."""

    def __init__(self, learner, batches, stage, workdir, log, checkpoints, state, console, about):
        self.learner, self.batches, self.stage, self.workdir = learner, batches, stage, workdir
        self.log, self.checkpoints, self.state = log, checkpoints, state
        self.began = time.monotonic()
        self.key = jax.random.fold_in(jax.random.key(stage.seed), zlib.crc32(stage.name.encode()))
        self.step_key = jax.jit(jax.random.fold_in)
        self.names = tensor_names(state.params)
        self.step = 0
        self.seconds_before = 0.0  # of earlier processes
        self.best: dict[str, Any] | None = None  # step, loss
        self.since_best = 0  # validations without a fall
        self.validated: int | None = None
        self.saved: int | None = None
        self.exhausted = False
        # A step whose metrics are not fetched yet: number, metrics, seconds waited for data, what its batch held.
        self.pending: tuple[int, dict[str, Any], float, str] | None = None
        self.mark = time.monotonic()  # when the step under way began
        self.saving = 0.0  # seconds that the last save took before the next step could begin, told with that step
        compilations()  # begins to count
        changed = self._begin(about)
        self.progress = StageProgress(stage.name, stage.max_steps, self.step, learner.shown, stage.log_every, console)
        if changed:
            self.progress.note(changed)
        self.board = TensorBoard(workdir, stage.name, self.step + 1)

    def to_the_end(self) -> Result:
        with Preemption() as preemption, self.progress:
            try:
                while True:
                    reason = self._boundary(preemption)
                    if reason:
                        result = self._end(reason)
                        if preemption.requested:  # since the boundary: what comes after this stage must not begin
                            self.progress.note("SIGTERM: finished; start the same command again to go on")
                            raise Preempted
                        return result
                    self._advance()
            except UserError as error:
                self.log.write("failure", stage=self.stage.name, step=self.step, message=str(error))
                raise
            finally:
                self.board.close()

    def _begin(self, about: Mapping[str, Any]) -> str:
        """Goes to where an earlier process stopped; a line to be shown where that had other devices."""
        latest, name = self.checkpoints.latest(), self.stage.name
        if latest is None:
            self.log.rewind("stage_start", stage=name)
            self.learner.rewind(0)
            parameters = sum(np.size(x) for x in jax.tree.leaves(self.state.params))
            fields = {"parameters": parameters, "max_steps": self.stage.max_steps, **about}
            self.log.write("stage_start", stage=name, **fields)
            write_overview(self.workdir, self.state.params)
            return ""
        self.state, data, meta = self.checkpoints.restore(latest, released(self.state))
        if meta["key"] != _key_data(self.key):
            raise UserError("the checkpoints were made with another seed", str(self.checkpoints.folder))
        self.batches.set_state(data)
        self.learner.rewind(latest)
        self.log.truncate(meta["events"])
        self.step, self.seconds_before = latest, meta["seconds"]
        self.best, self.since_best, self.validated = meta["best"], meta["since_best"], meta["validated"]
        self.saved = latest
        return self._compare(meta["devices"])

    def _compare(self, before: Mapping[str, int]) -> str:
        """Tells of devices other than those of the checkpoint; results are then equal up to rounding only."""
        now = _devices(self.state)
        if now == before:
            return ""
        fields = {**now, **{f"{name}_before": number for name, number in before.items()}}
        self.log.write("resume", stage=self.stage.name, step=self.step, **fields)
        were, are = (f"{n['devices']} device(s) of {n['processes']} process(es)" for n in (before, now))
        return f"goes on at step {self.step} with {are}, was made with {were}: equal up to rounding, not bit for bit"

    def _boundary(self, preemption: Preemption) -> str | None:
        """Everything between two steps; why the stage ends, or None."""
        stage, reason = self.stage, self._reason()
        requested = preemption.requested
        validate = _due(self.step, stage.validate_every) or (bool(stage.validate_every) and bool(reason))
        save = _due(self.step, stage.checkpoint_every) or bool(reason)
        if validate or save or requested:
            self._settle()
        improved = False
        if validate and self.validated != self.step:
            improved = self._validate()
            if stage.patience and self.since_best >= stage.patience:
                reason = reason or "patience"
        scheduled = save or improved or bool(reason)
        if (scheduled or requested) and self.saved != self.step:
            self._save(scheduled)
        if requested:
            self.checkpoints.wait()
            self.progress.note(f"SIGTERM: saved at step {self.step}; start the same command again to go on")
            raise Preempted
        return reason

    def _reason(self) -> str | None:
        stage = self.stage
        if stage.max_steps is not None and self.step >= stage.max_steps:
            return "max_steps"
        if stage.patience and self.since_best >= stage.patience:  # ended, but killed before it could be marked
            return "patience"
        return "data" if self.exhausted else None

    def _advance(self) -> None:
        began = time.monotonic()
        try:
            batch = next(self.batches)
        except StopIteration:
            self.exhausted = True
            return
        waited = time.monotonic() - began
        key = self.step_key(self.key, self.step)
        self.state, metrics = self.learner.step(self.state, batch, key)
        if _overlaps(metrics):
            self._settle()  # of the step before, while this one is under way
        self.step += 1
        self.pending = (self.step, metrics, waited, self.learner.contents(batch))
        if not _overlaps(metrics):
            self._settle()

    def _settle(self) -> None:
        """Fetches, checks and logs the metrics of the last step."""
        if self.pending is None:
            return
        step, metrics, waited, held = self.pending
        self.pending = None
        values = on_host(metrics)
        bad = int(values.pop("first_bad", -1))
        if bad >= 0:
            loss = f" (loss {values['loss']:.4g})" if "loss" in values else ""
            batch = f"; its batch: {held}" if held else ""
            raise UserError(
                f"stage {self.stage.name}, step {step}: {self.names[bad]} is not finite{loss}{batch}",
                str(self.checkpoints.folder),
                f"the checkpoint of step {self.saved} is good; lower learning_rate or clip_norm",
            )
        now = time.monotonic()
        seconds, self.mark = now - self.mark, now
        clocks = {"seconds": seconds, "seconds_data": waited, "seconds_checkpoint": self.saving}
        clocks["compilations"] = compilations()
        if "tokens" in values:
            clocks["tokens_per_second"] = values["tokens"] / seconds
        self.saving = 0.0
        self.log.write("train", stage=self.stage.name, step=step, **rounded(values | clocks))
        if _due(step, self.stage.log_every):
            self.board.write(step, values | clocks, "train")
        self.progress.step(step, values)

    def _validate(self) -> bool:
        """Whether the stage looks for the lowest loss and this is it."""
        began = time.monotonic()
        values = on_host(self.learner.validate(self.state))
        self.validated = self.step
        if not values:
            return False
        seconds, self.mark = time.monotonic() - began, time.monotonic()
        self.log.write("validation", stage=self.stage.name, step=self.step, **rounded(values | {"seconds": seconds}))
        self.board.write(self.step, values, "validation")
        self.progress.note(f"step {self.step}: validation " + "  ".join(f"{k} {v:.4g}" for k, v in values.items()))
        if not self.stage.patience:
            return False
        if not math.isfinite(values["loss"]):
            what = f"stage {self.stage.name}, step {self.step}: the validation loss is not finite"
            raise UserError(what, str(self.checkpoints.folder))
        improved = self.best is None or values["loss"] < self.best["loss"]
        if improved:
            self.best, self.since_best = {"step": self.step, "loss": values["loss"]}, 0
        else:
            self.since_best += 1
        return improved

    def _save(self, scheduled: bool) -> None:
        began = time.monotonic()
        if scheduled:  # a checkpoint that SIGTERM asked for leaves no event: the run must equal one without it
            self.log.write("checkpoint", stage=self.stage.name, step=self.step)
        self.log.sync()
        meta = {
            "key": _key_data(self.key),
            "events": len(self.log),
            "seconds": self._seconds(),
            "best": self.best,
            "since_best": self.since_best,
            "validated": self.validated,
            "devices": _devices(self.state),
        }
        best = self.best["step"] if self.best else None
        self.checkpoints.save(self.step, self.state, self.batches.get_state(), meta, best)
        self.saved, self.mark = self.step, time.monotonic()
        self.saving = self.mark - began

    def _end(self, reason: str) -> Result:
        self.checkpoints.wait()
        stage, best_step, seconds = self.stage, self.best["step"] if self.best else self.step, self._seconds()
        record: dict[str, Any] = {"step": self.step, "best_step": best_step, "reason": reason, "seconds": seconds}
        self.log.write("stage_end", stage=stage.name, **rounded(record))
        self.log.sync()
        self.checkpoints.finish(record | {"events": len(self.log)})
        best = f", best at step {best_step} (loss {self.best['loss']:.4g})" if self.best else ""
        self.progress.note(f"ended at step {self.step} ({reason}) after {seconds:.0f} s{best}")
        params = self.state.params if best_step == self.step else None
        if params is None:
            params = load_params(self.workdir, stage.name, released(self.state).params)
        return Result(params, **record)

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.began


def _overlaps(metrics: Mapping[str, Any]) -> bool:
    """Whether the step may still be under way: on an accelerator, unless it gave only values that are on the host.

    On the CPU there is nothing to win, because host and device are the same cores, and steps are timed exactly.
    """
    return jax.default_backend() != "cpu" and any(isinstance(value, jax.Array) for value in metrics.values())


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _key_data(key: jax.Array) -> list[int]:
    return np.asarray(jax.random.key_data(key)).tolist()


def _devices(state: TrainState) -> dict[str, int]:
    """How many devices hold the state, and how many processes these belong to."""
    return {"devices": len(jax.tree.leaves(state.params)[0].sharding.device_set), "processes": jax.process_count()}
