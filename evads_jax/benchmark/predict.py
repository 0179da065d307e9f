"""Asks a policy every question of a split, once, and keeps each completion as it comes."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from evads_jax.benchmark.files import (
    NoVideo,
    Split,
    answer_id,
    append_lines,
    config_hash,
    name_sample,
    read_lines,
    to_json,
    write,
)
from evads_jax.data.records import VideoRecord

Log = Callable[[str], None]
NO_VIDEO, NO_PREDICTION = "no video", "no prediction"


@dataclasses.dataclass(frozen=True)
class Failed:
    """There is no completion; it counts as 0 where nothing may be left out.

    Attributes:
      kind: `NO_VIDEO` or `NO_PREDICTION`.
      reason: in a few words.
    """

    kind: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Reply:
    """A completion with what it took.

    Attributes:
      text: the completion.
      finished: whether it came to its end; None where that is not known.
      input_tokens, output_tokens, cost: what it took.
    """

    text: str
    finished: bool | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0


class Policy(Protocol):
    """What is evaluated, and answers in batches.

    Attributes:
      weights: names the parameters, e.g. "sft, step 1500"; completions of other weights are not gone on with.
      protocol: how it is asked: prompt format, sampling, limits, frames; equal for all that is compared. `samples`,
        where it is there, is the number of completions per question.
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
        """The raw completion of each (video, index of a question); depends on the question alone, not its company.

        With more than one sample: `samples` completions of the first item, then of the second, ….
        """
        ...


@dataclasses.dataclass(frozen=True)
class Asked:
    """A completion that is wanted: `sample` of question number `question` of video number `video` of the split."""

    video: int
    question: int
    sample: int


@runtime_checkable
class StreamingPolicy(Protocol):
    """A policy that answers one question at a time, in any order, e.g. over a network; attributes as `Policy`."""

    weights: str
    protocol: Mapping[str, Any]

    def stream(
        self,
        wanted: Sequence[Asked],
        load: Callable[[int], VideoRecord],
        keep: Callable[[Asked, Reply | Failed], None],
    ) -> None:
        """Answers everything that is wanted.

        Args:
          wanted: video by video.
          load: gives a video's record, or raises `NoVideo`; may be called from any thread.
          keep: to be called, in this thread, with each answer as it comes; the answer is on the disk when it returns.
        """
        ...


def predict(
    policy: Policy | StreamingPolicy, split: Split, folder: Path, log: Log | None = None
) -> dict[str, str | Failed]:
    """Makes or completes `predictions.jsonl`.

    Questions that have their completions are not asked again; those that failed are. Completions of other weights,
    another protocol or another split, and verdicts on them, are renamed (`predictions.<hash>.jsonl`), not overwritten
    and not used until the same are asked for again. Another number of samples is no other protocol.

    Args:
      policy: the policy.
      split: the questions.
      folder: the evaluation's folder.
      log: gets a line now and then.

    Returns:
      Answer id (`files.name_sample`) → raw completion or why there is none, for every question and sample.

    Raises:
      UserError: the folder cannot be written, or what the policy raises; nothing that came is lost.
    """
    samples = policy.protocol.get("samples", 1)
    protocol = {name: value for name, value in policy.protocol.items() if name != "samples"}
    _set_aside_others(folder, {"weights": policy.weights, "protocol": protocol, "split": split.hash})
    kept = _Kept(split, folder, samples, log)
    if isinstance(policy, StreamingPolicy):
        _stream(policy, split, kept)
    else:
        _generate(policy, split, kept, samples)
    return kept.all()


class _Kept:
    """The rows of `predictions.jsonl`."""

    def __init__(self, split: Split, folder: Path, samples: int, log: Log | None):
        self._path, self._name, self._log = folder / "predictions.jsonl", folder.name, log
        self._questions = dict(zip(split.places, split.examples, strict=True))
        self._names = [name_sample(e.question.id, s) for e in split.examples for s in range(samples)]
        self._done: dict[str, str] = {}
        self._failed: dict[str, Failed] = {}
        for row in read_lines(self._path):
            if "id" in row and row.get("completion") is not None:
                self._done[answer_id(row)] = row["completion"]
            elif "id" in row:
                self._failed[answer_id(row)] = Failed(row.get("kind", NO_PREDICTION), row.get("reason", ""))
        self.wanted = [
            Asked(*place, sample)
            for place, example in self._questions.items()
            for sample in range(samples)
            if name_sample(example.question.id, sample) not in self._done
        ]
        self._left = len(self.wanted)

    def add(self, answers: Iterable[tuple[Asked, Reply | Failed]], dropped: Mapping[str, int] | None = None) -> None:
        """Keeps answers; a failure that is on record already is not written again."""
        rows = []
        for asked, answer in answers:
            example = self._questions[asked.video, asked.question]
            row: dict[str, Any] = {"id": example.question.id, "video": example.video}
            row |= {"sample": asked.sample} if asked.sample else {}
            name = answer_id(row)
            if isinstance(answer, Failed):
                if self._failed.get(name) != answer:
                    rows.append({**row, "completion": None, **dataclasses.asdict(answer)})
                self._failed[name] = answer
                continue
            row["completion"] = self._done[name] = answer.text
            if dropped is not None:
                row["dropped_lines"] = dropped.get(example.question.id, 0)
            else:
                row |= {k: v for k, v in dataclasses.asdict(answer).items() if k != "text"}
            rows.append(row)
        if rows:
            append_lines(self._path, rows)
        self._left -= sum(row["completion"] is not None for row in rows)
        if self._log:
            total = len(self._names)
            self._log(f"predict {self._name}: {total - self._left} of {total} completions")

    def all(self) -> dict[str, str | Failed]:
        unasked = Failed(NO_PREDICTION, "not asked")
        return {
            name: self._done[name] if name in self._done else self._failed.get(name, unasked) for name in self._names
        }


def _generate(policy: Policy, split: Split, kept: _Kept, samples: int) -> None:
    """Batches of questions, task by task; one that lacks a sample gets all of them drawn again.

    A batch lasts as long as its longest completion, and those of one task are of like length.
    """
    load = functools.lru_cache(maxsize=2)(split.records.__getitem__)
    pending: dict[tuple[int, int], list[Asked]] = {}
    for asked in kept.wanted:
        pending.setdefault((asked.video, asked.question), []).append(asked)
    tasks = {place: example.question.task or "" for place, example in zip(split.places, split.examples, strict=True)}
    places = sorted(pending, key=lambda place: (tasks[place], place))
    for start in range(0, len(places), policy.batch):
        items, readable = [], []
        for place in places[start : start + policy.batch]:
            try:
                items.append((load(place[0]), place[1]))
                readable.append(place)
            except NoVideo as error:
                kept.add((asked, Failed(NO_VIDEO, str(error))) for asked in pending[place])
        if not items:
            continue
        completions = iter(policy.generate(items))
        drawn = {place: [next(completions) for _ in range(samples)] for place in readable}
        answers = [(asked, Reply(drawn[place][asked.sample])) for place in readable for asked in pending[place]]
        kept.add(answers, policy.dropped_lines)


def _stream(policy: StreamingPolicy, split: Split, kept: _Kept) -> None:
    if kept.wanted:
        policy.stream(kept.wanted, split.records.__getitem__, lambda asked, answer: kept.add([(asked, answer)]))


def _set_aside_others(folder: Path, identity: dict[str, Any]) -> None:
    path = folder / "protocol.json"
    identity = json.loads(json.dumps(identity))
    try:
        previous = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        previous = None
    if previous is not None and previous != identity:
        for old in [
            *folder.glob("predictions.jsonl"),
            *folder.glob("verdicts.jsonl"),
            *folder.glob("verdicts_*.jsonl"),
        ]:
            kind, further, rest = old.stem.partition("_")
            old.replace(folder / f"{kind}.{config_hash(previous)}{further}{rest}.jsonl")
    if previous != identity:
        write(path, to_json(identity, indent=2) + "\n")
    mark = f".{config_hash(identity)}"  # also where a kill came between writing and renaming
    for kept in list(folder.glob(f"*{mark}*.jsonl")):
        if not (back := kept.with_name(kept.name.replace(mark, ""))).exists():
            kept.replace(back)
