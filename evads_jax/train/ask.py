"""Asking a model about one video: `evads_jax.load(folder).ask(video, question)`, and the job `ask`.

Several questions share one prefill of the video.
"""

import dataclasses
import json
import resource
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
from rich.console import Console

from evads_jax.data import chat, prompts
from evads_jax.data.annotations import Malformed
from evads_jax.data.folder import parse_events
from evads_jax.data.records import Event, Example, Question
from evads_jax.errors import UserError
from evads_jax.models.qwen_vl.inputs import Prompt, PromptBuilder, collate_prompts, collate_suffixes
from evads_jax.sampling.config import SamplingConfig
from evads_jax.sampling.questions import answer
from evads_jax.train.ask_source import Manner, Seen, Source, find

Events = Sequence[Event] | Sequence[Mapping[str, Any]]

_STEPS = (128, 32)  # prompts and questions are padded to multiples of these, so that few lengths are compiled


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model said to a question.

    Attributes:
      question: the question.
      trace: its reasoning; "" where it gave none.
      answer: its answer.
      well_formed: whether it kept to the form of trace and answer.
      text: everything that it said.
      tokens: how many tokens that is.
      times: seconds of the frames that it saw.
      dropped_events: events that did not fit the prompt.
      seconds: from the video's file to the answer, with those of the questions asked together, and with compilation.
      memory: bytes that the process (on a CPU) or the device has used at most.
    """

    question: str
    trace: str
    answer: str
    well_formed: bool
    text: str
    tokens: int
    times: tuple[float, ...]
    dropped_events: int
    seconds: float
    memory: int


class Model:
    """A model that can be asked about videos.

    Args:
      source: where it comes from; its parameters are read here.

    Raises:
      UserError: they cannot be read.
    """

    def __init__(self, source: Source):
        self.source = source
        self._params = source.parameters()
        self._builder = PromptBuilder(source.tokenizer, source.model)

    @overload
    def ask(
        self, video: str | Path, question: str, events: Events | None = None, category: str | None = None
    ) -> Answer: ...

    @overload
    def ask(
        self, video: str | Path, question: list[str], events: Events | None = None, category: str | None = None
    ) -> list[Answer]: ...

    def ask(self, video, question, events=None, category=None):
        """Asks about a video, in Chinese or English.

        Args:
          video: the file.
          question: the question, or several, which share one prefill of the video.
          events: what is said and written in the video, where it is known: `Event`s, or objects as in
            docs/your_data.md (`start`, `end`, `ocr`, `asr`).
          category: the goods' category, where it is known.

        Returns:
          The answer, or one for each of several questions.

        Raises:
          UserError: no question, a video that cannot be shown, events of another form, or a question that does not fit.
        """
        questions = [question] if isinstance(question, str) else question
        known = check_question(questions, events)
        began = time.monotonic()
        answers = self.answer(self.source.watch(Path(video)), questions, known, category, began)
        return answers[0] if isinstance(question, str) else answers

    def answer(
        self, seen: Seen, questions: Sequence[str], events: Sequence[Event], category: str | None, began: float
    ) -> list[Answer]:
        """`ask`, of a video that has been read; `Answer.seconds` count from `began`, a time of `time.monotonic`."""
        prompt, suffixes, dropped = self._prompt(seen, questions, events, category)
        said = self._generate(prompt, suffixes)
        about = tuple(seen.clip.times), dropped, time.monotonic() - began, _memory()
        answers = []
        for question, ids in zip(questions, said, strict=True):
            text = chat.decode_completion(self.source.tokenizer, ids)
            read = prompts.parse_completion(text)
            answers.append(Answer(question, read.trace, read.answer, read.well_formed, text, len(ids), *about))
        return answers

    def _generate(self, prompt: Prompt, suffixes: Sequence[list[int]]) -> list[list[int]]:
        """The likeliest completion of each suffix of a prompt, token by token."""
        tokenizer, model = self.source.tokenizer, self.source.model
        length, width = (
            -(-size // step) * step
            for size, step in zip((len(prompt.tokens), max(map(len, suffixes))), _STEPS, strict=True)
        )
        batch = collate_prompts([prompt], length, len(prompt.units), max(map(len, prompt.units)), model)
        asked = collate_suffixes([[(ids, 0) for ids in suffixes]], len(suffixes), width)
        sampling = SamplingConfig(
            self.source.manner.max_new_tokens,
            temperature=0.0,
            stop_ids=chat.stop_ids(tokenizer),
            pad_id=tokenizer.ids.pad,
        )
        ids, key = jnp.zeros_like(asked.lengths), jax.random.key(0)  # nothing is random at temperature 0
        rollout = answer(self._params, model, batch, asked.tokens, asked.lengths, ids, sampling, key)
        tokens, lengths = jax.device_get((rollout.tokens, rollout.lengths))
        return [tokens[i, 0, : lengths[i, 0]].tolist() for i in range(len(suffixes))]

    def _prompt(
        self, seen: Seen, questions: Sequence[str], events: Sequence[Event], category: str | None
    ) -> tuple[Prompt, list[list[int]], int]:
        """What the questions share, the ids of each from where it begins, and how many events were left out."""
        tokenizer, manner = self.source.tokenizer, self.source.manner
        examples = [
            Example(Question(str(i), text, ""), seen.name, category, seen.duration, tuple(events))
            for i, text in enumerate(questions)
        ]
        rendered = [
            prompts.render(example, manner.format, manner.language or _language(example.question.question))
            for example in examples
        ]
        times, size = seen.clip.times, seen.clip.frames.shape[1:3]
        try:
            fitted, dropped = self._builder.fit(rendered, manner.prompt_tokens, times, size)
        except UserError as error:
            raise UserError(
                error.what, error.where, "raise config.prompt_tokens, or lower config.max_frames"
            ) from error
        suffixes = [chat.encode_prompt(tokenizer, text, [], split=True).suffix for text in fitted]
        return self._builder.build(fitted[0], [seen.clip], split=True), suffixes, dropped


def load(folder: str | Path, stage: str | None = None, **changes: Any) -> Model:
    """Reads a model that can be asked about videos.

    Args:
      folder: a run's, or a checkpoint's in the Hugging Face layout.
      stage: of a run: base, sft, control or mg_grpo; None: the last that is finished.
      **changes: what is to differ from the model's own, see `ask_source.Manner`.

    Raises:
      UserError: there is no such model, or it cannot be read.
    """
    return Model(find(folder, stage, **changes))


def check_question(questions: Sequence[str], events: Events | None) -> tuple[Event, ...]:
    """Refuses empty questions; the events, read.

    Raises:
      UserError: there is no question, or events are of another form.
    """
    if not questions or not all(text.strip() for text in questions):
        raise UserError("no question", "config.question", "ask one, or several, one per line")
    if events and isinstance(events[0], Event):
        return tuple(events)  # type: ignore[arg-type]
    try:
        return parse_events(None if events is None else list(events))
    except Malformed as error:
        raise UserError(
            f"the events cannot be read: {error}", "config.events", "docs/your_data.md shows them"
        ) from error


def run(config: ConfigDict, workdir: Path | None = None) -> None:
    """Prints what a model answers.

    Args:
      config: see configs/ask.py.
      workdir: not used; nothing is written.

    Raises:
      UserError: something is missing or cannot be read; what is cheap is looked at first.
    """
    for field in ("model", "video", "question"):
        if not config[field]:
            raise UserError(f"no {field}", f"config.{field}", "see configs/ask.py")
    console = Console(highlight=False, soft_wrap=True)
    events = check_question(questions := config.question.split("\n"), _read_events(config.events))
    source = find(
        config.model, config.stage, **{field.name: config[field.name] for field in dataclasses.fields(Manner)}
    )
    began = time.monotonic()
    seen = source.watch(Path(config.video))
    watched = time.monotonic() - began
    model = Model(source)
    console.print(f"{source.name}, read in {time.monotonic() - began - watched:.1f} s", markup=False)
    for told in _told(model.answer(seen, questions, events, config.category, time.monotonic() - watched)):
        console.print(told, markup=False)


def _told(answers: Sequence[Answer]) -> Iterable[str]:
    for said in answers:
        yield f"\n{said.question}\n  trace   {said.trace or '–'}\n  answer  {said.answer or '–'}"
    last = answers[-1]
    dropped = f", {last.dropped_events} events did not fit" if last.dropped_events else ""
    yield (
        f"\n{len(last.times)} frames ({last.times[0]:.1f} to {last.times[-1]:.1f} s){dropped}; "
        f"{last.seconds:.1f} s with compilation; {last.memory / 1e9:.2f} GB"
    )


def _read_events(path: str | None) -> list[Any] | None:
    if path is None:
        return None
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError("no readable JSON file of events", path, "docs/your_data.md shows them") from error
    if not isinstance(found, list):
        raise UserError("the events are no list", path, "docs/your_data.md shows them")
    return found


def _language(question: str) -> str:
    """The language that a question is asked in: Chinese where it has a Chinese character."""
    return "zh" if any("\u4e00" <= character <= "\u9fff" for character in question) else "en"


def _memory() -> int:
    """Bytes used at most: of the device where it counts them, else of the process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return int(stats.get("peak_bytes_in_use", peak))
