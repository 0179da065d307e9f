"""COPE's study: its models on the same products, the loss weights swept, and what is refused before the first run."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from evads_jax import workdir as run_folder
from evads_jax.benchmark.retrieval import store
from evads_jax.benchmark.retrieval.score import Clips, score, summarise
from evads_jax.data.products.records import DOMAINS
from evads_jax.errors import UserError
from evads_jax.train import cope_run, cope_study

get_config = runpy.run_path(str(Path(__file__).parents[2] / "configs" / "cope.py"))["get_config"]


def pretend(config, workdir):
    """What `cope_run.run` leaves for tables, with embeddings that are drawn."""
    run_folder.claim(workdir, config)
    rng = np.random.default_rng(config.run.seed)
    for split in config.eval.splits:
        embedded = {}
        for domain in DOMAINS:
            vectors = np.eye(8)[np.arange(16) // 2] + rng.normal(size=(16, 8)) * 0.3
            ids, products = zip(*((f"{p}/{domain}{c}", f"{p}") for p in range(8) for c in range(2)), strict=True)
            embedded[domain] = Clips(ids, products, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        scores = score(embedded, draws=2, seed=0)
        for stage in ("init", "trained") if config.eval.floor else ("trained",):
            protocol = {"draws": 2, "replicates": 50, "seed": config.run.seed}
            summary = {"seed": config.run.seed, "protocol": protocol, **summarise(scores, 50)}
            store.save_result(store.folder(workdir, stage, split), summary, scores)


def test_a_study_runs_its_models_on_the_same_products_and_sweeps_the_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(cope_run, "run", pretend)
    config = get_config("smoke+study")
    config.seeds = (1, 2)
    cope_study.run(config, tmp_path)
    cope_study.run(config, tmp_path)
    text = (tmp_path / "tables" / "retrieval.md").read_text()
    for name in ("COPE", "text only", "COPE, encoders per domain", "COPE − visual only", "visual only, untrained"):
        assert name in text
    configs = [json.loads(path.read_text()) for path in tmp_path.glob("seed1/*/config.json")]
    assert len(configs) == 4
    assert {made["data"]["shards"] for made in configs} == {str(tmp_path / "seed1" / "products")}
    assert {made["run"]["seed"] for made in configs} == {1}
    assert (tmp_path / "tables" / "validation" / "retrieval.md").exists()
    weights = (tmp_path / "tables" / "weights.md").read_text()
    for name in ("cope", r"no\_classification", r"fused\_pairs\_only", r"page\_text\_live 0,", "all 1"):
        assert name in weights


def test_a_process_may_make_some_of_the_runs_and_the_last_one_the_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(cope_run, "run", pretend)
    config = get_config("smoke+study")
    config.seeds, config.only = (1,), ("seed1/text", "sweep/no_classification")
    cope_study.run(config, tmp_path)
    made = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.glob("*/*/config.json")}
    assert made == set(config.only)
    assert not (tmp_path / "tables").exists()
    config.only = ()
    cope_study.run(config, tmp_path)
    assert (tmp_path / "tables" / "retrieval.md").exists()


@pytest.mark.parametrize("base", ["text", "per_domain"])
def test_the_models_of_a_study_are_what_they_are_called_whatever_it_is_made_from(base):
    config = get_config(f"{base}+study")
    made = {name: cope_study._model(config, Path("w"), 1, name) for name in config.models}
    kinds = {name: (one.model.modality, one.model.shared) for name, one in made.items()}
    assert kinds == {
        "cope": ("both", True), "visual": ("visual", True), "text": ("text", True), "per_domain": ("both", False),
    }  # fmt: skip
    assert made["text"].loss.classification == pytest.approx(3 / 7 * made["cope"].loss.classification)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("only", ("seed9/cope",), "the study has no run"),
        ("models", ("nonsense",), "unknown model"),
        ("experiment.eval.splits", ("test",), "the tables show validation products"),
        ("experiment.loss.temperature", -1.0, "temperature must be above 0"),
        ("sweep", {"cold": {"warmth": 0.0}}, r"no such loss: .*warmth.*config\.sweep\.cold"),
    ],
)
def test_a_study_that_cannot_end_is_refused_before_its_first_run(tmp_path, field, value, told):
    config = get_config("smoke+study")
    if field == "sweep":
        config.sweep.update(value)
    else:
        config.update_from_flattened_dict({field: value})
    config.lock()  # as the command line leaves it
    with pytest.raises(UserError, match=told):
        cope_study.run(config, tmp_path)
    assert not list(tmp_path.iterdir())
