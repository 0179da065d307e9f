"""Reads and writes the three parquet schemas of E-VAds (SFT, RL, test) as `Example`s.

A row that does not follow the grammar is a `BadRow` with file, row and reason, and the rest is read; a file that is
missing, is no parquet or has other columns is a `UserError`.

The released test file was not at hand when this was written: its field names are known from the released evaluation
code, its types and the form of its texts are assumed (all strings; `asr_ocr_meta` as the RL rows' `meta_info`;
`asr_input` as plain speech or as event lines; `ques_categories` a task) and checked on reading.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evads_jax import whole
from evads_jax.data.annotations import grammar
from evads_jax.data.annotations.grammar import Malformed
from evads_jax.data.records import TASKS, Event, Example, Question
from evads_jax.errors import UserError

SOURCE, ABILITY = "EVAdsBench", "QA"
FILES = {"sft": "EVAds_SFT.parquet", "rl": "EVAds_RL.parquet", "test": "EVAds_Test.parquet"}
_TASK_NAMES = {
    "basic perception": "BP",
    "cross-modal detection": "CM",
    "marketing logic": "ML",
    "consumer insight": "CI",
    "regulatory compliance": "RC",
} | {task.lower(): task for task in TASKS}


def _struct(**fields: pa.DataType) -> pa.DataType:
    return pa.struct(list(fields.items()))


_TEXT = pa.string()
_COMMON = [
    ("data_source", _TEXT),
    ("videos", _TEXT),
    ("prompt", pa.list_(_struct(content=_TEXT, role=_TEXT))),
    ("ability", _TEXT),
]
_EXTRA = ("extra_info", _struct(id=_TEXT, video_path=_TEXT))
_DETECTION = ("iou_completeness", "iou_max_iou_first", "iou_max_label_first", "map", "map50", "map75")
_VERIFIER_PARM = _struct(
    det_reward_ratio=_struct(**{name: pa.null() for name in _DETECTION}), det_verifier_normalized=pa.null()
)
_REWARD = _struct(
    accuracy_ratio=pa.int64(),
    answer=_TEXT,
    format_ratio=pa.int64(),
    ground_truth=_TEXT,
    verifier=pa.list_(_struct(clues=_TEXT, meta_info=_TEXT)),
    verifier_parm=_VERIFIER_PARM,
)
_TEST_FIELDS = (
    "question",
    "answer",
    "ques_categories",
    "goods_category",
    "asr_input",
    "video_id",
    "ques_id",
    "evidence",
    "asr_ocr_meta",
)
SCHEMAS = {
    "sft": pa.schema([*_COMMON, ("answer", _TEXT), _EXTRA]),
    "rl": pa.schema([*_COMMON, ("reward_model", _REWARD), _EXTRA]),
    "test": pa.schema([(name, _TEXT) for name in _TEST_FIELDS]),
}


@dataclasses.dataclass(frozen=True)
class BadRow:
    """A row that could not be read: the file, the row (of a parquet counted from 0; of a text its line), and why."""

    file: str
    row: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class AnnotationFile:
    """What was read from one file: the examples in row order, and the rows that are none."""

    examples: list[Example]
    bad: list[BadRow]

    def check(self, max_bad_share: float) -> None:
        """Fails when too many rows are bad.

        Args:
          max_bad_share: the largest share of bad rows that is accepted, 0 to 1.

        Raises:
          UserError: the share is larger; the message has the count and the first reason.
        """
        total = len(self.examples) + len(self.bad)
        if total and len(self.bad) / total > max_bad_share:
            raise UserError(
                f"{len(self.bad)} of {total} rows are malformed (data.max_bad_share={max_bad_share})",
                str(self.bad[0]),
                "correct the file or raise data.max_bad_share",
            )


def read_sft(path: str | Path) -> AnnotationFile:
    """Reads a parquet of the SFT schema.

    Raises:
      UserError: the file is missing, unreadable, or has other columns.
    """
    return _read(Path(path), "sft", _from_sft)


def read_rl(path: str | Path) -> AnnotationFile:
    """Reads a parquet of the RL schema: `events` are the policy's (speech only), `judge_events` those of `meta_info`.

    Raises:
      UserError: the file is missing, unreadable, or has other columns.
    """
    return _read(Path(path), "rl", _from_rl)


def read_test(path: str | Path) -> AnnotationFile:
    """Reads a parquet of the test schema: `events` from `asr_input`, `judge_events` from `asr_ocr_meta`.

    Raises:
      UserError: the file is missing, unreadable, or has other columns.
    """
    return _read(Path(path), "test", _from_test)


def read_folder(folder: str | Path, required: Sequence[str] = ()) -> dict[str, AnnotationFile]:
    """Reads the annotation files of a folder, by the names in `FILES` (upper or lower case).

    Args:
      folder: the folder.
      required: the schemas ("sft", "rl", "test") that must be there.

    Returns:
      Schema → file, for the files that are there.

    Raises:
      UserError: no such folder, a required file or every file is missing, or a file is unreadable.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError("no such folder of annotations", str(folder), "set data.annotations to it")
    present = {path.name.lower(): path for path in folder.iterdir()}
    readers = {"sft": read_sft, "rl": read_rl, "test": read_test}
    missing = [FILES[kind] for kind in required if FILES[kind].lower() not in present]
    found = {kind: present[name.lower()] for kind, name in FILES.items() if name.lower() in present}
    if missing or not found:
        names = ", ".join(missing or FILES.values())
        raise UserError(f"missing parquet: {names}", str(folder), "download the E-VAds annotations into it")
    return {kind: readers[kind](path) for kind, path in found.items()}


def write_sft(path: str | Path, examples: Iterable[Example]) -> None:
    """Writes examples in the released SFT schema; what `read_sft` reads back is the same.

    Raises:
      UserError: the schema cannot hold an example, e.g. overlay text with a line end.
    """
    _write(Path(path), "sft", _to_sft, _from_sft, examples)


def write_rl(path: str | Path, examples: Iterable[Example]) -> None:
    """Writes examples in the released RL schema; what `read_rl` reads back is the same.

    Raises:
      UserError: the schema cannot hold an example, e.g. overlay text among the policy's events.
    """
    _write(Path(path), "rl", _to_rl, _from_rl, examples)


def write_test(path: str | Path, examples: Iterable[Example]) -> None:
    """Writes examples in the test schema; what `read_test` reads back is the same.

    Raises:
      UserError: the schema cannot hold an example.
    """
    _write(Path(path), "test", _to_test, _from_test, examples)


def _from_sft(row: dict[str, Any]) -> Example:
    prompt = grammar.parse_sft_prompt(_common(row))
    clues, answer = grammar.parse_target(_text(row, "answer"))
    question = Question(_text(row["extra_info"], "id"), prompt.question, answer, clues)
    return Example(question, row["videos"], prompt.category, prompt.duration, prompt.events, source="sft")


def _to_sft(example: Example) -> dict[str, Any]:
    q = example.question
    prompt = grammar.sft_prompt(example.category, example.duration, example.events, q.question)
    return _common_fields(example, prompt) | {"answer": grammar.format_target(q.clues, q.answer)}


def _from_rl(row: dict[str, Any]) -> Example:
    prompt = grammar.parse_rl_prompt(_common(row))
    reward = row["reward_model"] or {}
    answer = _text(reward, "answer")
    if _text(reward, "ground_truth") != f"<answer>{answer}</answer>":
        raise Malformed("ground_truth is not the answer in its tags")
    if (reward["accuracy_ratio"], reward["format_ratio"]) != (1, 1):
        raise Malformed("accuracy_ratio and format_ratio are not 1")
    if len(reward["verifier"] or []) != 1:
        raise Malformed("verifier does not hold exactly one entry")
    verifier = reward["verifier"][0] or {}
    clues, meta = _text(verifier, "clues"), grammar.parse_meta(_text(verifier, "meta_info"))
    grammar.check_untagged(clues, answer)
    if meta.duration != prompt.duration:
        raise Malformed(f"duration is {prompt.duration} in the prompt and {meta.duration} in meta_info")
    question = Question(_text(row["extra_info"], "id"), prompt.question, answer, clues)
    return Example(question, row["videos"], meta.category, meta.duration, prompt.events, meta.events, "rl")


def _to_rl(example: Example) -> dict[str, Any]:
    q = example.question
    grammar.check_untagged(q.clues, q.answer)
    meta = grammar.format_meta(example.category, example.duration, example.evidence)
    reward = {
        "accuracy_ratio": 1,
        "answer": q.answer,
        "format_ratio": 1,
        "ground_truth": f"<answer>{q.answer}</answer>",
        "verifier": [{"clues": q.clues, "meta_info": meta}],
        "verifier_parm": {"det_reward_ratio": dict.fromkeys(_DETECTION), "det_verifier_normalized": None},
    }
    prompt = grammar.rl_prompt(example.duration, example.events, q.question)
    return _common_fields(example, prompt) | {"reward_model": reward}


def _from_test(row: dict[str, Any]) -> Example:
    meta = grammar.parse_meta(_text(row, "asr_ocr_meta"))
    question = Question(
        _text(row, "ques_id"), _text(row, "question"), _text(row, "answer"), _text(row, "evidence"), _task(row)
    )
    grammar.check_untagged(question.clues, question.answer)
    category = _text(row, "goods_category") or None
    if meta.category not in (None, category):
        raise Malformed(f"category is {category!r} in goods_category and {meta.category!r} in asr_ocr_meta")
    speech = _speech(_text(row, "asr_input"), meta.duration)
    return Example(question, _text(row, "video_id"), category, meta.duration, speech, meta.events, "test")


def _to_test(example: Example) -> dict[str, Any]:
    q = example.question
    return {
        "question": q.question,
        "answer": q.answer,
        "ques_categories": q.task or "",
        "goods_category": example.category or "",
        "asr_input": "\n".join(grammar.format_line(event, "speech") for event in example.events),
        "video_id": example.video,
        "ques_id": q.id,
        "evidence": q.clues,
        "asr_ocr_meta": grammar.format_meta(example.category, example.duration, example.evidence),
    }


def _speech(text: str, duration: int | None) -> tuple[Event, ...]:
    """Event lines as they stand; plain speech, which has no times, as one event a line over the whole video."""
    if text.startswith("Time "):
        return grammar.parse_lines(text, "speech")
    last = max((duration or 1) - 1, 0)
    return tuple(Event(0, last, asr=line) for line in text.split("\n") if line.strip())


def _task(row: dict[str, Any]) -> str | None:
    label = _text(row, "ques_categories").strip()
    if label and label.lower() not in _TASK_NAMES:
        raise Malformed(f"ques_categories is {label!r}, known are {', '.join(_TASK_NAMES)}")
    return _TASK_NAMES.get(label.lower())


def _common(row: dict[str, Any]) -> str:
    """Checks the fields that SFT and RL rows share; the prompt's text."""
    if (row["data_source"], row["ability"]) != (SOURCE, ABILITY):
        raise Malformed(f"data_source and ability are not {SOURCE}, {ABILITY}")
    messages = row["prompt"] or []
    if len(messages) != 1 or (messages[0] or {}).get("role") != "user":
        raise Malformed("prompt is not a single message of the user")
    if not row["extra_info"] or _text(row["extra_info"], "video_path") != _text(row, "videos"):
        raise Malformed("video_path is not the row's video")
    return _text(messages[0], "content")


def _common_fields(example: Example, prompt: grammar.PromptText) -> dict[str, Any]:
    return {
        "data_source": SOURCE,
        "videos": example.video,
        "prompt": [{"content": grammar.VIDEO + prompt.text, "role": "user"}],
        "ability": ABILITY,
        "extra_info": {"id": example.question.id, "video_path": example.video},
    }


def _text(fields: dict[str, Any], name: str) -> str:
    if not isinstance(value := fields.get(name), str):
        raise Malformed(f"{name} is missing")
    return value


def _read(path: Path, kind: str, parse: Callable[[dict[str, Any]], Example]) -> AnnotationFile:
    if not path.is_file():
        raise UserError("missing parquet", str(path), "download the E-VAds annotations, or correct the path")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError("not a readable parquet", str(path), "download it again") from error
    _check_schema(table.schema, kind, path)
    examples, bad = [], []
    for i, row in enumerate(table.to_pylist()):
        try:
            examples.append(parse(row))
        except Malformed as error:
            bad.append(BadRow(path.name, i, str(error)))
    return AnnotationFile(examples, bad)


def _check_schema(found: pa.Schema, kind: str, path: Path) -> None:
    for field in SCHEMAS[kind]:
        at = found.get_field_index(field.name)
        if at < 0:
            columns = ", ".join(found.names)
            raise UserError(f"no column {field.name!r}", str(path), f"expected the {kind} schema, found {columns}")
        problem = _type_problem(field.type, found.field(at).type, field.name)
        if problem:
            raise UserError(problem, str(path), f"expected the {kind} schema of E-VAds")


def _type_problem(expected: pa.DataType, found: pa.DataType, name: str) -> str:
    """What is wrong with a column's type, or ""; fields beyond the expected ones and all-null columns are accepted."""
    if pa.types.is_struct(expected) and pa.types.is_struct(found):
        for field in expected:
            at = found.get_field_index(field.name)
            if at < 0:
                return f"column {name} has no field {field.name!r}"
            if problem := _type_problem(field.type, found.field(at).type, f"{name}.{field.name}"):
                return problem
        return ""
    if pa.types.is_list(expected) and (pa.types.is_list(found) or pa.types.is_large_list(found)):
        return _type_problem(expected.value_type, found.value_type, name + "[]")
    texts = pa.types.is_string(expected) and (pa.types.is_large_string(found) or pa.types.is_string_view(found))
    fits = found == expected or pa.types.is_null(expected) or pa.types.is_null(found) or texts
    return "" if fits else f"column {name} is {found}, not {expected}"


def _write(
    path: Path,
    kind: str,
    to_row: Callable[[Example], dict[str, Any]],
    from_row: Callable[[dict[str, Any]], Example],
    examples: Iterable[Example],
) -> None:
    """Writes rows that were each read back and compared, to a temporary name first."""
    rows = []
    for i, example in enumerate(examples):
        where = f"{path}, row {i}, question {example.question.id}"
        try:
            rows.append(to_row(example))
            changed = _changed(example, from_row(rows[-1]), kind)
        except Malformed as error:
            raise UserError(f"the {kind} schema cannot hold this example ({error})", where) from error
        if changed:
            raise UserError(f"the {kind} schema cannot hold this example's {changed}", where)
    with whole.replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS[kind]), temporary)


def _changed(example: Example, again: Example, kind: str) -> str:
    """The first field that did not survive; what the released schemas have no place for (rubric, source) is not asked.

    SFT and RL rows carry no task; SFT rows show judge and policy the same events.
    """
    a, b = example.question, again.question
    pairs = {
        "id": (a.id, b.id),
        "question": (a.question, b.question),
        "answer": (a.answer, b.answer),
        "clues": (a.clues, b.clues),
        "task": (a.task, b.task) if kind == "test" else (None, None),
        "video": (example.video, again.video),
        "category": (example.category, again.category),
        "duration": (example.duration, again.duration),
        "events": (example.events, again.events),
        "judge_events": (example.evidence, again.evidence),
    }
    return next((name for name, (before, after) in pairs.items() if before != after), "")
