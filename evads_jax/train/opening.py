"""How a long job begins: its folder claimed, its events open, its lines told, SIGTERM understood."""

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import jax
from ml_collections import ConfigDict
from rich.console import Console
from rich.markup import escape

from evads_jax import workdir as run_folder
from evads_jax.events import EventLog, read_events
from evads_jax.train.preemption import Preempted

Say = Callable[[str], None]

_PROGRESS = re.compile(r"(.*: )?[\d,]+ of [\d,]+ \w+( \w+)?")


class Opened(NamedTuple):
    """What a job works with: the run's events, where progress is shown, and what prints a line."""

    log: EventLog
    console: Console
    say: Say


def open_run(config: ConfigDict, workdir: Path) -> Opened:
    """Claims a work directory for a config, or goes on in it; its first event holds config and environment.

    Outside the stages of training, SIGTERM then ends the job at once: what is being made there is made in whole files
    or appended lines.

    Raises:
      UserError: the folder belongs to another config, or cannot be written.
    """
    console = Console()
    run_folder.claim(workdir, config)
    signal.signal(signal.SIGTERM, _preempted)
    log = EventLog(workdir)
    if not read_events(workdir, "run"):
        log.write("run", config=config.to_dict(), environment=run_folder.environment())
    return Opened(log, console, teller(console))


def teller(console: Console) -> Say:
    """Prints lines with the minutes since now; of progress lines («…: 3 of 9 videos») at most one a second."""
    began, last = time.monotonic(), [0.0]

    def say(line: str) -> None:
        now = time.monotonic()
        if _PROGRESS.fullmatch(line):
            if now - last[0] < 1.0:
                return
            last[0] = now
        if jax.process_index() == 0:
            minutes, seconds = divmod(int(now - began), 60)
            console.print(f"[dim]{minutes:3d}:{seconds:02d}[/dim]  {escape(line)}", highlight=False)

    return say


def _preempted(number: int, frame: FrameType | None) -> None:
    raise Preempted
