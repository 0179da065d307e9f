"""The job `inspect`: a run's completions, filtered, as readable blocks; optionally as JSONL and HTML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from evads_jax import storage
from evads_jax.benchmark import blocks, files, tables
from evads_jax.benchmark.blocks import Answer, Block, Filter, Judgement
from evads_jax.benchmark.files import CHANCE, STAGES, Evaluation
from evads_jax.data import shards
from evads_jax.data.records import TASKS
from evads_jax.errors import UserError
from evads_jax.train import completions, results


def run(config: ConfigDict, workdir: Path | None = None) -> None:
    """Prints the blocks that `config` asks for, and how many there are.

    Args:
      config: see configs/inspect.py.
      workdir: not used; everything is read from `config.run`.

    Raises:
      UserError: no such run, evaluation, step or task; or two evaluations that cannot be compared.
    """
    if not config.run:
        raise UserError("no run", "config.run", "name its folder")
    if config.task is not None and config.task not in TASKS:
        raise UserError(f"unknown task {config.task!r}", "config.task", "one of " + ", ".join(TASKS))
    found = {"evaluation": _evaluated, "training": _trained}
    if config.source not in found:
        raise UserError(f"unknown source {config.source!r}", "config.source", "one of " + ", ".join(found))
    everything = found[config.source](config)
    wanted = Filter(config.task, config.lowest, config.highest, config.missing, config.difference, config.contains)
    kept = [block for block in everything if wanted.keeps(block)]
    if config.against or config.against_stage:
        kept.sort(key=lambda block: block.difference or 0.0)
    shown = kept[: config.limit] if config.limit else kept
    print(blocks.as_text(shown))
    print(f"{len(kept)} of {len(everything)} completions fit the filter, {len(shown)} shown")
    if config.jsonl:
        files.write(Path(config.jsonl), "".join(files.to_json(blocks.as_row(block)) + "\n" for block in kept))
    if config.html:
        files.write(
            Path(config.html), blocks.as_page(f"{Path(config.run).resolve().name}, {len(shown)} completions", shown)
        )


def _evaluated(config: ConfigDict) -> list[Block]:
    """The blocks of one evaluation, or of two side by side."""
    if config.step is not None:
        raise UserError("an evaluation has no steps", "config.step", "use config.source=training")
    folder = storage.fetched(config.run, *tables.WANTED)
    evaluation = _choose(files.load(folder), config.stage, folder)
    if not (config.against or config.against_stage):
        if config.difference is not None:
            raise UserError("a difference to what?", "config.difference", "set config.against or config.against_stage")
        return list(blocks.from_evaluation(evaluation, _questions(evaluation, folder)).values())
    other_folder = storage.fetched(config.against or config.run, *tables.WANTED)
    other = _choose(files.load(other_folder), config.against_stage or evaluation.name, other_folder)
    if other.summary["split"]["hash"] != evaluation.summary["split"]["hash"]:
        raise UserError("the two were asked other questions", f"{evaluation.folder} and {other.folder}")
    questions = _questions(evaluation, folder)
    names = [f"{f.resolve().name}, {e.name}" for f, e in ((folder, evaluation), (other_folder, other))]
    ours, theirs = (
        blocks.from_evaluation(evaluation, questions, names[0]),
        blocks.from_evaluation(other, questions, names[1]),
    )
    return blocks.side_by_side(ours, theirs)


def _choose(found: Mapping[str, Evaluation], stage: str | None, folder: Path) -> Evaluation:
    """The evaluation of a stage; without one the last of a run's stages, else the last."""
    names = [name for name in found if name != CHANCE] or list(found)
    stage = stage or next((name for name in reversed(STAGES) if name in names), names[-1])
    if stage not in found:
        raise UserError(f"no evaluation {stage!r}", storage.name_of(folder), "it has " + ", ".join(found))
    return found[stage]


def _questions(evaluation: Evaluation, folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """What was asked: from the evaluation's own file, else (of earlier versions) from the run's shards."""
    if questions := evaluation.questions():
        return questions
    records = shards.open(results.find_policy(folder, results.BASE).shards, "test")
    return {
        q.id: {"question": q.question, "reference": q.answer, "clues": q.clues}
        for i in range(len(records))
        for q in records[i].questions
    }


def _trained(config: ConfigDict) -> list[Block]:
    """The completions of a GRPO stage, as it learned from them."""
    if config.against or config.against_stage or config.difference is not None:
        raise UserError("completions of training cannot be compared", "config.against", "use config.source=evaluation")
    stage = config.stage or STAGES[-1]
    folder = storage.fetched(config.run, f"{completions.FOLDER}/{stage}", required=False)
    steps = completions.steps(folder, stage)
    if not steps or (config.step is not None and config.step not in steps):
        held = f"it has steps {steps[0]} to {steps[-1]}" if steps else "rl.keep_completions_every keeps them"
        raise UserError(f"no completions of stage {stage}, step {config.step or 'any'}", storage.name_of(folder), held)
    found = []
    for step in steps if config.step is None else [config.step]:
        for row in completions.read(folder, stage, step):
            worth = {name: row[name] for name in ("reward", "advantage") if row[name] is not None}
            judged = (
                Judgement("answer", row["answer_score"], row["answer_reason"]),
                Judgement("trace", row["trace_score"], row["trace_reason"]),
                *(Judgement(name, round(value, 4), "") for name, value in worth.items()),
            )
            answer = Answer(f"{stage}, step {step}, sample {row['sample']}", row["text"], judged)
            name = f"{row['prompt_id']}@{step}#{row['sample']}"
            asked = row["question"], row["reference"], ""
            found.append(Block(name, row["video"], row["task"], None, *asked, (answer,)))
    return found
