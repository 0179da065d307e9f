"""The one record of a run: `W/events.jsonl`, a line of JSON per event.

Progress line, TensorBoard, tables and the report are renderers of it. Every line has `schema`, `kind` and `time`
(seconds since the epoch); the other fields depend on the kind:

| kind        | fields                                                                                             |
|-------------|----------------------------------------------------------------------------------------------------|
| run         | what runs: config, environment                                                                     |
| stage_start | stage, parameters (their number), max_steps                                                        |
| train       | stage, step, the learner's metrics, seconds (of the step) and of its phases, compilations (so far) |
| validation  | stage, step, the learner's metrics (`loss` decides early stopping), seconds                        |
| checkpoint  | stage, step                                                                                        |
| resume      | stage, step, devices and processes, now and before; only where these numbers changed               |
| stage_end   | stage, step, best_step, reason, seconds                                                            |
| failure     | stage, step, message                                                                               |

Other packages add kinds of their own (`evaluation`, `prepare`, …) under the same rules. A number that is not finite is
written as null. The fields that a repeated run may change, whatever its determinism, are named by `is_wall_clock`.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from evads_jax import storage
from evads_jax.errors import UserError

SCHEMA = 1
NAME = "events.jsonl"


def is_wall_clock(field: str) -> bool:
    """Whether a field of an event depends on when, how fast and in which process it ran.

    These are `time`, `seconds…`, `…_per_second` and `compilations` (a process that goes on compiles anew).
    """
    return field in ("time", "compilations") or field.startswith("seconds") or field.endswith("_per_second")


def without_wall_clock(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event without the fields that differ between equal runs; equal runs give equal lists of these."""
    return {key: value for key, value in event.items() if not is_wall_clock(key)}


class EventLog:
    """Appends to a run's events; every process may hold one, only process 0 writes.

    Args:
      workdir: the run's folder; made when absent. A last line that a killed process left half-written is cut off.
      writes: whether this process writes; default: whether it is process 0.
    """

    def __init__(self, workdir: str | Path, writes: bool | None = None):
        self.path = Path(workdir) / NAME
        self._writes = jax.process_index() == 0 if writes is None else writes
        if self._writes:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._ends = _line_ends(self.path)
            self._cut(len(self._ends))

    def __len__(self) -> int:
        """Number of events; what a checkpoint remembers to `truncate` to. 0 where nothing is written."""
        return len(self._ends) if self._writes else 0

    def write(self, kind: str, **fields: Any) -> None:
        """Appends one event.

        Args:
          kind: its kind.
          **fields: JSON values; NumPy and JAX scalars are accepted.

        Raises:
          UserError: the disk is full or the file cannot be written.
        """
        if not self._writes:
            return
        event = {"schema": SCHEMA, "kind": kind, "time": round(time.time(), 3), **fields}
        line = json.dumps({k: _plain(v) for k, v in event.items()}, ensure_ascii=False).encode() + b"\n"
        try:
            with self.path.open("ab") as file:
                file.write(line)
        except OSError as error:
            raise UserError(f"cannot write events: {error.strerror}", str(self.path)) from error
        self._ends.append((self._ends[-1] if self._ends else 0) + len(line))

    def write_once(self, kind: str, **fields: Any) -> None:
        """Appends one event, unless there is one of this kind with these fields: for what a second call does again."""
        if not any(fields.items() <= event.items() for event in read_events(self.path.parent, kind)):
            self.write(kind, **fields)

    def sync(self) -> None:
        """Waits until the events are on the disk, so that a checkpoint never knows of events that are not.

        Where the run's folder mirrors a bucket, everything in it is in the bucket, too, when this returns.

        Raises:
          UserError: the bucket cannot be used.
        """
        if self._writes and self.path.exists():
            with self.path.open("ab") as file:
                os.fsync(file.fileno())
            storage.push(self.path)

    def truncate(self, count: int) -> None:
        """Forgets all but the first `count` events: what was written after the checkpoint a run resumes from."""
        if self._writes and count < len(self._ends):
            self._cut(count)

    def rewind(self, kind: str, **fields: Any) -> None:
        """Forgets everything from the first event on that is of this kind and has these fields; nothing without one.

        For what is done again from its beginning after a kill, e.g. `rewind("stage_start", stage="sft")`.
        """
        if not self._writes:
            return
        for index, event in enumerate(read_events(self.path.parent)):
            if event["kind"] == kind and all(event.get(k) == v for k, v in fields.items()):
                self.truncate(index)
                return

    def _cut(self, count: int) -> None:
        del self._ends[count:]
        if self.path.exists():
            os.truncate(self.path, self._ends[-1] if self._ends else 0)


def read_events(workdir: str | Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The events of a run, in order; also while it is being written.

    Args:
      workdir: the run's folder; without events the list is empty.
      kind: only events of this kind.

    Raises:
      UserError: a line before the last is no event, or the schema is newer than this program.
    """
    path = Path(workdir) / NAME
    if not path.exists():
        return []
    events = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):  # what follows the last \n is cut off
        try:
            event = json.loads(line)
            newer = event["schema"] > SCHEMA
        except (ValueError, KeyError, TypeError) as error:
            raise UserError("not an event", f"{path}:{number}", "restore the file, or start a new workdir") from error
        if newer:
            raise UserError(f"events of schema {event['schema']}", f"{path}:{number}", "use a newer evads_jax")
        events.append(event)
    return [e for e in events if kind is None or e["kind"] == kind]


def _line_ends(path: Path) -> list[int]:
    """The byte offsets behind each complete line."""
    if not path.exists():
        return []
    ends, position = [], 0
    for line in path.read_bytes().split(b"\n")[:-1]:
        position += len(line) + 1
        ends.append(position)
    return ends


def _plain(value: Any) -> Any:
    """A value as JSON knows it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)
