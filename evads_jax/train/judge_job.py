"""The job `train_judge`: drawn ads → a small model trained as a judge → measured on other ads → its folder.

No frames are drawn: a judge reads question, events, references and candidate. Three stages learn from prompts as
`LocalJudge` builds them:

- `reading`: the first layers, from all tokens of whole prompts, the value's among them. One grid value says little of a
  prompt; predicting its text teaches a model that starts from nothing to find again what stood before.
- `marks`: all layers, from marks alone (`train.judge_learner`): what the script has in place of each value that a
  candidate names, and whether it is that value. Half of them are not.
- `judge`: the value's tokens, and marks beside them. A step sees groups: a question, what its candidates are compared
  with, and candidates of every quality, each the continuation of that one prompt; each grid value comes equally often.
  What is kept is the best by validation.

    W/tokenizer             trained on the texts of the training examples
    W/checkpoints/<stage>   the training (`train.loop`)
    W/judge                 the judge: judge.json with everything that was measured, parameters, tokenizer
    W/tables/judge.*        the figures as tables

Started again it goes on where it stopped; a judge that was measured in the same way is not measured again.
"""

import dataclasses
import functools
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from evads_jax.benchmark import agreement, files, tables
from evads_jax.benchmark.judge_quality import measure, verdict_lines
from evads_jax.benchmark.judge_quality import tables as judge_tables
from evads_jax.data.prompts import LANGUAGES
from evads_jax.data.tokenizer import Tokenizer
from evads_jax.errors import UserError
from evads_jax.judge import local
from evads_jax.judge.candidates import draw_ads
from evads_jax.judge.examples import Examples
from evads_jax.judge.lexical import LexicalJudge
from evads_jax.judge.local import LocalJudge
from evads_jax.judge.request import Prompts, load_prompts
from evads_jax.judge.verdict import GRID
from evads_jax.models import qwen_vl
from evads_jax.models.qwen_vl import QwenVLConfig
from evads_jax.train import optimizer
from evads_jax.train.checkpoint import finished
from evads_jax.train.judge_inputs import (
    TOKENIZER,
    Item,
    JudgeBatches,
    ReadingBatches,
    fitting,
    make_tokenizer,
    survey,
)
from evads_jax.train.judge_learner import JudgeLearner, Marks
from evads_jax.train.loop import fit
from evads_jax.train.opening import Opened, open_run
from evads_jax.train.stage import Result, Stage

READING, MARKS, STAGE = "reading", "marks", "judge"
SPLITS = ("train", "validation", "test")
Tree = Any
_SURVEYED = 200  # examples that are looked at before training


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs what is left of the training and the measurement that `config` describes.

    Args:
      config: see configs/judge.py.
      workdir: the run's folder.

    Raises:
      UserError: bad config, too few ads, or a bucket that is too small; nothing that was done is lost.
    """
    prompts = check(config)
    opened = open_run(config, workdir)
    made = JudgeRun.make(config, workdir, prompts)
    result = made.train(opened)
    folder, asked = workdir / "judge", config.eval.to_dict()
    if (measured := _measured(folder, asked)) is None:
        judge = made.judge(result.params, config.eval.batch)
        held, seed = made.examples["test"], config.run.seed
        lexical = {"lexical": LexicalJudge(config.run.language)}
        count, counts = config.eval.examples, (config.eval.attacked, config.eval.bootstrap)
        measured = measure(judge, lexical, held, count, *counts, seed, opened.say)
        about: dict[str, Any] = {"prompts": prompts.version, "language": prompts.language}
        about |= {room: config.data[room] for room in ("prompt_tokens", "candidate_tokens")}
        about |= {"step": result.best_step, "seed": seed, "config_hash": files.config_hash(config.to_dict())}
        local.save(
            folder, result.params, made.model, made.tokenizer, TOKENIZER, **about, protocol=asked, measured=measured
        )
    name = f"{workdir.resolve().name}@{files.config_hash(config.to_dict())}"
    found = judge_tables(measured, LocalJudge.name, name)
    paths = tables.write(workdir / "tables", "judge", found)
    print("\n".join(table.markdown() for table in found[:-1]))
    for line in verdict_lines(measured, LocalJudge.name):
        opened.say(line)
    kappa = measured["agreement"][LocalJudge.name]["all"]["kappa"]["mean"]
    largest = {group: entry["largest"] for group, entry in measured["attack_groups"].items()}
    opened.log.write_once("evaluation", stage=STAGE, n=measured["examples"], kappa=kappa, largest_shift=largest)
    opened.say(f"the judge is in {folder}, every attack in {paths[0]}")


def check(config: ConfigDict) -> Prompts:
    """Refuses what cannot work before anything is made.

    Returns:
      The prompts that the judge will read.

    Raises:
      UserError: naming the field.
    """
    if config.run.language not in LANGUAGES:
        raise UserError(f"unknown language {config.run.language!r}", "run.language", "one of " + ", ".join(LANGUAGES))
    for field in ("groups", *(("reading_prompts",) if config.train.reading_steps else ())):
        if config.train[field] < 1:
            raise UserError(f"{field} {config.train[field]}", f"config.train.{field}", "at least 1 a step")
    if config.train.candidates < 8 or config.train.candidates % 8:
        what = f"a group of {config.train.candidates} cannot hold its question's grid values equally often"
        raise UserError(what, "config.train.candidates", "take a multiple of 8")
    named, compared, layers = config.train.named_layer, config.train.compared_layer, config.model.layers
    if not 0 < named < compared <= layers:
        what = f"named_layer {named} and compared_layer {compared} of {layers} layers"
        raise UserError(what, "config.train.compared_layer", "take named_layer < compared_layer ≤ model.layers")
    if not 0 < config.data.candidate_tokens < config.data.prompt_tokens:
        what = f"{config.data.candidate_tokens} tokens for the candidate of a prompt of {config.data.prompt_tokens}"
        raise UserError(what, "config.data.candidate_tokens", "take fewer than data.prompt_tokens")
    if not 0 <= config.data.attack_share < 1:
        raise UserError(f"a share of {config.data.attack_share}", "config.data.attack_share", "from 0 to below 1")
    for name, least in (("examples", 2 * len(GRID)), ("attacked", 1)):
        if config.eval[name] < least:
            raise UserError(f"{name} {config.eval[name]}", f"config.eval.{name}", f"at least {least}")
    if config.eval.attacked > config.eval.examples:
        what = f"{config.eval.attacked} examples to attack of {config.eval.examples}"
        raise UserError(what, "config.eval.attacked", "lower it")
    return load_prompts(config.data.prompts, config.run.language)


@dataclasses.dataclass(frozen=True)
class JudgeRun:
    """A run's fixed parts, put together once.

    Attributes:
      config: the whole config.
      workdir: the run's folder.
      prompts: the prompts.
      tokenizer: the judge's tokenizer.
      model: its sizes.
      examples: split → its examples.
    """

    config: ConfigDict
    workdir: Path
    prompts: Prompts
    tokenizer: Tokenizer
    model: QwenVLConfig
    examples: dict[str, Examples]

    @classmethod
    def make(cls, config: ConfigDict, workdir: Path, prompts: Prompts) -> "JudgeRun":
        """Draws the ads, trains the tokenizer and sizes the model.

        Raises:
          UserError: a split has too few ads, or the vocabulary is too small.
        """
        data, examples = config.data, {}
        for split in SPLITS:
            asked = config.eval.seed if split == "test" else None
            seed = config.run.seed if asked is None else asked
            ads = draw_ads(split, data[f"ads_{split}"], seed, config.run.language)
            examples[split] = Examples(ads, split, seed, data.attack_share if split == "train" else 0.0)
        tokenizer = make_tokenizer(config, workdir / "tokenizer", prompts, examples["train"])
        model = QwenVLConfig.from_config(config.model, tokenizer.size)
        return cls(config, workdir, prompts, tokenizer, model, examples)

    def judge(self, params: Tree, batch: int) -> LocalJudge:
        """The judge that some parameters make."""
        data = self.config.data
        rooms = data.prompt_tokens, data.candidate_tokens
        return LocalJudge(params, self.model, self.tokenizer, self.prompts, *rooms, batch)

    def train(self, opened: Opened) -> Result:
        """The stages `reading`, `marks` and `judge`; the result of the last."""
        config, section, model = self.config, self.config.train, self.model
        params = qwen_vl.init(model, jax.random.fold_in(jax.random.key(config.run.seed), zlib.crc32(b"init")))
        examples, prompts = self.examples["train"], self.judge({}, 1)
        about = {}
        if finished(self.workdir, STAGE) is None:
            found = survey(examples, prompts, _SURVEYED, section.candidates)
            about = {"fit": found, "ads": {split: len(examples.ads) for split, examples in self.examples.items()}}
            opened.say(", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in found.items()))
        if section.reading_steps:
            stage = Stage.of(config, READING, max_steps=section.reading_steps, validate_every=0, patience=0)
            lower = dataclasses.replace(model, layers=section.named_layer)
            batches = ReadingBatches(examples, prompts, lower, section.reading_prompts)
            below = self._fit(opened, stage, lowest(params, lower.layers), lower, batches, about).params
            params = grown(params, below)
        sizes = prompts, self.tokenizer, model, section.groups, section.candidates
        if section.mark_steps:
            stage = Stage.of(config, MARKS, max_steps=section.mark_steps, validate_every=0, patience=0)
            mixed = JudgeBatches(examples.mixed, *sizes, verdicts=False)
            params = self._fit(opened, stage, params, model, mixed, about).params
        every, patience = section.validate_every, section.patience
        stage = Stage.of(config, STAGE, max_steps=section.max_steps, validate_every=every, patience=patience)
        return self._fit(opened, stage, params, model, JudgeBatches(examples.group, *sizes), about)

    def _fit(
        self,
        opened: Opened,
        stage: Stage,
        params: Tree,
        model: QwenVLConfig,
        batches: ReadingBatches | JudgeBatches,
        about: Mapping[str, Any],
    ) -> Result:
        section = self.config.train
        matrices = optimizer.matrices(qwen_vl.abstract(model), qwen_vl.axes(model), qwen_vl.fan_in(model))
        assert stage.max_steps is not None
        made = optimizer.make(section, qwen_vl.decay_mask(model), stage.max_steps, matrices)
        wrong, right = (self.judge({}, 1).encode_value(value)[0] for value in (0.0, 1.0))
        marks = Marks(section.marks, section.named_layer, section.compared_layer, (wrong, right))
        learner = JudgeLearner(params, model, made, self._validate, marks if section.marks else None)
        return fit(learner, batches, stage, self.workdir, opened.log, opened.console, about)

    def _validate(self, params: Tree) -> dict[str, float]:
        """`loss`: mean −log of the label's share among the five values; `kappa` and `equal`: of the verdicts."""
        judge, size = self.judge(params, self.config.eval.batch), self.config.eval.batch
        items = self._validation
        prompts = [item.prompt for item in items]
        rows = [judge.probabilities(prompts[i : i + size]) for i in range(0, len(items), size)]
        shares, labels = np.concatenate(rows), np.array([item.label for item in items])
        found = np.array(GRID)[shares.argmax(axis=1)]
        own = shares[np.arange(len(items)), np.searchsorted(GRID, labels)]
        return {
            "loss": float(-np.log(np.maximum(own, 1e-30)).mean()),
            "kappa": float(agreement.kappa(agreement.confusions(labels, found).sum(axis=0))),
            "equal": float((found == labels).mean()),
        }

    @functools.cached_property
    def _validation(self) -> list[Item]:
        judge = self.judge({}, self.config.eval.batch)
        examples = self.examples["validation"]
        return [fitting(functools.partial(examples, i), judge)[0] for i in range(self.config.train.validation_examples)]


def lowest(params: Tree, layers: int) -> Tree:
    """The model's parameters without the decoder's layers above the first `layers`."""
    text = params["text"]
    return {**params, "text": {**text, "layers": jax.tree.map(lambda x: x[:layers], text["layers"])}}


def grown(params: Tree, below: Tree) -> Tree:
    """`params` with everything that `below`, a model of fewer layers, has."""

    def over(above: jax.Array, own: jax.Array) -> jax.Array:
        return jnp.concatenate([own, above[len(own) :]])

    layers = jax.tree.map(over, params["text"]["layers"], below["text"]["layers"])
    return {**below, "text": {**below["text"], "layers": layers}}


def _measured(folder: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """What an earlier call found out in the same way; None where there is nothing of the kind."""
    try:
        about = json.loads((folder / local.DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about.get("measured") if about.get("protocol") == json.loads(json.dumps(asked)) else None
