"""From embedded clips to figures, files and tables."""

import dataclasses
import json

import numpy as np
import pytest

from evads_jax.benchmark.retrieval import store, tables
from evads_jax.benchmark.retrieval.metrics import retrieve
from evads_jax.benchmark.retrieval.score import ALL, DIRECTIONS, MEANS, score, summarise
from evads_jax.errors import UserError

from .small import embed, write_run


def test_each_direction_ranks_one_domain_for_another_and_the_mean_is_theirs():
    embedded = embed(0.6)
    summary = summarise(score(embedded, draws=5, seed=0), 300)["directions"]
    assert len(DIRECTIONS) == len(set(DIRECTIONS)) == 6
    for (query, gallery), name in zip(DIRECTIONS, ALL, strict=True):
        asked, offered = embedded[query], embedded[gallery]
        found = retrieve(asked.vectors, offered.vectors, asked.products, offered.products)
        entry = summary[name]
        assert entry["R@5"]["mean"] == pytest.approx(found.recall[:, 1].mean())
        assert entry["mAP"]["mean"] == pytest.approx(found.ap.mean())
        assert entry["median_rank"] == np.median(found.rank)
        assert entry["R@1"]["ci95"][0] < entry["R@1"]["mean"] < entry["R@1"]["ci95"][1]
        assert (entry["R@1"]["n"], entry["R@1"]["clusters"]) == (24, 12)
    for metric in MEANS:
        assert summary["mean"][metric]["mean"] == pytest.approx(np.mean([summary[d][metric]["mean"] for d in ALL]))


def test_intervals_are_drawn_over_products_not_over_clips():
    """Copies of the same clips add nothing that is known."""
    few, many = (embed(0.0, clips=n) for n in (1, 8))
    rng = np.random.default_rng(0)
    swapped = rng.permutation(12)[:5]  # five products whose pages are another's
    for embedded in (few, many):
        vectors = embedded["page"].vectors.copy()
        per = len(vectors) // 12
        for i, p in enumerate(swapped):
            vectors[p * per : (p + 1) * per] = embedded["video"].vectors[((i + 1) % 12) * per][None]
        embedded["page"] = dataclasses.replace(embedded["page"], vectors=vectors)
    widths = []
    for embedded in (few, many):
        entry = summarise(score(embedded, draws=1, seed=0), 2000)["directions"]["page_to_video"]["R@1"]
        widths.append(entry["ci95"][1] - entry["ci95"][0])
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_queries_without_a_right_clip_are_counted():
    summary = summarise(score(embed(0.1, missing={("live", 3), ("live", 4)}), draws=2, seed=0), 50)["directions"]
    assert summary["page_to_live"]["without_positive"] == 4
    assert summary["page_to_live"]["R@1"]["n"] == 20
    assert summary["page_to_video"]["without_positive"] == 0
    assert summary["mean"]["without_positive"] == 8


def test_what_cannot_be_scored_is_refused():
    embedded = embed(0.1)
    vectors = embedded["live"].vectors.copy()
    vectors[4, 2] = np.nan
    with pytest.raises(UserError, match="02/live0"):
        score({**embedded, "live": dataclasses.replace(embedded["live"], vectors=vectors)}, draws=1, seed=0)
    twice = dataclasses.replace(embedded["page"], ids=("00/page0",) * 24)
    with pytest.raises(UserError, match="same name"):
        score({**embedded, "page": twice}, draws=1, seed=0)
    none = dataclasses.replace(embedded["page"], ids=(), products=(), vectors=np.zeros((0, 8), np.float32))
    with pytest.raises(UserError, match="no page clips"):
        score({**embedded, "page": none}, draws=1, seed=0)


@pytest.mark.parametrize("form", store.EXPORTS)
def test_exported_embeddings_come_back(tmp_path, form):
    embedded = embed(0.3)
    odd = tuple(f"«{i}»\n" for i in range(24))
    embedded["video"] = dataclasses.replace(embedded["video"], ids=odd)
    back = store.read_embeddings(store.export_embeddings(tmp_path, embedded, form))
    for domain, clips in embedded.items():
        assert back[domain].ids == clips.ids
        assert back[domain].products == clips.products
        np.testing.assert_array_equal(back[domain].vectors, clips.vectors)


def test_a_form_that_is_not_known_or_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="npz, safetensors"):
        store.export_embeddings(tmp_path, embed(0.1), "csv")
    with pytest.raises(UserError, match="no exported embeddings"):
        store.read_embeddings(tmp_path / "embeddings.npz")
    for broken in ("embeddings.npz", "embeddings.safetensors"):
        (tmp_path / broken).write_bytes(b"PK\x03\x04 cut")
        with pytest.raises(UserError, match="no exported embeddings"):
            store.read_embeddings(tmp_path / broken)
    with pytest.raises(UserError, match="no evaluation"):
        store.read_result(tmp_path)


def test_scores_come_back_from_their_files(tmp_path):
    scores = write_run(tmp_path, embed(0.4), 0)
    result = store.read_result(store.folder(tmp_path, "trained", "test"))
    assert result.scores.products == scores.products
    assert (result.scores.split, result.scores.names) == (scores.split, scores.names)
    for direction, metrics in scores.values.items():
        for metric, values in metrics.items():
            np.testing.assert_array_equal(result.scores.values[direction][metric], values)
    assert json.loads((result.folder / "summary.json").read_text())["split"]["products"] == 12


@pytest.fixture
def study(tmp_path):
    folders = []
    for seed in (1, 2):
        for name, noise, model in (
            ("cope", 0.2, {}),
            ("visual", 0.8, {"modality": "visual"}),
            ("own", 0.5, {"shared": False}),
        ):
            folders.append(tmp_path / f"seed{seed}" / name)
            write_run(folders[-1], embed(noise, seed), seed, **model)
            write_run(folders[-1], embed(5.0, seed), seed, stage="init", **model)
    return folders


def test_tables_average_the_seeds_and_pair_the_differences(study):
    first, means, differences = tables.models(study)
    names = [row[0] for row in first.rows]
    assert names[:3] == ["COPE", "visual only", "COPE, encoders per domain"]
    assert set(names[3:]) == {f"{name}, untrained" for name in names[:3]}
    assert first.columns[2:8] == ("P→V", "V→P", "P→L", "L→P", "V→L", "L→V")
    each = [
        [store.read_result(f / "evaluation" / "trained_test") for f in study if f.name == n] for n in ("cope", "own")
    ]
    values = [np.mean([r.summary["directions"]["mean"]["R@1"]["mean"] for r in group]) for group in each]
    assert first.rows[0][1].value == pytest.approx(values[0])
    assert first.rows[0][1].n == 2 * 6 * 24
    row = {row[0]: row for row in differences.rows}["COPE − COPE, encoders per domain"]
    assert row[1].value == pytest.approx(values[0] - values[1])
    assert row[1].low < row[1].value < row[1].high
    assert "encoders per domain, untrained" in differences.markdown()
    assert means.rows[0][-1].value >= 1
    for table in (first, means, differences):
        assert table.markdown()
        assert table.csv()
        assert table.tex()


def test_runs_on_other_products_or_twice_the_same_are_refused(study, tmp_path):
    with pytest.raises(UserError, match="leave one out"):
        tables.models([*study, study[0]])
    write_run(tmp_path / "other", embed(0.2, 1, products=11), 1, modality="text")
    with pytest.raises(UserError, match="different products"):
        tables.models([*study, tmp_path / "other"])
    with pytest.raises(UserError, match="no run here"):
        tables.models([tmp_path / "nothing"])


def test_products_of_the_same_names_from_other_shards_are_other_products(tmp_path):
    same = embed(0.2)
    assert len({score(same, draws=1, seed=0, shards=shards).split for shards in ("", "a", "b")}) == 3
    write_run(tmp_path / "cope", same, 1, shards="a")
    write_run(tmp_path / "text", same, 1, shards="b", modality="text")
    with pytest.raises(UserError, match="different products"):
        tables.models([tmp_path / "cope", tmp_path / "text"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": 9}, "two runs of COPE differ in more than their seed"),
        ({"replicates": 50}, "evaluated differently"),
    ],
)
def test_runs_that_cannot_be_averaged_are_refused(tmp_path, change, told):
    write_run(tmp_path / "one", embed(0.2, 1), 1)
    write_run(tmp_path / "other", embed(0.2, 2), 2, **change)
    with pytest.raises(UserError, match=told):
        tables.models([tmp_path / "one", tmp_path / "other"])


def test_a_sweep_names_the_weights_that_differ_from_one(tmp_path):
    write_run(tmp_path / "zero", embed(0.2), 0, split="validation")
    table = tables.weights([tmp_path / "zero"])
    assert table.rows[0][:4] == ("zero", "page_text_live 0", "0.1", "0.05")
