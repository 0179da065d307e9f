"""One's own data: a folder of videos and a JSONL or CSV of questions → `Example`s.

Each row is one question: `video, question, answer` and, where known, `clues, task, category, id, duration, events`.
`docs/your_data.md` walks through it.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evads_jax.data.annotations import AnnotationFile, BadRow, Malformed
from evads_jax.data.annotations.grammar import check_untagged
from evads_jax.data.makers import locate
from evads_jax.data.records import TASKS, Event, Example, Question
from evads_jax.errors import UserError

REQUIRED = ("video", "question", "answer")
OPTIONAL = ("clues", "task", "category", "id", "duration", "events")
_EVENT_FIELDS = {"start", "end", "ocr", "asr"}


def video_root(path: str | Path, videos: str | Path | None = None) -> Path:
    """The folder that the rows' `video` names are relative to: `videos`, or the folder of the questions' file."""
    return Path(videos) if videos else Path(path).parent


def read_questions(path: str | Path, videos: str | Path | None = None, need_videos: bool = True) -> AnnotationFile:
    """Reads one's own questions.

    Category, duration and events belong to the video: it is enough that one of its rows states them, and rows that
    contradict each other are bad.

    Args:
      path: a `.jsonl` or `.csv` file, UTF-8.
      videos: the folder of the videos; None for the folder of `path`.
      need_videos: whether a row whose video is not there is a bad one; an evaluation counts it.

    Returns:
      The examples in row order, `Example.video` as the row names it; unusable rows with their line and the reason.

    Raises:
      UserError: the file is missing, of another kind, not UTF-8, or holds no row; the folder is missing.
    """
    path, root = Path(path), video_root(path, videos)
    if not path.is_file():
        raise UserError("no such file of questions", str(path), "set data.jsonl to a JSONL or CSV file")
    if not root.is_dir():
        raise UserError("no such folder of videos", str(root), "set data.videos to the folder of the mp4 files")
    rows: list[tuple[int, Example]] = []
    bad: list[BadRow] = []
    seen: dict[str, int] = {}
    try:
        for line, fields in _rows(path):
            try:
                example = _example(fields, f"{path.stem}:{line}")
                _check_video(root, example.video, need_videos)
                if example.question.id in seen:
                    raise Malformed(f"id {example.question.id!r} is taken by line {seen[example.question.id]}")
            except Malformed as error:
                bad.append(BadRow(path.name, line, str(error)))
            else:
                seen[example.question.id] = line
                rows.append((line, example))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"not a readable text file ({error})", str(path), "save it as UTF-8") from error
    if not rows and not bad:
        raise UserError("no question", str(path), "give at least one row")
    examples, contradictions = _share_what_belongs_to_the_video(rows, path.name)
    return AnnotationFile(examples, sorted(bad + contradictions, key=lambda b: b.row))


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(line, fields) of each row; a line that is no JSON object comes as it is."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".jsonl":
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield number, _json(text)
        elif path.suffix == ".csv":
            reader = csv.DictReader(file, restkey="beyond the last column")
            _check_columns(reader.fieldnames, path)
            for row in reader:
                yield reader.line_num, {k: v for k, v in row.items() if v not in ("", None)}
        else:
            raise UserError(
                f"cannot read questions from a {path.suffix or 'nameless'} file", str(path), "use .jsonl or .csv"
            )


def _check_columns(columns: Any, path: Path) -> None:
    if missing := [name for name in REQUIRED if name not in (columns or ())]:
        raise UserError(f"no column {', '.join(missing)}", str(path), "the first line names the columns")


def _json(text: str) -> Any:
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is JSON, and no text
        return found
    except ValueError as error:
        return error


def _example(fields: Any, default_id: str) -> Example:
    if not isinstance(fields, dict):
        raise Malformed(f"not a JSON object ({fields})" if isinstance(fields, Exception) else "not a JSON object")
    known = (*REQUIRED, *OPTIONAL)
    if unknown := [str(name) for name in fields if name not in known]:
        raise Malformed(f"unknown field {unknown[0]!r}; known are {', '.join(known)}")
    texts = {name: _text(fields, name) for name in known if name not in ("duration", "events")}
    if empty := [name for name in REQUIRED if not texts[name].strip()]:
        raise Malformed(f"{empty[0]} is missing")
    check_untagged(texts["clues"], texts["answer"])
    if texts["task"] and texts["task"] not in TASKS:
        raise Malformed(f"task is {texts['task']!r}, known are {', '.join(TASKS)}; leave it out where it is not known")
    question = Question(
        id=texts["id"] or default_id,
        question=texts["question"],
        answer=texts["answer"],
        clues=texts["clues"],
        task=texts["task"] or None,
    )
    return Example(
        question,
        texts["video"],
        texts["category"] or None,
        _duration(fields.get("duration")),
        parse_events(fields.get("events")),
    )


def _check_video(root: Path, video: str, needed: bool) -> None:
    """Refuses a video that is not there where it is needed, and a name in whose place another file would be read."""
    named, found = root / video, locate(root, video)
    if needed and not found.is_file():
        raise Malformed(f"no such video: {video}")
    if found.is_file() and named.is_file() and not named.samefile(found):
        raise Malformed(f"the name leads out of the folder of videos: {video}")


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"{name} is not a text")
    return value


def _duration(value: Any) -> int | None:
    if value is None:
        return None
    try:
        duration = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise Malformed(f"duration is not a whole number of seconds: {value!r}") from error
    if isinstance(value, bool) or duration != float(value) or duration <= 0:
        raise Malformed(f"duration is not a whole number of seconds: {value!r}")
    return duration


def parse_events(value: Any) -> tuple[Event, ...]:
    """Events from a list of objects, or its JSON text (in a CSV cell), in order of time; none from None.

    Raises:
      Malformed: it is something else.
    """
    if isinstance(value, str):
        value = _json(value)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise Malformed("events is not a list of objects")
    return tuple(sorted((_event(item) for item in value), key=lambda e: (e.start, e.end)))


def _event(item: Any) -> Event:
    if not isinstance(item, dict) or not item.keys() <= _EVENT_FIELDS:
        raise Malformed(f"an event is not an object of {', '.join(sorted(_EVENT_FIELDS))}: {item!r}")
    start = item.get("start")
    end = item.get("end", start)
    if type(start) is not int or type(end) is not int or not 0 <= start <= end:
        raise Malformed(f"an event's start and end are not whole seconds in order: {item!r}")
    ocr, asr = item.get("ocr") or [], item.get("asr") or None
    ocr = [ocr] if isinstance(ocr, str) else ocr
    if not isinstance(ocr, list) or not all(isinstance(text, str) for text in [*ocr, asr or ""]):
        raise Malformed(f"an event's ocr is not a list of texts, or its asr no text: {item!r}")
    event = Event(start, end, tuple(_one_line(text) for text in ocr), None if asr is None else _one_line(asr))
    if not event.ocr and event.asr is None:
        raise Malformed(f"an event has neither ocr nor asr: {item!r}")
    return event


def _one_line(text: str) -> str:
    """An event is one line of a prompt, so that line ends inside its texts become spaces."""
    return " ".join(text.split())


def _share_what_belongs_to_the_video(rows: list[tuple[int, Example]], file: str) -> tuple[list[Example], list[BadRow]]:
    """Gives every row of a video the category, duration and events that one of them states."""
    names = ("category", "duration", "events")
    stated: dict[tuple[str, str], tuple[int, Any]] = {}
    bad, kept = [], []
    for line, example in rows:
        values = {name: getattr(example, name) for name in names if getattr(example, name)}
        known = {name: stated.get((example.video, name), (line, value)) for name, value in values.items()}
        if clash := next((name for name, value in values.items() if known[name][1] != value), ""):
            bad.append(BadRow(file, line, f"{clash} of {example.video} is not that of line {known[clash][0]}"))
            continue
        stated |= {(example.video, name): known[name] for name in values}
        kept.append(example)
    return [_completed(example, stated) for example in kept], bad


def _completed(example: Example, stated: dict[tuple[str, str], tuple[int, Any]]) -> Example:
    def of(name: str, default: Any) -> Any:
        return stated.get((example.video, name), (0, default))[1]

    return Example(
        question=example.question,
        video=example.video,
        category=of("category", None),
        duration=of("duration", None),
        events=of("events", ()),
        source="folder",
    )
