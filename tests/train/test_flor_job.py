"""The whole job on rendered images and a ViT of a few thousand parameters, then the loss around what it trained."""

import copy
import json
import runpy
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from evads_jax.benchmark import tables
from evads_jax.data.fewshot.prepare import plan
from evads_jax.errors import UserError
from evads_jax.events import read_events
from evads_jax.models import flor
from evads_jax.train import flor_job, flor_landscape, flor_study

CONFIG = runpy.run_path(str(Path(__file__).parents[2] / "configs" / "flor.py"))["get_config"]
TINY = {
    "model.image_size": 16, "model.width": 16, "model.layers": 1, "model.heads": 2, "model.mlp_width": 16,
    "model.patch": 8, "train.batch": 8, "train.validation_batch": 64, "train.validation_shots": 1,
    "train.validation_queries": 3, "data.rendered_per_class": 8, "data.targets": ("lines/novel", "textures/novel"),
    "eval.shots": (1, 2), "eval.queries": 3, "eval.episodes": 12,
}  # fmt: skip
LANDSCAPE = {
    "weights": (0.0, 0.5, 1.0), "lengths": (0.0, 1.0), "draws": 1, "images_per_class": 6, "shots": 2, "queries": 3,
    "episodes": 4, "batch": 64,
}  # fmt: skip


def small(variant="vit+smoke", **changes):
    config = CONFIG(variant)
    config.update_from_flattened_dict(TINY | changes)
    return config


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return str(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, images):
    workdir = tmp_path_factory.mktemp("flor") / "w"
    flor_job.run(small(**{"data.images": images, "eval.finetuned_episodes": 1, "eval.finetuning.steps": 1}), workdir)
    return workdir


def again(finished, images, **changes):
    flor_job.run(
        small(**{"data.images": images, "eval.finetuned_episodes": 1, "eval.finetuning.steps": 1} | changes), finished
    )


def test_every_target_is_evaluated_with_the_chosen_step_and_shown(finished):
    (ended,) = read_events(finished, "stage_end")
    for name in ("lines_novel", "textures_novel"):
        summary = json.loads((finished / "evaluation" / name / "summary.json").read_text())
        assert summary["about"] == {"stage": "base", "step": ended["best_step"], "seed": 0}
        assert len(summary["figures"]) == 6
        assert summary["figures"]["prototypes_1"]["n"] == 12
    assert [event["set"] for event in read_events(finished, "evaluation")] == ["lines/novel", "textures/novel"]
    assert {path.suffix for path in (finished / "tables").glob("flor*")} == {".md", ".csv", ".tex", ".html"}
    table = (finished / "tables" / "flor.md").read_text()
    assert "FLoR" in table
    assert "published" in table


def test_the_step_is_chosen_by_episodes_of_the_validation_classes(finished):
    events = read_events(finished, "validation")
    assert [event["step"] for event in events] == [0, 2, 4]
    best = max(events, key=lambda event: event["accuracy"])
    assert read_events(finished, "stage_end")[0]["best_step"] == best["step"]
    assert all(event["loss"] == pytest.approx(1 - event["accuracy"]) for event in events)


def test_a_second_call_trains_and_asks_nothing_again(finished, images):
    kept = [finished / "events.jsonl", *(finished / "evaluation").glob("*/*")]
    before = [path.read_bytes() for path in kept]
    again(finished, images)
    assert [path.read_bytes() for path in kept] == before


def test_the_parameters_of_a_finished_run_can_be_read_again(finished):
    model, params = flor_job.trained(small(), finished, 24)
    assert model.classes == 24
    assert jax.tree.structure(params) == jax.tree.structure(flor.abstract(model))


def test_a_work_directory_of_another_norm_is_refused(finished, images):
    with pytest.raises(UserError, match=r"model\.norm was 'flor', is 'layer'"):
        again(finished, images, **{"model.norm": "layer"})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model.norm": "group"}, "no norm 'group'"),
        ({"model.weights": "/nowhere", "model.network": "resnet10"}, "weights are for the network vit"),
        ({"model.weights": "/nowhere"}, r"no readable config\.json"),
        ({"train.optimizer": "sgd"}, "unknown optimizer"),
        ({"data.targets": ("photos/validation",)}, "cannot choose the step and be a target"),
        ({"data.targets": ("photos/train",)}, "photos/train cannot be trained on and asked about"),
        ({"data.validation": "photos/train"}, "photos/train cannot be trained on and asked about"),
        ({"data.targets": ("paintings",)}, "unknown image set 'paintings'"),
        ({"eval.rounds": (1, 2, 3)}, "numbers of rounds"),
        ({"augmentation.area": (0.0, 1.0)}, "augmentation.area"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(tmp_path, changes, told):
    with pytest.raises(UserError, match=told):
        flor_job.run(small(**changes), tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_classes_too_small_for_the_episodes_are_told_before_the_training(tmp_path, images):
    with pytest.raises(UserError, match=r"lines/novel: classes with fewer than 1 \+ 15 images"):
        flor_job.run(small(**{"data.images": images, "eval.queries": 15}), tmp_path / "w")
    with pytest.raises(UserError, match=r"photos/validation: classes with fewer than 1 \+ 15 .*train.validation_"):
        flor_job.run(small(**{"data.images": images, "train.validation_queries": 15}), tmp_path / "v")
    assert not list(tmp_path.glob("*/checkpoints"))


def test_folders_whose_paths_differ_only_in_their_slashes_have_results_of_their_own(tmp_path):
    names = ("folder:/x/a/b", "folder:/x/a_b", "folder:/y/b", "photos/novel")
    assert len({flor_job.evaluation_folder(tmp_path, name) for name in names}) == len(names)
    assert flor_job.evaluation_folder(tmp_path, "photos/novel") == tmp_path / "evaluation" / "photos_novel"


@pytest.fixture(scope="module")
def studied(tmp_path_factory, images):
    """Two norms, two seeds, one of them fine-tuned."""
    config = CONFIG("vit+smoke+study")
    config.experiment.update_from_flattened_dict(TINY | {"data.images": images, "data.targets": ("lines/novel",)})
    config.landscape.update(LANDSCAPE)
    del config.norms.resnet10
    config.update({"seeds": (1, 2), "finetuned": (), "finetuned_episodes": 0})
    config.norms.vit = ("layer", "flor")
    workdir = tmp_path_factory.mktemp("study")
    flor_study.run(config, workdir)
    return config, workdir


def test_a_process_may_make_one_run_of_a_study(studied, tmp_path, monkeypatch):
    config, _ = studied
    made = []
    monkeypatch.setattr(flor_job, "run", lambda config, workdir: made.append(workdir))
    one = copy.deepcopy(config)
    one.only = ("vit_flor/2",)
    flor_study.run(one, tmp_path / "w")
    assert made == [tmp_path / "w" / "runs" / "vit_flor" / "2"]
    assert not (tmp_path / "w" / "tables").exists()
    one.only = ("vit_batch/2",)
    with pytest.raises(UserError, match=r"no run 'vit_batch/2'.*config\.only"):
        flor_study.run(one, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_norms_that_were_trained_differently_are_not_compared(studied, tmp_path):
    _, workdir = studied
    folders = []
    for name in ("vit_layer/1", "vit_flor/1"):
        folders.append(tmp_path / name)
        shutil.copytree(workdir / "runs" / name, folders[-1])
    path = folders[1] / "config.json"
    config = json.loads(path.read_text())
    config["train"]["max_steps"] += 1
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match="norms of vit were trained differently"):
        tables.flor(folders)


def test_a_study_can_be_rehearsed():
    config = CONFIG("smoke+study")
    assert config.finetuned_episodes <= config.experiment.eval.episodes


def test_a_study_trains_every_norm_with_every_seed_and_tabulates_them(studied):
    _, workdir = studied
    runs = {str(path.relative_to(workdir / "runs")) for path in (workdir / "runs").glob("*/*")}
    assert runs == {"vit_layer/1", "vit_layer/2", "vit_flor/1", "vit_flor/2"}
    (difference, drawn) = tables.flor(sorted((workdir / "runs").glob("*/*")))[1].rows
    assert difference[0] == "ViT: FLoR − layer (LN)"
    assert drawn[0].endswith("seeds drawn too")
    assert (workdir / "tables" / "flor.md").exists()


def test_seeds_start_from_other_parameters_and_norms_see_the_same_batches(studied):
    _, workdir = studied
    losses = {
        (norm, seed): [e["loss"] for e in read_events(workdir / "runs" / f"vit_{norm}" / str(seed), "train")]
        for norm in ("layer", "flor")
        for seed in (1, 2)
    }
    assert losses["flor", 1] != losses["flor", 2]
    assert losses["flor", 1] != losses["layer", 1]


def test_the_landscape_has_a_line_for_each_norm_and_a_point_for_each_place(studied):
    _, workdir = studied
    folder = workdir / "landscape"
    curves = json.loads((folder / "landscape" / "vit_flor_1.json").read_text())["losses"]
    assert set(curves) == {"between_norms", "around"}
    for walk, points in (("between_norms", 3), ("around", 2)):
        assert set(curves[walk]) == {"photos/train", "lines/novel"}
        assert all(len(line) == points and np.isfinite(line).all() for line in curves[walk].values())
    page = (folder / "landscape.html").read_text()
    assert page.count("<figure>") == 4
    assert all(name in page for name in ("layer (LN)", "FLoR", "lines/novel"))
    (table,) = (folder / "tables").glob("flor_landscape.md")
    assert "hill, photos/train" in table.read_text()


def test_the_landscape_is_measured_once(studied, monkeypatch):
    config, workdir = studied

    def never(*arguments, **others):
        raise AssertionError("measured again")

    monkeypatch.setattr(flor_landscape.landscape, "between_norms", never)
    flor_study.run(config, workdir)


@pytest.mark.parametrize(("held", "told"), [(None, "no run here"), ('{"job": "flor"}', "no finished few-shot run")])
def test_the_landscape_of_what_is_no_finished_run_is_refused(tmp_path, held, told):
    config = CONFIG("landscape")
    (tmp_path / "some").mkdir()
    if held:
        (tmp_path / "some" / "config.json").write_text(held)
    config.runs = str(tmp_path / "some")
    with pytest.raises(UserError, match=told):
        flor_landscape.run(config, tmp_path / "w")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, "two runs of vit, flor have the seed 0"),
        ({"run.seed": 1, "data.targets": ("lines/novel",)}, "runs of different sets: photos/train, lines/novel, text"),
    ],
)
def test_a_landscape_of_runs_that_cannot_be_averaged_is_refused(tmp_path, change, told):
    with pytest.raises(UserError, match=told):
        flor_landscape._check([tmp_path / "a", tmp_path / "b"], [small(), small(**change)])


def test_the_study_asks_each_norm_of_each_network_alike(tmp_path):
    config = CONFIG("study")
    made = flor_study._experiment(config, tmp_path, "vit", "layer", 12)
    assert (made.model.network, made.model.norm, made.run.seed) == ("vit", "layer", 12)
    assert made.eval.finetuned_episodes == 0
    config.finetuned = ("flor",)
    assert flor_study._experiment(config, tmp_path, "vit", "flor", 12).eval.finetuned_episodes == 50
    for network, optimizer in (("resnet10", "adamw"), ("vit", "muon")):
        trained = {
            norm: flor_study._experiment(config, tmp_path, network, norm, 12).train for norm in ("fixed", "flor")
        }
        assert trained["fixed"] == trained["flor"] == CONFIG(network).train
        assert trained["flor"].optimizer == optimizer
    assert made.data.images == str(tmp_path / "images")


def test_the_image_sets_of_the_default_are_all_known():
    config = CONFIG("resnet10")
    for name in (config.data.train, config.data.validation, *config.data.targets):
        assert plan(config.data, name).name == name
