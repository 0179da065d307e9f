"""The completions of a GRPO stage, one parquet per kept step: `W/completions/<stage>/<step>.parquet`.

A row is one completion: what was asked, what was said, what the judge found, what it was worth.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evads_jax import whole
from evads_jax.errors import UserError

FOLDER = "completions"

SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("prompt_id", pa.string()),  # the question's id
        ("video", pa.string()),
        ("task", pa.string()),
        ("sample", pa.int64()),  # 0 … G − 1
        ("question", pa.string()),
        ("reference", pa.string()),
        ("text", pa.string()),  # as sampled, without the closing token
        ("trace", pa.string()),
        ("answer", pa.string()),
        ("well_formed", pa.bool_()),
        ("tokens", pa.int64()),
        ("finished", pa.bool_()),  # ended by itself, not by the limit
        ("answer_score", pa.float32()),  # null where the verdict is missing
        ("answer_reason", pa.string()),
        ("trace_score", pa.float32()),
        ("trace_reason", pa.string()),
        ("reward", pa.float32()),  # null where a verdict is missing
        ("reward_answer", pa.float32()),
        ("reward_trace", pa.float32()),
        ("reward_format", pa.float32()),
        ("reward_shaping", pa.float32()),  # length penalty and KL term, where these are in the reward
        ("advantage", pa.float32()),
        ("kept", pa.bool_()),  # whether it entered the loss
    ]
)


def path_of(workdir: str | Path, stage: str, step: int) -> Path:
    """The file of a step; steps count from 1, as in the events."""
    return Path(workdir) / FOLDER / stage / f"{step}.parquet"


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes a step's rows, whole or not at all; the same rows give the same bytes.

    Raises:
      UserError: the disk is full or the folder cannot be written.
    """
    try:
        with whole.replacing(path) as temporary:
            pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), temporary)
    except OSError as error:
        raise UserError(f"cannot write completions: {error.strerror or error}", str(path), "make room") from error


def steps(workdir: str | Path, stage: str) -> list[int]:
    """The steps whose completions were kept, in order."""
    folder = Path(workdir) / FOLDER / stage
    return sorted(int(path.stem) for path in folder.glob("*.parquet") if path.stem.isdigit())


def read(workdir: str | Path, stage: str, step: int) -> list[dict[str, Any]]:
    """The rows of a step, in the order of prompts and samples."""
    return pq.read_table(path_of(workdir, stage, step)).to_pylist()


def rewind(workdir: str | Path, stage: str, step: int) -> None:
    """Deletes the completions of later steps, and what a killed process left half-written."""
    for later in steps(workdir, stage):
        if later > step:
            path_of(workdir, stage, later).unlink()
    for temporary in (Path(workdir) / FOLDER / stage).glob("*.tmp"):
        temporary.unlink()
