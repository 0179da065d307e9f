"""Jobs that read what lies in a bucket: another run and its parts, weights, a tokenizer, a judge, products."""

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from evads_jax import storage
from evads_jax.benchmark import tables
from evads_jax.benchmark.files import read_lines
from evads_jax.data.products.prepare import prepare
from evads_jax.errors import UserError
from evads_jax.models.qwen_vl import checkpoint
from evads_jax.train import (
    completions,
    cope_run,
    cope_search,
    cope_study,
    experiment,
    export,
    inspection,
    results,
    study,
)
from evads_jax.train.ask_source import find
from tests.train import tiny_run
from tests.train.test_cope import get_config as cope_config
from tests.train.test_cope import tiny as tiny_cope
from tests.train.test_evaluation import evaluate
from tests.train.test_experiment import small
from tests.train.test_inspection import make_run

CONFIGS = Path(__file__).parents[2] / "configs"
RUN = "gs://shelf/runs/tiny"


@pytest.fixture(scope="module")
def held(server, tmp_path_factory):
    """The bucket with one run, made by a machine that is gone."""
    server.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVADS_LOCAL", str(tmp_path_factory.mktemp("gone")))
        with storage.run_folder(RUN) as workdir:
            tiny_run.make(workdir)
    return server


@pytest.fixture
def run(held, tmp_path, monkeypatch):
    """That bucket, and a machine that has seen nothing of it."""
    monkeypatch.setenv("EVADS_LOCAL", str(tmp_path / "machine"))
    held.reads.clear()
    puts = list(held.puts)
    yield held
    assert held.puts == puts  # who reads a run changes nothing of it


def read(run):
    """The folders of the run that something was read of."""
    return {name.removeprefix("runs/tiny/").split("/")[0] for name in run.reads}


def test_a_run_in_a_bucket_is_evaluated_as_the_same_run_on_the_disk(run, tmp_path):
    changes = {"judge.kind": "local", "judge.path": f"{RUN}/judge", "data.limit": 1}
    there = evaluate(RUN, tmp_path / "there", **changes)
    assert read(run) == {".owner", "config.json", "tokenizer", "shards", "checkpoints", "judge"}
    here = tiny_run.make(tmp_path / "tiny")
    ours = evaluate(here, tmp_path / "here", **changes, **{"data.shards": f"{RUN}/shards"})
    predictions = "evaluation/mg_grpo/predictions.jsonl"
    assert read_lines(tmp_path / "there" / predictions) == read_lines(tmp_path / "here" / predictions)
    assert there["weights"] == ours["weights"]
    assert there["weights"].startswith("mg_grpo, step 3, tiny@")
    assert there["judge"]["path"] == f"{RUN}/judge"


def test_a_run_in_a_bucket_is_exported_with_its_card(run, tmp_path):
    config = runpy.run_path(str(CONFIGS / "export.py"))["get_config"]()
    config.run, config.out = RUN, str(tmp_path / "out")
    export.run(config, None)
    sizes = checkpoint.read_config(tmp_path / "out")
    jax.tree.map(
        np.testing.assert_array_equal,
        checkpoint.load_parameters(tmp_path / "out", sizes),
        results.find_policy(RUN).parameters(),
    )
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# tiny: mg_grpo" in card
    assert "| test | 2 | 10 | given, en |" in card  # from the shards' manifest
    assert not [name for name in run.reads if name.endswith(".array_record")]
    config.out = "gs://shelf/exports"
    with pytest.raises(UserError, match=r"written to this machine .gs://shelf/exports"):
        export.run(config, None)


def test_a_model_in_a_bucket_can_be_asked_be_it_a_run_or_a_checkpoint(run):
    ours, theirs = find(RUN), find(f"{RUN}/exported", dtype="float32")
    assert (ours.name, theirs.name) == (f"{RUN}, mg_grpo, step 3", f"{RUN}/exported")
    assert ours.tokenizer.encode("a red kettle") == theirs.tokenizer.encode("a red kettle")
    jax.tree.map(np.testing.assert_array_equal, ours.parameters(), theirs.parameters())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"policy.run": "gs://nowhere/run"}, r"no such bucket .gs://nowhere/run"),
        ({"policy.run": "gs://shelf/runs/none"}, r"there is no config.json .*gs://shelf/runs/none"),
        ({"policy.stage": "sft"}, rf"no finished stage sft .{RUN}.: it has mg_grpo"),
        ({"judge.kind": "local", "judge.path": "gs://shelf/none"}, r"there is nothing .*gs://shelf/none"),
        ({"data.shards": "gs://shelf/none"}, "no finished shards"),
        ({"data.shards": "gs://nowhere/shards"}, "no such bucket"),
    ],
)
def test_what_is_not_in_the_bucket_is_told_before_any_work(run, tmp_path, changes, told):
    with pytest.raises(UserError, match=told):
        evaluate(RUN, tmp_path / "W", **changes)
    assert not (tmp_path / "W").exists()


def test_evaluations_in_a_bucket_are_inspected_and_tabulated(bucket, other_machine, capsys):
    for name, share in (("seed1", 0.5), ("seed2", 1.0)):
        with storage.run_folder(f"gs://shelf/study/{name}/mg") as workdir:
            make_run(workdir, {"sft": share})
            row = {"step": 2, "prompt_id": "q", "text": name, "sample": 0, "answer_score": 1.0}
            completions.write(completions.path_of(workdir, "mg_grpo", 2), [row])
    other_machine()
    one, other = "gs://shelf/study/seed1/mg", "gs://shelf/study/seed2/mg"
    config = runpy.run_path(str(CONFIGS / "inspect.py"))["get_config"]()
    config.run, config.against = one, other
    inspection.run(config)
    assert "30 of 30 completions fit the filter" in capsys.readouterr().out
    assert not [name for name in bucket.reads if "completions" in name]
    config.against, config.source, config.step = None, "training", 2
    inspection.run(config)
    assert "seed1" in capsys.readouterr().out
    config.step = 7
    with pytest.raises(UserError, match=rf"no completions .*{one}.: it has steps 2 to 2"):
        inspection.run(config)
    found = tables.find_runs("gs://shelf/study/seed*/mg")
    assert [storage.name_of(folder) for folder in found] == [one, other]
    (table, *_) = tables.main(found)
    assert [row[0] for row in table.rows] == ["sft", "sft"]
    assert table.rows[0][-1].startswith("mg@")
    for runs, told in (("gs://shelf/study/x*", "no such run"), ("gs://shelf/study/seed3", "there is no config.json")):
        with pytest.raises(UserError, match=told):
            tables.find_runs(runs)


def test_what_a_study_in_a_bucket_names_is_found_from_any_machine(bucket):
    mg = runpy.run_path(str(CONFIGS / "study.py"))["get_config"]()
    cope = cope_config("smoke+study")
    with storage.run_folder("gs://shelf/study") as workdir:
        assert study._ablated(mg, 1, "r5", workdir).run.sft_from == "gs://shelf/study/seed1/mg"
        products = cope_study._experiment(cope, workdir, 1).data.shards
        assert products == "gs://shelf/study/seed1/products"
        # Made by the first run of a seed, in the mirror, from where they go up with everything else.
        first = prepare(small_products(products), workdir / "seed1" / "cope", lambda line: None)
        assert first["train"].folder == workdir / "seed1" / "products" / "train"
        assert "study/seed1/products/train/manifest.json" not in bucket.puts
    assert bucket.puts.count("study/seed1/products/train/manifest.json") == 1


def small_products(where):
    config = cope_config()
    config.model.frame_size = 16
    config.data.update(products_train=3, products_validation=2, products_test=2, shards=where)
    return config


def test_products_are_put_into_a_bucket_and_used_from_there(bucket, other_machine, tmp_path):
    where = "gs://shelf/products"
    first = prepare(small_products(where), tmp_path, lambda line: None)
    assert bucket.puts[-1] == "products/test/manifest.json"
    other_machine()
    lines = []
    again = prepare(small_products(where), tmp_path, lines.append)
    assert lines == ["products: 3 train, 2 validation, 2 test"]
    assert {split: list(source) for split, source in again.items()} == {s: list(made) for s, made in first.items()}
    assert not list(tmp_path.glob("products"))
    with pytest.raises(UserError, match=r"no such bucket .gs://nowhere/products"):
        prepare(small_products("gs://nowhere/products"), tmp_path, lines.append)
    assert len(lines) == 1  # none was drawn for it


def test_a_tokenizer_of_word_pieces_that_is_not_there_is_told_before_products_are_drawn(bucket, tmp_path):
    config = tiny_cope(cope_config())
    config.tokenizer.update(kind="bert", path="gs://shelf/roberta")
    with pytest.raises(UserError, match=r"there is no gs://shelf/roberta .config.tokenizer.path"):
        cope_run.run(config, tmp_path)
    bucket.put("roberta/vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nkettle")
    cope_run.check(config)
    assert cope_run.make_words(config, tmp_path, None).encode("kettle", 9) == [2, 5, 3]


@pytest.mark.slow
def test_another_reward_starts_from_the_sft_of_a_run_in_a_bucket(bucket, other_machine):
    with storage.run_folder("gs://shelf/first") as workdir:
        experiment.run(small(**{"run.stages": ("sft",)}), workdir)
    other_machine()
    changes = {"rl.reward": "strict", "run.stages": ("mg_grpo",), "eval.blank_too": ()}
    before = len(bucket.puts)
    with storage.run_folder("gs://shelf/second") as workdir:
        experiment.run(small(**changes, **{"run.sft_from": "gs://shelf/first"}), workdir)
        assert not (workdir / "shards").exists()
        assert not (workdir / "tokenizer").exists()
    assert all(name.startswith("second/") for name in bucket.puts[before:])
    assert "second/evaluation/mg_grpo/summary.json" in bucket.objects
    # The second run names the first, and so has its tokenizer and shards wherever it is read.
    policy = results.find_policy("gs://shelf/second")
    assert policy.shards == "gs://shelf/first/shards"
    assert policy.tokenizer.size == results.find_policy("gs://shelf/first").tokenizer.size


def test_an_earlier_run_or_tokenizer_that_is_not_there_is_told_before_data_is_made(bucket, tmp_path):
    starts = {"run.stages": ("mg_grpo",), "run.sft_from": "gs://shelf/none"}
    for number, (changes, told) in enumerate((
        (starts, r"no finished sft stage .gs://shelf/none"),
        ({**starts, "run.sft_from": "gs://nowhere/run"}, r"no finished sft stage .gs://nowhere/run"),
        ({"tokenizer.path": "gs://shelf/none"}, r"there is no tokenizer.model .*gs://shelf/none"),
        ({"data.shards": "gs://nowhere/shards"}, r"no such bucket .gs://nowhere/shards"),
        ({"model.path": "gs://shelf/none"}, r"there is nothing .*gs://shelf/none"),
    )):  # fmt: skip
        with pytest.raises(UserError, match=told):
            experiment.run(small(**changes), tmp_path / str(number))
        assert not (tmp_path / str(number) / "shards").exists()


@pytest.mark.slow
def test_a_cope_run_in_a_bucket_is_searched_from_another_machine(bucket, other_machine, tmp_path):
    with storage.run_folder("gs://shelf/cope") as workdir:
        cope_run.run(tiny_cope(cope_config()), workdir)
    other_machine()
    config = cope_config("search")
    config.run, config.count, config.text = "gs://shelf/cope", 3, "red kettle"
    puts = len(bucket.puts)
    cope_search.run(config, tmp_path)
    assert "<article" in (tmp_path / "search.html").read_text()
    assert len(bucket.puts) == puts
