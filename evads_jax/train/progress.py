"""How far a stage is: one live line on a terminal, a plain line now and then elsewhere; and TensorBoard."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter


class StageProgress:
    """Shows a stage's steps; silent on every process but the first.

    Args:
      stage: the stage's name.
      total: the most steps it can take; None when only the clock ends it.
      done: steps that were done before this process.
      shown: the metrics to show, most important first.
      every: steps between two plain lines.
      console: where to write; default standard output.
    """

    def __init__(
        self, stage: str, total: int | None, done: int, shown: Sequence[str], every: int, console: Console | None = None
    ):
        self._console = console or Console(quiet=jax.process_index() != 0)
        self._stage, self._total, self._shown, self._every = stage, total, tuple(shown), max(every, 1)
        self._first, self._began = done, time.monotonic()
        self._bar: Progress | None = None
        if self._console.is_terminal:
            columns = (
                TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[metrics]}"),
            )  # fmt: skip
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task(stage, total=total, completed=done, metrics="")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tells that `step` steps are done."""
        if self._bar:
            self._bar.update(self._task, completed=step, metrics=self._metrics(metrics))
        elif step % self._every == 0 or step == self._total:
            total = f"/{self._total}" if self._total is not None else ""
            self.note(f"{step}{total}  {self._metrics(metrics)}{self._eta(step)}")

    def note(self, text: str) -> None:
        """Writes a line that stays, e.g. a validation loss."""
        self._console.print(f"{self._stage}  {text}", markup=False, highlight=False, soft_wrap=True)

    def _metrics(self, metrics: Mapping[str, float]) -> str:
        return "  ".join(f"{name} {metrics[name]:.4g}" for name in self._shown if name in metrics)

    def _eta(self, step: int) -> str:
        if self._total is None or step <= self._first:
            return ""
        seconds = (time.monotonic() - self._began) / (step - self._first) * (self._total - step)
        return f"  ETA {int(seconds) // 60}:{int(seconds) % 60:02d}"


class TensorBoard:
    """Scalars under `W/tensorboard/<stage>`, without TensorFlow; only process 0 writes.

    Args:
      workdir: the run's folder.
      stage: the stage's name.
      step: the first step that will be written; what an earlier process wrote from it on is hidden.
    """

    def __init__(self, workdir: Path, stage: str, step: int):
        folder = workdir / "tensorboard" / stage
        self._writer = SummaryWriter(str(folder), purge_step=step) if jax.process_index() == 0 else None

    def write(self, step: int, scalars: Mapping[str, float], prefix: str) -> None:
        """Writes the finite ones of `scalars` as `prefix/name`."""
        if self._writer:
            for name, value in scalars.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    self._writer.add_scalar(f"{prefix}/{name}", value, step)

    def close(self) -> None:
        """Writes out what is buffered."""
        if self._writer:
            self._writer.close()
