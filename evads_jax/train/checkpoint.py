"""What a killed stage resumes from, and what a finished one leaves: `W/checkpoints/<stage>/`.

    <step>/state    the TrainState (Orbax)
    <step>/data     the input iterator's state, one JSON file per process
    <step>/meta     the loop's own memory (JSON): random key, number of events, best validation, seconds, devices, …
    finished.json   written last; a stage that has it is not run again

A checkpoint is written under a temporary name and renamed when it is complete, in the background: a half-written one
is never taken for the latest. The latest `keep` stay, and beside them the best one by validation.

The checkpoints of a run whose folder mirrors a bucket are in the bucket alone: every process writes its arrays to it.
Nothing can be renamed there; a checkpoint is complete when Orbax has put its `commit_success.txt`.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from evads_jax import storage, whole
from evads_jax.errors import UserError
from evads_jax.train.state import TrainState

Tree = Any
FOLDER = "checkpoints"
FINISHED = "finished.json"


class _IteratorHandler(ocp.CheckpointHandler):
    """Writes each process's iterator state to a file of its own."""

    def save(self, directory: epath.Path, args: "_IteratorArgs") -> None:
        _file(directory).write_text(json.dumps(args.state))

    def restore(self, directory: epath.Path, args: "_IteratorArgs") -> Any:
        path = _file(directory)
        if path.exists():
            return json.loads(path.read_text())
        # Processes at the same place of one input: any number of them can go on from there.
        held = [json.loads(other.read_text()) for other in sorted(directory.glob("process_*-of-*.json"))]
        if len(held) < _written_by(directory) or any(state != held[0] for state in held):
            raise UserError(
                f"the checkpoint holds no input state for process {jax.process_index()} of {jax.process_count()}",
                str(directory),
                "resume with the number of processes that it was written with",
            )
        return held[0]


@ocp.args.register_with_handler(_IteratorHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class _IteratorArgs(ocp.args.CheckpointArgs):
    state: Any = None


def _file(directory: epath.Path) -> epath.Path:
    return directory / f"process_{jax.process_index()}-of-{jax.process_count()}.json"


def _written_by(directory: epath.Path) -> int:
    """The number of processes that the checkpoint's files name; one where there are none."""
    return max((int(path.stem.rpartition("-")[2]) for path in directory.glob("process_*-of-*.json")), default=1)


@dataclasses.dataclass
class _LatestAndBest(preservation_policy.PreservationPolicy):
    """Preserves the latest `keep` checkpoints and that of step `best`."""

    keep: int
    best: int | None = None

    def should_preserve(
        self, checkpoints: Sequence[preservation_policy.PolicyCheckpointInfo], *, context: Any
    ) -> Sequence[bool]:
        """See the base class."""
        late = len(checkpoints) - self.keep
        return [i >= late or checkpoint.step == self.best for i, checkpoint in enumerate(checkpoints)]


class Checkpoints:
    """The checkpoints of one stage.

    Args:
      workdir: the run's folder.
      stage: the stage's name.
      keep: how many of the latest stay.

    Raises:
      UserError: their folder cannot be used.
    """

    def __init__(self, workdir: str | Path, stage: str, keep: int = 2):
        if keep < 1:
            raise UserError(f"at least one checkpoint must be kept, got {keep}", "config.checkpoint.keep")
        self.folder = _folder(workdir, stage)
        self._policy = _LatestAndBest(keep)
        try:
            self._manager = ocp.CheckpointManager(
                self.folder,
                item_handlers={
                    "state": ocp.PyTreeCheckpointHandler(),
                    "data": _IteratorHandler(),
                    "meta": ocp.JsonCheckpointHandler(),
                },
                options=ocp.CheckpointManagerOptions(preservation_policy=self._policy, cleanup_tmp_directories=True),
            )
        except _failures(self.folder) as error:
            raise _unwritten(self.folder, error) from error

    def latest(self) -> int | None:
        """The step of the latest complete checkpoint; None without one."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, data: Any, meta: dict[str, Any], best: int | None = None) -> None:
        """Begins to write a checkpoint; returns as soon as the state may be donated.

        Args:
          step: steps done; a complete checkpoint of the same step is replaced.
          state: the state after them.
          data: what the input iterator's `get_state` gave, as JSON.
          meta: JSON values.
          best: step of the checkpoint that must stay however old it is.

        Raises:
          UserError: this or the previous checkpoint could not be written; complete ones stay as they are.
        """
        self._policy.best = best
        try:
            self._manager.wait_until_finished()  # also tells of a failure of the last one
            if step in self._manager.all_steps():
                self._manager.delete(step)
            arguments = ocp.args.Composite(
                state=ocp.args.PyTreeSave(state), data=_IteratorArgs(data), meta=ocp.args.JsonSave(meta)
            )
            self._manager.save(step, args=arguments, force=True)
        except _failures(self.folder) as error:
            raise _unwritten(self.folder, error) from error

    def wait(self) -> None:
        """Waits until everything saved is complete.

        Raises:
          UserError: it could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except _failures(self.folder) as error:
            raise _unwritten(self.folder, error) from error

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, Any, dict[str, Any]]:
        """The state, the iterator's state and meta of a checkpoint.

        Args:
          step: one of its steps.
          like: a state, or its abstract form, that gives structure, shapes and shardings.

        Raises:
          UserError: it does not fit `like`, or cannot be read.
        """
        _check_shapes(self.folder / str(step) / "state", like.params)
        arguments = ocp.args.Composite(state=_restore_tree(like), data=_IteratorArgs(), meta=ocp.args.JsonRestore())
        try:
            restored = self._manager.restore(step, args=arguments)
        except UserError:
            raise
        except _failures(self.folder, KeyError) as error:
            raise _unreadable(self.folder / str(step), error) from error
        return restored["state"], restored["data"], restored["meta"]

    def finish(self, record: dict[str, Any]) -> None:
        """Marks the stage as finished; everything it left must be complete by then.

        Raises:
          UserError: something could not be written to the bucket.
        """
        self.wait()
        if jax.process_index() == 0:
            path = self.folder / FINISHED
            if _in_bucket(path):  # one object, put at one instant
                try:
                    path.write_text(json.dumps(record, indent=2))
                except _failures(path) as error:
                    raise _unwritten(path, error) from error
                return
            with whole.replacing(path) as temporary, temporary.open("w") as file:
                json.dump(record, file, indent=2)
                file.flush()
                os.fsync(file.fileno())

    def close(self) -> None:
        """Waits for the background and frees its threads.

        Raises:
          UserError: something could not be written.
        """
        try:
            self._manager.close()
        except _failures(self.folder) as error:
            raise _unwritten(self.folder, error) from error


def finished(workdir: str | Path, stage: str) -> dict[str, Any] | None:
    """The record that a finished stage left (`step`, `best_step`, `reason`, `seconds`, `events`); None if it is not."""
    path = _folder(workdir, stage) / FINISHED
    try:
        return json.loads(path.read_text()) if path.exists() else None
    except _failures(path) as error:
        raise _unreadable(path, error) from error


def load_params(workdir: str | Path, stage: str, like: Tree) -> Tree:
    """The parameters that a finished stage ended with: the best by validation where it validated, else the last.

    Args:
      workdir: the run's folder.
      stage: the stage's name.
      like: the parameters' tree, arrays or abstract; gives shapes and shardings.

    Raises:
      UserError: the stage is not finished, or was made with another model.
    """
    record = finished(workdir, stage)
    if record is None:
        raise UserError(f"stage {stage} is not finished", str(workdir), "run it first")
    path = _folder(workdir, stage) / str(record["best_step"]) / "state"
    _check_shapes(path, like)
    with ocp.PyTreeCheckpointer() as checkpointer:
        try:
            return checkpointer.restore(path, args=_restore_tree({"params": like}, partial=True))["params"]
        except _failures(path, KeyError) as error:
            raise _unreadable(path, error) from error


def _folder(workdir: str | Path, stage: str) -> Any:
    """Where a stage's checkpoints are: on the disk, or in the bucket that the run's folder mirrors."""
    return storage.address(Path(workdir) / FOLDER / stage)


def _in_bucket(path: Any) -> bool:
    return storage.url_of(path) is not None


def _failures(path: Any, *more: type[Exception]) -> tuple[type[Exception], ...]:
    """What a failure to read or write raises, with `more`; the clients of buckets have errors of their own."""
    return (Exception,) if _in_bucket(path) else (OSError, ValueError, *more)


def _check_shapes(path: Path, params: Tree) -> None:
    """Refuses a checkpoint whose parameters are not these, naming the first that differs."""
    try:
        held = ocp.PyTreeCheckpointHandler().metadata(epath.Path(path)).tree["params"]
    except _failures(path, KeyError) as error:
        raise _unreadable(path, error) from error
    shapes = [
        {jax.tree_util.keystr(where, simple=True, separator="/"): tuple(leaf.shape) for where, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (held, params))
    ]
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        theirs, ours = (side.get(name, "none") for side in shapes)
        if theirs != ours:
            what = f"the checkpoint is of another model: {name} is {theirs} there, {ours} here"
            raise UserError(what, str(path), "use the config it was made with, or another --workdir")


def _restore_tree(like: Tree, partial: bool = False) -> ocp.args.PyTreeRestore:
    like = jax.tree.map(_abstract, like)
    arguments = ocp.checkpoint_utils.construct_restore_args(like)
    return ocp.args.PyTreeRestore(like, restore_args=arguments, partial_restore=partial)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=sharding)


def _unwritten(folder: Path, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
    mend = "check your permissions in the bucket (docs/tpu.md)" if _in_bucket(folder) else "make room"
    return UserError(f"cannot write a checkpoint: {reason}", str(folder), f"{mend}, then start the same command again")


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = str(error).split("\n")[0][:200]
    hint = "are you allowed to read the bucket? " if _in_bucket(path) else ""
    return UserError(f"cannot read a checkpoint: {reason}", str(path), f"{hint}was the model's size changed?")
