"""COPE's training: batches, learner, the whole job with a tiny model, its resumption, and the search."""

import dataclasses
import functools
import json
import re
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evads_jax.benchmark.retrieval import store
from evads_jax.data.products.catalogue import draw_catalogue
from evads_jax.data.products.records import DOMAINS, ProductRecord
from evads_jax.data.products.render import DrawProducts
from evads_jax.data.tokenizer import train_sentencepiece
from evads_jax.errors import UserError
from evads_jax.events import read_events
from evads_jax.models import cope
from evads_jax.models.cope import CopeConfig
from evads_jax.models.cope.inputs import ClipInputs, Words
from evads_jax.train import cope_run, cope_search
from evads_jax.train.checkpoint import load_params
from evads_jax.train.cope import CopeLearner, Encoder, ProductInputs, make_optimizer

CONFIGS = Path(__file__).parents[2] / "configs" / "cope.py"
PRODUCTS = 12


def get_config(variant="smoke"):
    return runpy.run_path(str(CONFIGS))["get_config"](variant)


def tiny(config):
    """The smoke variant with a model of some ten thousand parameters."""
    model = config.model
    model.frame_size, model.frames, model.visual_patch, model.text_tokens, model.embedding = 16, 2, 8, 12, 16
    for part in ("visual", "mit", "text"):
        model[f"{part}_width"], model[f"{part}_layers"], model[f"{part}_heads"] = 16, 1, 2
    model.visual_mlp_width = model.text_mlp_width = 32
    model.fusion_layers, model.fusion_width, model.fusion_heads = 1, 16, 2
    config.tokenizer.vocabulary = 320
    with config.unlocked():
        model.vocabulary = 320  # also where the texts give fewer: what one test compiles the others find in the cache
    config.data.products_train, config.data.products_validation, config.data.products_test = PRODUCTS, 6, 6
    config.cope.batch_products = 6
    config.cope.optimizer = "adamw"  # compiles in a fraction of muon's time
    return config


class Records(list):
    """What the loader asks of a source of shards."""

    @property
    def questions(self):
        return tuple(len(record.clips) for record in self)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Products, of which the first has no live clip; inputs; model."""
    config = tiny(get_config())
    maker = DrawProducts("train", draw_catalogue(0, "train", PRODUCTS), "en", (2, 2, 2), 2, 16)
    records = Records(maker(i) for i in range(PRODUCTS))
    records[0] = ProductRecord(records[0].product, tuple(c for c in records[0].clips if c.domain != "live"))
    texts = [clip.text for record in records for clip in record.clips]
    words = Words.of(train_sentencepiece(texts, 320, tmp_path_factory.mktemp("words")))
    model = CopeConfig.from_config(config.model, words.size, PRODUCTS)
    clips = ClipInputs(words, model)
    return records, ProductInputs(clips, {r.product: i for i, r in enumerate(records)}), model, clips, config


def test_a_batch_has_one_clip_of_each_domain_drawn_anew_and_an_empty_one_where_there_is_none(world):
    records, inputs, _, _, _ = world
    batches = inputs.loader(records, 4, 0, 0)
    seen: dict[int, set] = {}
    for _ in range(12):
        batch = next(batches)
        assert batch.clips["page"].frames.shape[:2] == (4, 1)
        assert batch.clips["live"].frames.shape[:2] == (4, 2)
        for row, product in enumerate(batch.products.tolist()):
            assert (batch.clips["live"].frame_count[row] == 0) == (product == 0)
            seen.setdefault(product, set()).add(batch.clips["page"].frames[row].tobytes())
    assert sorted(seen) == list(range(PRODUCTS))
    assert max(map(len, seen.values())) == 2
    with pytest.raises(UserError, match="batches of 13 from 12"):
        inputs.loader(records, 13, 0, 0)


@pytest.fixture(scope="module")
def learner(world):
    _, _, model, _, config = world
    params = cope.init(model, jax.random.key(0))
    return CopeLearner(params, model, cope_run.loss_settings(config, model), make_optimizer(config.cope, model))


def test_a_step_is_compiled_once_and_the_loss_of_a_repeated_batch_falls(world, learner):
    records, inputs, _, _, _ = world
    batches = inputs.loader(records, 6, 0, 0)
    now, batch = learner.initial(), next(batches)
    losses = []
    for _ in range(12):
        now, metrics = learner.step(now, batch, jax.random.key(0))
        losses.append(float(metrics["loss"]))
        assert int(metrics["first_bad"]) == -1
    assert losses[-1] < losses[0]
    assert {"classification", "video_live", "page_fused_live"} <= metrics.keys()
    learner.step(now, next(batches), jax.random.key(0))
    assert learner.update._cache_size() == 1


def test_the_encoders_have_learning_rates_of_their_own(world):
    _, _, model, _, config = world
    section = config.cope.copy_and_resolve_references()
    section.visual_rate, section.text_rate = 0.5, 0.0
    params = cope.init(model, jax.random.key(0))

    def updates(section):
        made = make_optimizer(section, model).transformation
        return jax.jit(lambda p: made.update(jax.tree.map(jnp.ones_like, p), made.init(p), p)[0])(params)

    one, other = updates(config.cope), updates(section)
    for path, update in jax.tree_util.tree_leaves_with_path(one):
        names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        rate = {"visual": 0.5, "text": 0.0}[names[2]] if names[0] == "encoders" else 1.0
        leaf = functools.reduce(lambda node, name: node[name], names, other)
        np.testing.assert_allclose(leaf, rate * update, rtol=1e-6)


def test_how_many_clips_are_embedded_at_one_time_changes_no_embedding(world):
    records, _, model, clips, config = world
    params = cope.init(model, jax.random.key(1))
    videos = [clip for record in records for clip in record.of("video")][:7]
    whole, parts = (Encoder(model, clips, batch)(params, videos, "video") for batch in (config.eval.batch_clips, 3))
    np.testing.assert_allclose(whole, parts, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)


def test_no_more_than_a_batch_of_clips_is_read_before_it_is_embedded(world):
    records, _, model, clips, _ = world
    encoder, read, seen = Encoder(model, clips, 3), [], []
    encoder.encode = lambda params, batch, domain: seen.append(len(read)) or np.zeros((3, model.embedding))
    videos = [clip for record in records for clip in record.of("video")][:7]
    assert encoder({}, (read.append(clip.id) or clip for clip in videos), "video").shape == (7, model.embedding)
    assert seen == [3, 6, 7]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cope")
    cope_run.run(tiny(get_config()), folder)
    return folder


def test_the_job_leaves_figures_embeddings_and_tables_of_both_splits(finished):
    for stage in ("init", "trained"):
        for split in ("validation", "test"):
            where = store.folder(finished, stage, split)
            summary = store.read_result(where).summary
            assert summary["split"]["products"] == 6
            assert summary["weights"] == ("before training" if stage == "init" else "step 4")
            embedded = store.read_embeddings(where / "embeddings.npz")
            assert [len(embedded[d].ids) for d in DOMAINS] == [12, 6, 6]
    for split in ("validation", "test"):
        assert "COPE, untrained" in (finished / "tables" / split / "retrieval.md").read_text()
    (start,) = read_events(finished, "stage_start")
    assert start["fit"]["train"]["products"] == PRODUCTS
    assert "texts_cut" in start["fit"]["test"]
    assert len(read_events(finished, "train")) == 4


def test_a_finished_job_does_nothing_again_and_another_config_is_refused(finished):
    def state():
        return {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}

    before = state()
    cope_run.run(tiny(get_config()), finished)
    assert state() == before
    other = tiny(get_config())
    other.cope.learning_rate = 1.0
    with pytest.raises(UserError, match=r"another config: cope.learning_rate"):
        cope_run.run(other, finished)


def test_embeddings_that_are_asked_for_later_are_written_then(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "cope")
    config = tiny(get_config())
    config.eval.export, config.eval.floor, config.eval.splits = "safetensors", False, ("test",)
    cope_run.run(config, folder)
    where = store.folder(folder, "trained", "test")
    one, other = (store.read_embeddings(where / f"embeddings.{form}") for form in store.EXPORTS)
    np.testing.assert_array_equal(one["live"].vectors, other["live"].vectors)


@pytest.mark.slow
def test_a_job_that_stopped_after_a_checkpoint_ends_like_one_that_did_not(finished, tmp_path, monkeypatch):
    whole = CopeLearner.step
    steps = []

    def stops(self, before, batch, key):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return whole(self, before, batch, key)

    monkeypatch.setattr(CopeLearner, "step", stops)
    with pytest.raises(KeyboardInterrupt):
        cope_run.run(tiny(get_config()), tmp_path)
    monkeypatch.undo()
    cope_run.run(tiny(get_config()), tmp_path)
    like = cope.abstract(CopeConfig.from_config(tiny(get_config()).model, vocabulary(tmp_path), PRODUCTS))
    one, other = (load_params(folder, cope_run.STAGE, like) for folder in (finished, tmp_path))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def vocabulary(folder):
    return cope_run.make_words(get_config(), folder, None).size


SEARCHES = [
    {"clip": "test-00001/live0"},
    {"text": "Lumo red kettle", "domain": "live", "gallery": "video"},
    {"picture": "picture.png"},
]


@pytest.mark.parametrize("query", SEARCHES, ids=lambda query: next(iter(query)))
def test_a_search_gives_a_page_of_products(finished, tmp_path, query, capsys):
    config = get_config("search")
    config.run, config.count = str(finished), 3
    config.update(query)
    if config.picture:
        from PIL import Image

        config.picture = str(tmp_path / "picture.png")
        Image.new("RGB", (40, 30), (200, 30, 30)).save(config.picture)
    cope_search.run(config, tmp_path)
    page = (tmp_path / "search.html").read_text()
    assert len(re.findall("<article", page)) == 4
    assert "3  " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, "nothing to look for"),
        ({"clip": "nonsense"}, "no clip 'nonsense'"),
        ({"clip": "test-00001/live0", "text": "red"}, "not both"),
        ({"text": "red", "gallery": "shop"}, "unknown domain"),
        ({"text": "red", "split": "later"}, "unknown split"),
        ({"picture": "/nothing/here.png"}, "cannot be read"),
        ({"run": None, "text": "red"}, "no run"),
    ],
)
def test_a_search_for_nothing_is_one_line(finished, tmp_path, change, told):
    config = get_config("search")
    config.run = str(finished)
    config.update(change)
    with pytest.raises(UserError, match=told):
        cope_search.run(config, tmp_path)


def test_a_search_whose_products_are_elsewhere_draws_none(finished, tmp_path):
    (tmp_path / "run").mkdir()
    made = json.loads((finished / "config.json").read_text())
    made["data"]["shards"] = str(tmp_path / "elsewhere")
    (tmp_path / "run" / "config.json").write_text(json.dumps(made))
    config = get_config("search")
    config.run, config.text = str(tmp_path / "run"), "red"
    with pytest.raises(UserError, match="no train products of this run"):
        cope_search.run(config, tmp_path)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("section", "change", "told"),
    [
        ("data", {"empty_text": "drop"}, "unknown choice"),
        ("tokenizer", {"kind": "bert"}, "not trained here"),
        ("tokenizer", {"kind": "letters"}, "unknown tokenizer kind"),
        ("start", {"visual": "/nothing/here"}, r"there is no /nothing/here .config\.start\.visual"),
        ("eval", {"export": "csv"}, "unknown form"),
        ("eval", {"splits": ("train",)}, "unknown split"),
        ("loss", {"temperature": 0.0}, "temperature"),
        ("model", {"visual_heads": 3}, "visual_heads"),
    ],
)
def test_a_config_that_cannot_work_is_refused_before_anything_is_made(tmp_path, section, change, told):
    config = tiny(get_config())
    config[section].update(change)
    with pytest.raises(UserError, match=told):
        cope_run.run(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_text_of_zero_tokens_is_counted_or_refused(world, tmp_path):
    config = tiny(get_config())
    config.data.lives = 3  # among so many live clips some say nothing
    config.data.empty_text = "refuse"
    with pytest.raises(UserError, match=r"texts of zero tokens in (\w+) \[\1-"):
        cope_run.run(config, tmp_path)
    assert not (tmp_path / "evaluation").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [({"batch_products": 99}, "batches of 99 from 12"), ({"optimizer": "newton"}, "unknown optimizer")],
)
def test_what_cannot_be_trained_is_told_before_anything_is_evaluated(finished, tmp_path, monkeypatch, change, told):
    monkeypatch.setattr(cope, "init", lambda model, key: {})
    config = tiny(get_config())
    config.data.shards = str(finished / "products")
    config.cope.update(change)
    with pytest.raises(UserError, match=told):
        cope_run.run(config, tmp_path)


@pytest.fixture
def surveyed(world, tmp_path):
    """The survey of given validation products by a model that reads word pieces."""
    config = tiny(get_config())
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "kettle"]))
    model = CopeConfig.from_config(config.model, 6)
    inputs = ClipInputs(Words.bert(tmp_path), model)

    def survey(records, empty_text="keep"):
        config.data.empty_text = empty_text
        source = Records(records)
        source.manifest, source.folder = SimpleNamespace(broken=()), tmp_path
        sources, lines = {"validation": source}, []
        run = cope_run.CopeRun(config, tmp_path, None, sources, model, inputs, {}, None, None, lines.append)
        return run.survey()["validation"]

    return survey


def test_a_text_of_characters_that_the_vocabulary_leaves_out_has_zero_tokens(world, surveyed):
    records = [world[0][1], world[0][2]]
    assert "without_text" not in surveyed([said(record, "kettle") for record in records])
    silent = said(records[0], "\u200b\u200b")  # no white space, and no token
    assert surveyed([silent, said(records[1], "kettle")])["without_text"] == 6
    with pytest.raises(UserError, match=f"6 texts of zero tokens in validation .{silent.clips[0].id}"):
        surveyed([silent, said(records[1], "kettle")], "refuse")


def said(record, text):
    """The product with this text everywhere."""
    return dataclasses.replace(record, clips=tuple(dataclasses.replace(clip, text=text) for clip in record.clips))


def test_a_split_without_a_pair_of_some_domains_is_refused_before_it_is_evaluated(world, surveyed):
    assert surveyed(world[0][:2])["video_and_live"] == 1
    with pytest.raises(UserError, match="no product of validation has clips in page and live"):
        surveyed(world[0][:1])
