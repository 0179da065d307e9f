"""The job `experiment`: data → SFT → MG-GRPO → every stage evaluated → tables and report, in one work directory.

Each part goes on where an earlier call stopped: shards and evaluations know what they hold, stages have checkpoints.
The order of `run.stages` is the order of work; every stage is evaluated as soon as it is trained. Several processes
divide all of it among them: shards, batches (`models.division`), questions and verdicts.
"""

import base64
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from evads_jax import processes, storage, whole
from evads_jax.benchmark import tables
from evads_jax.benchmark.evaluate import evaluate, evaluate_chance
from evads_jax.benchmark.files import Split
from evads_jax.benchmark.policy import ModelPolicy
from evads_jax.benchmark.report import write_report
from evads_jax.data import prompts
from evads_jax.data.prepare import prepare
from evads_jax.data.tokenizer import Tokenizer, load_tokenizer, train_sentencepiece
from evads_jax.errors import UserError
from evads_jax.judge import make_judge
from evads_jax.judge.verdict import Judge
from evads_jax.models import partitioning
from evads_jax.models.division import Division
from evads_jax.models.qwen_vl import QwenVLConfig
from evads_jax.rl import settings
from evads_jax.train import grpo, optimizer, starting, trainable
from evads_jax.train.checkpoint import finished
from evads_jax.train.context import Context
from evads_jax.train.grpo import train_grpo
from evads_jax.train.opening import Opened, Say, open_run
from evads_jax.train.preemption import Preempted, Preemption
from evads_jax.train.sft import train_control, train_sft

STAGES = ("base", "sft", "mg_grpo", "control")


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs the experiment that `config` describes, or what is left of it.

    Args:
      config: see configs/mg_grpo.py.
      workdir: the run's folder.

    Raises:
      UserError: bad config or data; nothing that was done is lost.
    """
    _check(config)
    starting.adopt(config)
    mesh = _devices(config)
    # Before the folder belongs to the config: a judge or a tokenizer that was named wrongly may be named again.
    judge = make_judge(config.judge, config.run.language, workdir)
    if config.tokenizer.path:
        load_tokenizer(config.tokenizer.kind, config.tokenizer.path)
    run = open_run(config, workdir)
    context, splits = _context(config, workdir, run, mesh)
    _stages(context, splits, judge, run.say)
    if jax.process_index() == 0:
        tables.write_run_tables(workdir)
        report = write_report(workdir, splits["test"].records, config.run.seed)
        tables.print_stage_table(workdir, run.console)
        run.say(f"tables in {workdir / 'tables'}, report in {report}")


def _check(config: ConfigDict) -> None:
    """Refuses what cannot work before anything is made."""
    stages = tuple(config.run.stages)
    if unknown := [s for s in stages if s not in STAGES]:
        raise UserError(f"unknown stage {unknown[0]!r}", "config.run.stages", "of " + ", ".join(STAGES))
    if list(stages) != sorted(set(stages), key=STAGES.index):
        raise UserError("stages out of order, or twice", "config.run.stages", "keep " + ", ".join(STAGES))
    needs_sft = {"mg_grpo", "control"} & set(stages)
    if needs_sft and "sft" not in stages and not config.run.sft_from:
        raise UserError(
            f"stage {sorted(needs_sft)[0]} starts from sft", "config.run.stages", "add sft, or set run.sft_from"
        )
    if "control" in stages and "mg_grpo" not in stages and config.control.steps is None:
        raise UserError("the control lasts as long as mg_grpo", "config.control.steps", "add mg_grpo, or give steps")
    if config.run.sft_from and finished(config.run.sft_from, "sft") is None:
        what = "there is no finished sft stage"
        raise UserError(what, str(config.run.sft_from), "set run.sft_from to a run that has one")
    grpo.check(config.rl)
    settings.check_mesh(config.rl, config.mesh)
    for section in ("sft", "rl"):
        optimizer.check(config[section], f"config.{section}")
    trainable.check(config)
    _check_batches(config)


def _check_batches(config: ConfigDict) -> None:
    """Refuses batches that do not divide among the processes."""
    if jax.process_count() == 1:
        return
    mesh, stages = partitioning.mesh_of(config.mesh), set(config.run.stages)
    sizes = {"eval.batch_prompts": config.eval.batch_prompts}
    if stages & {"sft", "control"}:
        sizes["sft.batch_videos"] = config.sft.batch_videos
    if "mg_grpo" in stages:
        sizes["rl.batch_prompts"] = config.rl.batch_prompts
    for field, batch in sizes.items():
        Division.of(mesh, batch, f"config.{field}")


def _devices(config: ConfigDict) -> jax.sharding.Mesh | None:
    """The devices; refuses a model whose sizes fit neither each other nor them."""
    QwenVLConfig.from_config(config.model, 1)  # how many tokens there are is known later, and nothing depends on it
    partitioning.check_heads(config.mesh.tp, config.model.heads)
    return partitioning.mesh_of(config.mesh)


def _context(
    config: ConfigDict, workdir: Path, run: Opened, mesh: jax.sharding.Mesh | None
) -> tuple[Context, Mapping[str, Split]]:
    """Data, tokenizer and model of the experiment."""
    if earlier := config.run.sft_from:
        with config.unlocked():
            config.data.shards = config.data.shards or storage.name_of(Path(earlier) / "shards")
            config.tokenizer.path = config.tokenizer.path or storage.name_of(Path(earlier) / "tokenizer")
    sources = prepare(config, workdir, run.say)
    run.log.sync()
    tokenizer = _tokenizer(config, workdir, sources)
    model = QwenVLConfig.from_config(config.model, tokenizer.size)
    splits = {name: Split.of(sources[name]) for name in ("validation", "test")}
    return Context(config, workdir, run.log, tokenizer, model, sources, mesh, run.console), splits


def _tokenizer(config: ConfigDict, workdir: Path, sources: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that the config names, or one that process 0 trains on the training splits, kept in W/tokenizer."""
    section, folder = config.tokenizer, workdir / "tokenizer"
    if section.path or section.kind != "sentencepiece":
        return load_tokenizer(section.kind, section.path or folder)
    path = folder / "tokenizer.model"

    def trained() -> str:
        if not path.exists():
            training = (sources[split] for split in ("sft", "rl"))
            examples = (example for source in training for i in range(len(source)) for example in source[i].examples())
            train_sentencepiece(
                prompts.corpus(examples), section.vocabulary, folder, prompts.constants(), section.longest_piece
            )
        return base64.b64encode(path.read_bytes()).decode()

    held = base64.b64decode(processes.by_first(trained, "train a tokenizer", str(folder)))
    if not path.exists() or path.read_bytes() != held:  # on a machine with a disk of its own
        whole.write(path, held)
    return load_tokenizer("sentencepiece", folder)


def _stages(context: Context, splits: Mapping[str, Split], judge: Judge, say: Say) -> None:
    """Trains and evaluates the stages in turn."""
    config, workdir = context.config, context.workdir
    division = None
    if context.mesh is not None:
        division = context.division(config.eval.batch_prompts, "config.eval.batch_prompts")
    with _ending_together(say) as log:
        evaluate_chance(splits["validation"], splits["test"], workdir, judge, config, log)
    base = starting.parameters(config, context.model, context.mesh)
    # What a stage trains of its start is gone afterwards, so that no more of a large model is held than it needs.
    params, sft = base, None
    for stage in config.run.stages:
        weights = "seed " + str(config.run.seed)
        if stage == "base":
            params = base
        elif stage == "sft":
            result = train_sft(context, base)
            params = sft = result.params
            weights = f"step {result.best_step}"
        else:
            earlier = config.run.sft_from or workdir
            start, sft = sft, None
            if start is None:
                start = trainable.load_result(config, context.model, base, earlier, "sft", context.mesh)
            if stage == "mg_grpo":
                result = train_grpo(context, start)
            else:
                steps = config.control.steps or _control_steps(workdir, Path(earlier))
                result = train_control(context, start, steps=steps, split=config.control.split)
            params, weights = result.params, f"step {result.step}"
        blanked = (False, True) if stage in config.eval.blank_too and not config.eval.blank_frames else (None,)
        for blank in blanked:
            named = f"{stage}, {weights}"
            policy = ModelPolicy(params, context.model, context.tokenizer, config, named, blank, division)
            with _ending_together(say) as log:
                summary = evaluate(policy, splits["test"], workdir, stage, judge, config, log)
            r5, name = summary["tasks"]["all"]["R5"], summary["stage"]
            context.log.write_once("evaluation", stage=name, n=summary["n"], R5=r5["mean_valid"])
            context.log.sync()
            say(f"{name}: R5 {r5['mean_valid']:.3f} on {summary['n']} questions")


@contextlib.contextmanager
def _ending_together(say: Say) -> Iterator[Say]:
    """What an evaluation tells its lines; with several processes SIGTERM ends it after one of them, on all at once.

    A single process ends where it is. Of several the others would wait for it, so they end where all have told a line:
    after each turn of questions. What was done by then is kept.
    """
    if jax.process_count() == 1:
        yield say
        return
    with Preemption() as preemption:

        def told(line: str) -> None:
            say(line)
            if preemption.requested:
                raise Preempted

        yield told
        if preemption.requested:
            raise Preempted


def _control_steps(workdir: Path, earlier: Path) -> int:
    """How many steps SFT did, or would have done, in the seconds that MG-GRPO took; by the records of these stages."""
    sft, rl = finished(earlier, "sft"), finished(workdir, "mg_grpo")
    assert sft is not None
    assert rl is not None
    return max(round(rl["seconds"] * sft["step"] / sft["seconds"]), 1)
