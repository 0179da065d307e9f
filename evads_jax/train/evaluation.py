"""The job `evaluate`: one model on one benchmark, from one command; the same command goes on after a kill.

    W/evaluation/<name>/…    predictions, verdicts, summary (`benchmark.files`)
    W/tables/main.*          the table of the summary

What a config leaves open (None) is the model's own where it is a run of ours, else what the paper's evaluation states,
else a default that the config's comments name. The protocol in the summary says what it came to.
"""

import copy
import dataclasses
import functools
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console

from evads_jax import storage
from evads_jax import workdir as run_folder
from evads_jax.benchmark import files, sources, tables
from evads_jax.benchmark.endpoint_policy import SECTION as ENDPOINT
from evads_jax.benchmark.endpoint_policy import EndpointPolicy
from evads_jax.benchmark.evaluate import Again, evaluate, identity
from evads_jax.benchmark.files import Split
from evads_jax.benchmark.policy import ModelPolicy, check_protocol
from evads_jax.benchmark.predict import Policy, StreamingPolicy
from evads_jax.data.prompts import FORMATS, LANGUAGES
from evads_jax.data.tokenizer import find_tokenizer
from evads_jax.errors import UserError
from evads_jax.judge import make_judge
from evads_jax.judge.endpoint import EndpointSettings
from evads_jax.judge.verdict import Judge
from evads_jax.models.qwen_vl import QwenVLConfig, checkpoint
from evads_jax.train import results
from evads_jax.train.opening import teller

# The paper's evaluation; it gives neither frame rate nor frame size.
PAPER = {
    "frame_rate": 2.0,
    "max_frames": 768,
    "frame_size": 448,
    "format_eval": "eval_released",
    "prompt_tokens": None,
    "max_new_tokens": 1524,
    "language": None,
}
TEXT_TOKENS = 8192  # room for the words of a prompt beside its video
_TOKENS_PER_UNIT = 16  # that a temporal unit's time and tags take, at most
Make = Callable[[ConfigDict, Split, Path], Policy | StreamingPolicy]


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is evaluated, before anything large is loaded.

    Attributes:
      name: of the evaluation's folder, unless the config names one.
      defaults: for the fields that the config leaves open.
      make: the resolved config, the questions, the evaluation's folder → the policy.
      model: its sizes; None for a model behind an endpoint.
      shards: the folder of shards to evaluate on, unless the config names a source.
    """

    name: str
    defaults: Mapping[str, Any]
    make: Make
    model: QwenVLConfig | None = None
    shards: str | None = None


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs the evaluation that `config` describes, or what is left of it.

    Args:
      config: see configs/evaluate.py.
      workdir: where the results go.

    Raises:
      UserError: bad config, model, data, judge or endpoint, told before any work; or a budget that is spent: what came
        is kept.
    """
    first = jax.process_index() == 0
    console = Console(quiet=not first)
    progress = teller(console)
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    check_protocol(config.eval)
    if config.judge.repeats < 1:
        raise UserError("a judge is asked at least once", "judge.repeats")
    subject = find_subject(config.policy)
    source = sources.find(config.data, _frames(subject.defaults), _multiple(subject), subject.shards)
    for note in source.notes:
        say(note)
    resolved = resolve(config, subject, source)
    judge, *repeats = [_judge(resolved, "judge", workdir, repeat) for repeat in range(config.judge.repeats)]
    second = None
    if config.second_judge.kind:
        second_judge = _judge(resolved, "second_judge", workdir)
        second = Again(second_judge, identity(second_judge, resolved.second_judge))
    name = config.name or subject.name
    policy = subject.make(resolved, source.split, files.folder(workdir, name))
    run_folder.claim(workdir, config)
    split = source.split
    say(f"{name}: {len(split.examples)} questions of {len(split.records)} videos, {policy.weights}")
    summary = evaluate(policy, split, workdir, name, judge, resolved, progress, repeats, second)
    for line in told(summary):
        say(line)
    for asked in (judge, *repeats, *((second.judge,) if second else ())):
        if hasattr(asked, "report"):
            say(f"judge: {json.dumps(asked.report(), ensure_ascii=False)}")
            asked.close()
    if isinstance(policy, EndpointPolicy):
        policy.close()
    if not first:
        return
    tables.write(workdir / "tables", "main", tables.main([workdir]))
    tables.print_stage_table(workdir, console)
    say(f"tables in {workdir / 'tables'}, everything else in {workdir / 'evaluation' / summary['stage']}")


def find_subject(policy: ConfigDict) -> Subject:
    """What a config's section `policy` names.

    Raises:
      UserError: an unknown kind, or no such run, stage or checkpoint.
    """
    kinds = {"run": _of_run, "checkpoint": _of_checkpoint, "endpoint": _of_endpoint}
    if policy.kind not in kinds:
        raise UserError(f"unknown policy {policy.kind!r}", "policy.kind", "use one of " + ", ".join(kinds))
    return kinds[policy.kind](policy)


def _of_run(policy: ConfigDict) -> Subject:
    """A stage of a run of ours, with the run's own frames, prompt format, limits and language."""
    if not policy.run:
        raise UserError("no run", "policy.run", "name the folder of a finished run")
    found = results.find_policy(policy.run, policy.stage)
    theirs = found.config
    made_with = json.loads((found.folder / "config.json").read_text(encoding="utf-8"))
    weights = f"{found.weights}, {found.folder.resolve().name}@{files.config_hash(made_with)}"

    def make(config: ConfigDict, split: Split, out: Path) -> Policy:
        return ModelPolicy(found.parameters(), found.model, found.tokenizer, config, weights)

    sections = {"language": theirs.run, "max_new_tokens": theirs.eval}
    defaults = {name: sections.get(name, theirs.data)[name] for name in PAPER}
    return Subject(found.stage, defaults, make, found.model, found.shards)


def _of_checkpoint(policy: ConfigDict) -> Subject:
    """A folder with a Qwen checkpoint in the Hugging Face layout, as the paper's evaluation asks it."""
    if not policy.path:
        raise UserError("no checkpoint", "policy.path", "name the folder with config.json and *.safetensors")
    folder = storage.fetched(policy.path)
    model = dataclasses.replace(checkpoint.read_config(folder), dtype=policy.dtype)
    tokenizer = find_tokenizer(folder)

    def make(config: ConfigDict, split: Split, out: Path) -> Policy:
        params = checkpoint.load_parameters(folder, model)
        return ModelPolicy(params, model, tokenizer, config, folder.resolve().name)

    return Subject(_slug(folder.resolve().name), PAPER, make, model)


def _of_endpoint(policy: ConfigDict) -> Subject:
    """A model behind an endpoint, as the paper's evaluation asks it."""
    EndpointSettings.from_config(policy, ENDPOINT)
    return Subject(_slug(policy.model), PAPER, EndpointPolicy)


def resolve(config: ConfigDict, subject: Subject, source: sources.Source) -> ConfigDict:
    """The config with nothing left open.

    Raises:
      UserError: an unknown prompt format or language.
    """
    made = copy.deepcopy(config)
    with made.unlocked():
        made.data.update(source.sampling)
        for name, default in subject.defaults.items():
            section = made.eval if name == "max_new_tokens" else made.run if name == "language" else made.data
            if section[name] is None:
                section[name] = default
        if made.run.language is None:
            made.run.language = source.language or "zh"
        if made.data.prompt_tokens is None and subject.model is not None:
            made.data.prompt_tokens = _prompt_tokens(made.data, subject.model)
    if made.data.format_eval not in FORMATS:
        raise UserError(
            f"unknown prompt format {made.data.format_eval!r}", "data.format_eval", "use one of " + ", ".join(FORMATS)
        )
    if made.run.language not in LANGUAGES:
        raise UserError(f"unknown language {made.run.language!r}", "run.language", "use one of " + ", ".join(LANGUAGES))
    return made


def told(summary: Mapping[str, Any]) -> list[str]:
    """What a summary says beyond its table: what has no score, and how far judgements agree."""
    lines = []
    r5 = summary["tasks"]["all"]["R5"]
    if lacking := summary.get("without_score"):
        counts, (low, high) = lacking["tasks"]["all"], r5["mean_all_bounds"]
        reasons = ", ".join(
            f"{counts[name]} for {name}" for name in ("videos", "predictions", "verdicts") if counts[name]
        )
        bounds = f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
        lines.append(f"without a score {r5['n_missing']} of {r5['n']} answers ({reasons}); R5 over all: {bounds}")
    for block, label in (("repeatability", "the judge asked again"), ("second_judge", "the second judge")):
        if figures := summary.get(block):
            intervals = {name: value for name, value in figures.items() if isinstance(value, dict) and "ci95" in value}
            shown = ", ".join(f"{name} {_interval(value)}" for name, value in intervals.items())
            lines.append(f"{label}: {figures['answers']} answers, {shown}")
    return lines


def _interval(value: Mapping[str, Any]) -> str:
    if value["mean"] is None:
        return "–"
    return f"{value['mean']:.3f}" + (" [{:.3f}, {:.3f}]".format(*value["ci95"]) if value["ci95"] else "")


def _judge(config: ConfigDict, section: str, workdir: Path, repeat: int = 0) -> Judge:
    return make_judge(config[section], config.run.language, workdir, repeat, section)


def _frames(defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {name: defaults[name] for name in sources.FRAMES}


def _multiple(subject: Subject) -> int:
    return subject.model.vision.cell if subject.model else 1


def _prompt_tokens(data: ConfigDict, model: QwenVLConfig) -> int:
    """A bucket that holds the longest video and `TEXT_TOKENS` of text."""
    units = -(-data.max_frames // model.vision.temporal_patch)
    return units * ((data.frame_size // model.vision.cell) ** 2 + _TOKENS_PER_UNIT) + TEXT_TOKENS


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "model"
