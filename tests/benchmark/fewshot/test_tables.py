"""The tables of few-shot runs, from folders written by hand."""

import json
import math

import numpy as np
import pytest

from evads_jax.benchmark.fewshot import interval
from evads_jax.benchmark.fewshot.published import DATASETS, PUBLISHED
from evads_jax.benchmark.fewshot.tables import flor
from evads_jax.errors import UserError

EPISODES = 400


def by_row(table, width=1):
    return {row[:width] if width > 1 else row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


def write_run(
    folder, norm="flor", seed=0, network="resnet10", level=0.5, sets=("photos/novel", "lines/novel"), **changes
):
    """A run whose accuracies lie around `level`; episodes of one seed differ alike in all runs."""
    config = {
        "job": "flor",
        "run": {"seed": seed},
        "data": {"targets": list(sets), "images": str(folder), "seed": 0},
        "model": {"network": network, "norm": norm, "beta": [0.01, 0.01]},
        "train": {"max_steps": changes.get("steps", 4)},
        "augmentation": {},
        "eval": {},
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    common = np.random.default_rng(0).normal(0, 0.1, EPISODES)
    own = np.random.default_rng([seed, len(norm)]).normal(0, 0.02, EPISODES)
    for number, name in enumerate(sets):
        place = folder / "evaluation" / name.replace("/", "_")
        place.mkdir(parents=True)
        accuracies = {
            f"prototypes_{shots}": np.clip(level - 0.1 * number + 0.02 * shots + common + own, 0, 1).astype(np.float32)
            for shots in (1, 5)
        }
        np.savez(place / "accuracies.npz", **accuracies)
        protocol = {
            "method": "prototypes",
            "ways": 5,
            "queries": 15,
            "episodes": EPISODES,
            **changes.get("protocol", {}),
        }
        figures = {
            key: {"mean": float(a.mean()), "n": EPISODES, "protocol": protocol, "left_out": changes.get("left_out", {})}
            for key, a in accuracies.items()
        }
        summary = {"set": {"name": name, "digest": changes.get("digest", "d")}, "figures": figures}
        (place / "summary.json").write_text(json.dumps(summary))
    return folder


def test_a_row_is_the_average_of_its_seeds_in_percent(tmp_path):
    runs = [write_run(tmp_path / f"s{s}", seed=s, level=0.5 + 0.1 * s) for s in (1, 2)]
    accuracies, _ = flor(runs)
    row = by_row(accuracies, 4)["ResNet10", "FLoR", "prototypes", "5"]
    arrays = [np.load(run / "evaluation" / "lines_novel" / "accuracies.npz")["prototypes_5"] for run in runs]
    cell = row["lines/novel"]
    assert cell.value == pytest.approx(100 * np.mean(arrays), rel=1e-6)
    plain, means = interval(np.mean(arrays, axis=0)), [array.mean() for array in arrays]
    over_seeds = 12.706 * np.std(means, ddof=1) / math.sqrt(2)  # Student's quantile for two
    expected = math.hypot(100 * (plain.mean - plain.low), 100 * over_seeds)
    assert cell.value - cell.low == pytest.approx(expected, rel=0.01)
    assert accuracies.columns == ("network", "norm", "method", "shots", "photos/novel", "lines/novel")
    assert "2 seeds: 1, 2" in accuracies.title


def test_differences_are_paired_by_seed_and_episode(tmp_path):
    levels = {"flor": 0.55, "batch": 0.5}
    runs = [write_run(tmp_path / f"{n}{s}", norm=n, seed=s, level=x) for n, x in levels.items() for s in (1, 2, 3)]
    differences = flor(runs)[1]
    rows = by_row(differences)
    assert list(rows) == ["ResNet10: FLoR − batch (BN)", "ResNet10: FLoR − batch (BN), seeds drawn too"]
    fixed, drawn = (rows[name]["photos/novel, 1-shot"] for name in rows)
    assert fixed.value == pytest.approx(5, abs=0.5)
    assert fixed.high - fixed.low < 1.0  # the episodes' own difficulty, ten times as large, is gone
    assert drawn.value == pytest.approx(fixed.value)
    assert drawn.high - drawn.low >= fixed.high - fixed.low
    assert fixed.text().startswith("+")


def test_a_norm_without_seeds_in_common_has_no_difference(tmp_path):
    runs = [write_run(tmp_path / "a", seed=1), write_run(tmp_path / "b", norm="batch", seed=2)]
    (row,) = flor(runs)[1].rows
    assert all(cell.value is None for cell in row[1:])


def test_the_published_figures_stand_apart_marked_with_their_datasets(tmp_path):
    published = flor([write_run(tmp_path / "a")])[-1]
    assert published.columns[4:8] == tuple(DATASETS) == ("CropDiseases", "EuroSAT", "ISIC", "ChestX")
    assert len(published.rows) == len(PUBLISHED)
    assert all(row[-1] == "published" for row in published.rows)
    assert "on its datasets" in published.notes[0]
    first = by_row(published, 4)["ResNet10", "FLoR", "prototypes", "1"]
    assert [first[name] for name in DATASETS] == ["73.64", "62.90", "38.11", "23.11"]


def test_a_run_on_the_papers_sets_stands_beside_them(tmp_path):
    published = flor([write_run(tmp_path / "mine", sets=("eurosat", "photos/novel"), level=0.7)])[-1]
    row = published.rows[len(PUBLISHED)]
    assert row[-1] == "mine"
    cells = dict(zip(published.columns, row, strict=True))
    assert cells["EuroSAT"].value == pytest.approx(72, abs=1)
    assert cells["ISIC"].value is None


def test_a_row_of_fewer_seeds_than_the_title_names_is_told(tmp_path):
    runs = [write_run(tmp_path / f"flor{s}", seed=s) for s in (1, 2)]
    table = flor([*runs, write_run(tmp_path / "batch", norm="batch", seed=2)])[0]
    assert "2 seeds: 1, 2" in table.title
    assert "ResNet10, batch (BN): only seed 2." in table.notes
    assert not any("only seed" in note for note in flor(runs)[0].notes)


def test_norms_and_networks_stand_in_one_order(tmp_path):
    kinds = [("vit", "layer"), ("resnet10", "flor"), ("resnet10", "batch"), ("vit", "flor")]
    runs = [write_run(tmp_path / f"{n}{k}", network=n, norm=k) for n, k in kinds]
    shown = list(dict.fromkeys(row[:2] for row in flor(runs)[0].rows))
    assert shown == [("ResNet10", "batch (BN)"), ("ResNet10", "FLoR"), ("ViT", "layer (LN)"), ("ViT", "FLoR")]


def test_classes_left_out_are_named_in_the_notes(tmp_path):
    notes = flor([write_run(tmp_path / "a", left_out={"moth": 12})])[0].notes
    assert any("left out for too few images: moth (12)" in note for note in notes)


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ({}, {}, "have the same seed"),
        ({}, {"seed": 1, "steps": 9}, "differ in more than their seed"),
        ({}, {"seed": 1, "protocol": {"queries": 10}}, "asked differently"),
        ({}, {"norm": "batch", "digest": "others"}, "asked differently, or of other images"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(tmp_path, one, other, told):
    with pytest.raises(UserError, match=told):
        flor([write_run(tmp_path / "a", **one), write_run(tmp_path / "b", **other)])


def test_a_folder_without_such_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no evaluated few-shot run"):
        flor([tmp_path])
