"""The job `cope`: products → floor → training → evaluation on validation and test products, in one work directory.

    W/products/<split>            shards, unless `data.shards` names others
    W/tokenizer                   unless `tokenizer.path` names another
    W/checkpoints/cope            the training (`train.loop`)
    W/evaluation/<stage>_<split>  init: before training; trained (`benchmark.retrieval.store`)
    W/tables/<split>              retrieval.md, and each of its tables as csv and tex

Each part goes on where an earlier call stopped.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console

from evads_jax import storage
from evads_jax.benchmark import files
from evads_jax.benchmark.retrieval import store, tables
from evads_jax.benchmark.retrieval.score import Clips, score, summarise
from evads_jax.benchmark.retrieval.tables import FLOOR, TRAINED
from evads_jax.benchmark.table import write_tables
from evads_jax.data.products.prepare import prepare, survey
from evads_jax.data.products.records import DOMAINS, ProductClip
from evads_jax.data.tokenizer import load_tokenizer, train_sentencepiece
from evads_jax.errors import UserError
from evads_jax.events import EventLog
from evads_jax.models import cope, partitioning
from evads_jax.models.cope import CopeConfig, LossSettings
from evads_jax.models.cope.inputs import ClipInputs, Words
from evads_jax.models.cope.weights import load_text, load_visual
from evads_jax.models.division import place
from evads_jax.train.checkpoint import finished
from evads_jax.train.cope import CopeLearner, Encoder, ProductInputs, make_optimizer
from evads_jax.train.loop import fit
from evads_jax.train.opening import Opened, Say, open_run
from evads_jax.train.stage import Result, Stage, data_seed

STAGE = "cope"
EMPTY_TEXT = ("keep", "refuse")
TOKENIZERS = ("sentencepiece", "huggingface", "bert")
Tree = Any


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs what is left of the training and evaluation that `config` describes.

    Args:
      config: see configs/cope.py.
      workdir: the run's folder.

    Raises:
      UserError: bad config or data; nothing that was done is lost.
    """
    check(config)
    opened = open_run(config, workdir)
    say = opened.say
    run = CopeRun.make(config, workdir, opened)
    start = run.parameters()
    training = run.training(start)
    if config.eval.floor:
        run.evaluate(start, FLOOR, "before training")
    trained, step = run.train(training)
    run.evaluate(trained, TRAINED, f"step {step}")
    if jax.process_index() == 0:
        for split in config.eval.splits:
            write_tables(workdir / "tables" / split, "retrieval", tables.models([workdir], split))
        say(f"tables in {workdir / 'tables'}, embeddings and figures in {workdir / 'evaluation'}")


def check(config: ConfigDict) -> None:
    """Refuses what cannot work before anything is made.

    Raises:
      UserError: naming the field.
    """
    if config.data.empty_text not in EMPTY_TEXT:
        what = f"unknown choice {config.data.empty_text!r}"
        raise UserError(what, "config.data.empty_text", "one of " + ", ".join(EMPTY_TEXT))
    kind = config.tokenizer.kind
    if kind not in TOKENIZERS:
        raise UserError(f"unknown tokenizer kind {kind!r}", "config.tokenizer.kind", "one of " + ", ".join(TOKENIZERS))
    if kind != "sentencepiece" and not config.tokenizer.path:
        raise UserError(f"a {kind} tokenizer is not trained here", "config.tokenizer.path", "name its folder")
    named = {
        "tokenizer.path": config.tokenizer.path,
        "start.visual": config.start.visual,
        "start.text": config.start.text,
    }
    for field, path in named.items():
        if path and not storage.address(path).exists():
            raise UserError(f"there is no {path}", f"config.{field}", "name a folder that is there")
    if config.eval.export not in ("", *store.EXPORTS):
        raise UserError(f"unknown form {config.eval.export!r}", "config.eval.export", "npz, safetensors or nothing")
    if unknown := [split for split in config.eval.splits if split not in ("validation", "test")]:
        raise UserError(f"unknown split {unknown[0]!r}", "config.eval.splits", "of validation, test")
    model = CopeConfig.from_config(config.model, 1, 1)
    loss_settings(config, model)


def loss_settings(config: ConfigDict, model: CopeConfig) -> LossSettings:
    """The loss that a config asks for: of its pairs' weights, those that the model's form has."""
    section = config.loss.to_dict()
    section["pairs"] = {name: weight for name, weight in section["pairs"].items() if name in cope.pairs(model)}
    return LossSettings.from_config(section, model)


@dataclasses.dataclass(frozen=True)
class CopeRun:
    """A run's fixed parts, put together once.

    Attributes:
      config: the whole config.
      workdir: the run's folder.
      log: the run's events.
      sources: split → products.
      model: the model's sizes.
      inputs: builds what it reads.
      classes: training product → its number.
      mesh: the devices; None for one device.
      console: where progress is shown.
      say: told one line at a time.
    """

    config: ConfigDict
    workdir: Path
    log: EventLog
    sources: Mapping[str, Any]
    model: CopeConfig
    inputs: ClipInputs
    classes: Mapping[str, int]
    mesh: jax.sharding.Mesh | None
    console: Console
    say: Say

    @classmethod
    def make(cls, config: ConfigDict, workdir: Path, opened: Opened) -> "CopeRun":
        """Prepares the data, trains the tokenizer where one is to be trained, and sizes the model."""
        sources = prepare(config, workdir, opened.say)
        words = make_words(config, workdir, sources["train"])
        training = sources["train"]
        classes = {training[i].product: i for i in range(len(training))}
        head = len(classes) if config.loss.classification else 0
        model = CopeConfig.from_config(config.model, words.size, head)
        partitioning.check_heads(config.mesh.tp, model.visual_heads)
        partitioning.check_heads(config.mesh.tp, model.text_heads)
        mesh = partitioning.mesh_of(config.mesh)
        inputs = ClipInputs(words, model)
        return cls(config, workdir, opened.log, sources, model, inputs, classes, mesh, opened.console, opened.say)

    def parameters(self) -> Tree:
        """The parameters before training: drawn from the seed, under the weights that `config.start` names.

        Raises:
          UserError: the weights cannot be read, or are of other sizes.
        """
        seed, start = self.config.run.seed, self.config.start
        params = cope.init(self.model, jax.random.fold_in(jax.random.key(seed), zlib.crc32(f"{seed}/init".encode())))
        if start.visual:
            params = load_visual(params, self.model, storage.fetched(start.visual))
        if start.text:
            params = load_text(params, self.model, storage.fetched(start.text))
        if self.mesh is None:
            return params
        return jax.device_put(params, partitioning.shardings(cope.axes(self.model), self.mesh, params))

    def training(self, params: Tree) -> Callable[[], Result]:
        """The stage `cope` from given parameters, not begun yet: what cannot be trained is told here.

        Raises:
          UserError: see `survey`; or fewer products than a batch has, or an optimizer that there is not.
        """
        config, section = self.config, self.config.cope
        stage = Stage.of(
            config,
            STAGE,
            max_steps=section.max_steps,
            validate_every=section.validate_every,
            patience=section.patience,
        )
        about = {} if finished(self.workdir, STAGE) else {"fit": self.survey()}
        batches = ProductInputs(self.inputs, self.classes).loader(
            self.sources["train"],
            section.batch_products,
            data_seed(config.run.seed, STAGE),
            config.data.workers,
        )
        learner = CopeLearner(
            params,
            self.model,
            loss_settings(config, self.model),
            make_optimizer(section, self.model),
            self.validate if section.validate_every else None,
            self.place,
        )
        return functools.partial(fit, learner, batches, stage, self.workdir, self.log, self.console, about)

    def train(self, training: Callable[[], Result]) -> tuple[Tree, int]:
        """Runs what is left of the stage; the parameters that it ends with, and their step."""
        with self.on_mesh():
            result = training()
        self.say(f"trained {result.step} steps in {result.seconds:.0f} s ({result.reason})")
        return result.params, result.best_step

    def survey(self) -> dict[str, Any]:
        """What every split holds and lacks, before anything is trained or evaluated on.

        Raises:
          UserError: a text of zero tokens where `data.empty_text` is "refuse", or a split to be evaluated on in which
            no product has clips in some two domains.
        """
        told: dict[str, Any] = {}
        evaluated = {*self.config.eval.splits, *(["validation"] if self.config.cope.validate_every else [])}
        for split, source in self.sources.items():
            counts = survey(source, self._says)
            counts["texts_cut"] = sum(self.inputs.cut(clip.text) for clip in _clips(source))
            told[split] = counts
            shown = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
            self.say(f"{split}: {shown}")
            if counts.get("without_text") and self.config.data.empty_text == "refuse":
                first = next(clip.id for clip in _clips(source) if not self._says(clip.text))
                what = f"{counts['without_text']} texts of zero tokens in {split}"
                raise UserError(what, first, "mend them, or set data.empty_text to keep")
            for one, other in itertools.combinations(DOMAINS, 2):
                if split in evaluated and f"{one}_and_{other}" not in counts:
                    what = f"no product of {split} has clips in {one} and {other}"
                    raise UserError(what, str(source.folder), "retrieval needs some in every two domains")
        return told

    def _says(self, text: str) -> bool:
        """Whether the model reads any token of a text."""
        return bool(self.inputs.words.encode(text, self.model.text_tokens))

    def embed(self, params: Tree, split: str) -> dict[str, Clips]:
        """The embeddings of all clips of a split, by domain; pictures are in memory a batch at a time."""
        source, embedded = self.sources[split], {}
        with self.on_mesh():
            for domain in DOMAINS:
                names = [(clip.id, clip.product) for clip in _clips(source, domain)]
                if not names:
                    raise UserError(f"no {domain} clips in {split}", str(source.folder), "retrieval needs every domain")
                ids, products = zip(*names, strict=True)
                embedded[domain] = Clips(ids, products, self.encoder(params, _clips(source, domain), domain))
        return embedded

    def validate(self, params: Tree) -> dict[str, float]:
        """Mean R@1 and mAP of the validation products; the loss that may stop the stage is 1 − R@1."""
        scores = score(self.embed(params, "validation"), draws=1, seed=0)
        entry = summarise(scores, 1)["directions"]["mean"]
        return {"loss": 1 - entry["R@1"]["mean"], "R@1": entry["R@1"]["mean"], "mAP": entry["mAP"]["mean"]}

    def evaluate(self, params: Tree, stage: str, weights: str) -> None:
        """Evaluates parameters on every split of `eval.splits`, unless that was done in the same way before."""
        asked = self.config.eval
        for split in asked.splits:
            where, shards = store.folder(self.workdir, stage, split), _digest(self.sources[split])
            protocol = {"draws": asked.draws, "replicates": asked.bootstrap, "seed": self.config.run.seed}
            protocol["shards"] = shards
            with contextlib.suppress(UserError):
                exported = not asked.export or store.embeddings_file(where, asked.export).is_file()
                if exported and store.read_result(where).summary["protocol"] == protocol:
                    continue
            embedded = self.embed(params, split)
            scores = score(embedded, draws=asked.draws, seed=self.config.run.seed, shards=shards)
            summary = {
                "stage": stage,
                "weights": weights,
                "protocol": protocol,
                "seed": self.config.run.seed,
                "config_hash": files.config_hash(self.config.to_dict()),
                **summarise(scores, asked.bootstrap),
            }
            if jax.process_index() == 0:
                if asked.export:
                    store.export_embeddings(where, embedded, asked.export)
                store.save_result(where, summary, scores)
            mean = summary["directions"]["mean"]
            told = {"R@1": mean["R@1"]["mean"], "mAP": mean["mAP"]["mean"]}
            self.log.write_once("evaluation", stage=stage, split=split, **told)
            self.say(f"{stage}, {split} products: R@1 {told['R@1']:.3f}, mAP {told['mAP']:.3f}")

    @functools.cached_property
    def encoder(self) -> Encoder:
        """Embeds clips; one for the whole run, so that each domain is compiled once."""
        return Encoder(self.model, self.inputs, self.config.eval.batch_clips, self.place)

    def place(self, batch: Tree) -> Tree:
        """A batch on the devices."""
        return place(batch, self.mesh)

    def on_mesh(self) -> contextlib.AbstractContextManager:
        """Makes the run's mesh the current one."""
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)


def _clips(source: Any, domain: str | None = None) -> Iterator[ProductClip]:
    """The clips of a split, or those of one domain, product by product."""
    for index in range(len(source)):
        yield from source[index].clips if domain is None else source[index].of(domain)


def _digest(source: Any) -> str:
    """Names what a split's shards hold, which the names of products and clips do not: other seeds draw the same."""
    return hashlib.sha256("\n".join(shard.sha256 for shard in source.manifest.shards).encode()).hexdigest()[:16]


def make_words(config: ConfigDict, workdir: Path, training: Any) -> Words:
    """The tokenizer that the config names, or one trained on the training products' texts and kept in W/tokenizer."""
    section, folder = config.tokenizer, workdir / "tokenizer"
    if section.kind == "bert":
        return Words.bert(section.path)
    if not section.path and section.kind == "sentencepiece" and not (folder / "tokenizer.model").exists():
        texts = (clip.text for clip in _clips(training))
        train_sentencepiece(texts, section.vocabulary, folder, (), section.longest_piece)
    return Words.of(load_tokenizer(section.kind, section.path or folder))
