"""Asks a policy every question of a split, once, and keeps each completion as it comes."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from evads_jax.benchmark.files import Split, append_lines, config_hash, read_lines, to_json, write
from evads_jax.data.records import VideoRecord


class Policy(Protocol):
    """What is evaluated.

    Attributes:
      weights: names the parameters, e.g. "sft, step 1500"; completions of other weights are not gone on with.
      protocol: how it is asked: prompt format, sampling, limits, frames; equal for all that is compared.
      batch: how many questions it likes to get at a time.
      dropped_lines: question id → event lines that its prompt lost to fit, of the questions asked so far.
    """

    weights: str
    protocol: Mapping[str, Any]
    batch: int

    @property
    def dropped_lines(self) -> Mapping[str, int]:
        """See the class."""
        ...

    def generate(self, items: Sequence[tuple[VideoRecord, int]]) -> list[str]:
        """The raw completion of each (video, index of a question); depends on the question alone, not its company."""
        ...


def predict(policy: Policy, split: Split, folder: Path, log: Callable[[str], None] | None = None) -> dict[str, str]:
    """Makes or completes `predictions.jsonl`.

    Questions that have a completion are not asked again. Completions of other weights, another protocol or another
    split, and verdicts on them, are renamed (`predictions.<hash>.jsonl`), not overwritten and not used.

    Args:
      policy: the policy.
      split: the questions.
      folder: the evaluation's folder.
      log: gets a line now and then.

    Returns:
      Question id → raw completion, for every question of the split.

    Raises:
      UserError: the folder cannot be written.
    """
    path = folder / "predictions.jsonl"
    identity = {"weights": policy.weights, "protocol": dict(policy.protocol), "split": split.hash}
    _set_aside_others(folder, identity)
    wanted = {example.question.id for example in split.examples}
    done = {row["id"]: row["completion"] for row in read_lines(path) if row.get("id") in wanted}
    pending = [n for n, example in enumerate(split.examples) if example.question.id not in done]
    held: tuple[int, VideoRecord] | None = None
    for start in range(0, len(pending), policy.batch):
        chunk, items = pending[start : start + policy.batch], []
        for n in chunk:
            record, question = split.places[n]
            held = held if held and held[0] == record else (record, split.records[record])
            items.append((held[1], question))
        rows = [
            {
                "id": (key := split.examples[n].question.id),
                "video": split.examples[n].video,
                "completion": completion,
                "dropped_lines": policy.dropped_lines.get(key, 0),
            }
            for n, completion in zip(chunk, policy.generate(items), strict=True)
        ]
        append_lines(path, rows)
        done |= {row["id"]: row["completion"] for row in rows}
        if log:
            log(f"predict {folder.name}: {len(done)} of {len(wanted)} questions")
    return {example.question.id: done[example.question.id] for example in split.examples}


def _set_aside_others(folder: Path, identity: dict[str, Any]) -> None:
    path = folder / "protocol.json"
    identity = json.loads(json.dumps(identity))
    try:
        previous = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        previous = None
    if previous == identity:
        return
    if previous is not None:
        for name in ("predictions", "verdicts"):
            if (old := folder / f"{name}.jsonl").exists():
                old.replace(folder / f"{name}.{config_hash(previous)}.jsonl")
    write(path, to_json(identity, indent=2) + "\n")
