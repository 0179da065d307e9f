"""The typed records that the whole project speaks: events, questions, examples and videos.

Two views of the same data. An `Example` is one annotated question with everything known about its video, the unit
of the released annotation files. A `VideoRecord` is one video with its decoded media and all its questions, the
unit of a shard. `VideoRecord.examples()` goes from the second to the first.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Protocol

TASKS = ("BP", "CM", "ML", "CI", "RC")
DIMENSIONS = {"Perception": ("BP", "CM"), "Cognition & Reasoning": ("ML", "CI", "RC")}


@dataclasses.dataclass(frozen=True)
class Event:
    """What can be read and heard in a run of whole seconds.

    Attributes:
      start: first second of the span.
      end: last second of the span, inclusive; equal to `start` for a single second.
      ocr: the overlay texts of that second, in reading order; empty when nothing is written.
      asr: the words spoken; None when nobody speaks.
    """

    start: int
    end: int
    ocr: tuple[str, ...] = ()
    asr: str | None = None


@dataclasses.dataclass(frozen=True)
class RubricPoint:
    """One thing that a complete answer must say, for answers that come from a script.

    Attributes:
      slot: the attribute it is about, e.g. "colour".
      accepted: wordings that state it, the canonical one first.
      rivals: wordings of the other values of the same slot; stating one contradicts the reference.
      core: True for the conclusion, False for supporting detail.
    """

    slot: str
    accepted: tuple[str, ...]
    rivals: tuple[str, ...] = ()
    core: bool = True


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about a video and its reference answer.

    Attributes:
      id: unique in a data set.
      question: the question's text.
      answer: the reference answer.
      clues: the reasoning that leads to it (the `<think>` part of an SFT target); may be empty.
      task: one of `TASKS`, or None where the source gives no label.
      rubric: the points of the reference, where a script knows them; empty for real annotations.
    """

    id: str
    question: str
    answer: str
    clues: str = ""
    task: str | None = None
    rubric: tuple[RubricPoint, ...] = ()


@dataclasses.dataclass(frozen=True)
class Example:
    """One question together with what is known about its video.

    Attributes:
      question: the question and its reference.
      video: the video's name as the source gives it (a path or an id).
      category: goods category; None when unknown.
      duration: length in seconds; None when unknown.
      events: the time-aligned events that the policy may see.
      judge_events: the events that only the judge may see (they may hold OCR that the policy's lack);
        None when the judge sees `events`.
      source: the schema the row came from: "sft", "rl", "test", "folder" or "render".
    """

    question: Question
    video: str
    category: str | None = None
    duration: int | None = None
    events: tuple[Event, ...] = ()
    judge_events: tuple[Event, ...] | None = None
    source: str = "folder"

    @property
    def evidence(self) -> tuple[Event, ...]:
        """The events that the judge sees."""
        return self.events if self.judge_events is None else self.judge_events


@dataclasses.dataclass(frozen=True)
class VideoRecord:
    """One video: decoded media, annotations and questions; one record of a shard.

    Attributes:
      video: the video's name, unique in a data set.
      frames: JPEG files in time order.
      times: presentation time of each frame in seconds; same length as `frames`.
      duration: length of the media in seconds.
      questions: the questions asked about it.
      audio: 16 kHz mono FLAC; None for a silent video.
      category, events, judge_events, source: as in `Example`.
      annotated_duration: the whole seconds that the annotation states; None when it states none.
      facts: slot → canonical value of the script the video was rendered from; empty for real videos.
    """

    video: str
    frames: tuple[bytes, ...]
    times: tuple[float, ...]
    duration: float
    questions: tuple[Question, ...]
    audio: bytes | None = None
    category: str | None = None
    annotated_duration: int | None = None
    events: tuple[Event, ...] = ()
    judge_events: tuple[Event, ...] | None = None
    source: str = "folder"
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def example(self, index: int) -> Example:
        """The `index`-th question as an `Example`."""
        return Example(
            question=self.questions[index],
            video=self.video,
            category=self.category,
            duration=self.annotated_duration,
            events=self.events,
            judge_events=self.judge_events,
            source=self.source,
        )

    def examples(self) -> Iterator[Example]:
        """All questions as `Example`s, in order."""
        return (self.example(i) for i in range(len(self.questions)))


class Records(Protocol):
    """Random access to video records: a list of them, or `shards.RecordSource`."""

    def __len__(self) -> int:
        """Number of videos."""
        ...

    def __getitem__(self, index: int, /) -> VideoRecord:
        """One video."""
        ...
