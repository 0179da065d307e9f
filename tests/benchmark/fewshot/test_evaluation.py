"""The figures of a model on a set: each computed once, under the protocol that it names."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from models.flor import tiny

from evads_jax.benchmark.fewshot import Finetuning, Transduction, accuracy, embed, evaluation, interval
from evads_jax.benchmark.fewshot.evaluation import Protocol
from evads_jax.data.fewshot.sets import ImageSet
from evads_jax.errors import UserError
from evads_jax.models import flor

MODEL = flor.FlorConfig(
    network="vit", norm="flor", width=8, layers=1, heads=2, mlp_width=8, patch=8, image_size=16, classes=4
)
PROTOCOL = Protocol(
    ways=3, shots=(1, 2), queries=4, episodes=6, seed=0, too_small="refuse", rounds=(2, 1), finetuned_episodes=2,
    finetuning=Finetuning(steps=1),
)  # fmt: skip
ABOUT = {"stage": "base", "step": 3, "seed": 0}


def images_of(seed=0, sizes=(8, 8, 8, 8)):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(4), sizes)
    images = rng.integers(0, 160, (4, 1, 1, 3))[labels] + rng.integers(0, 96, (len(labels), 16, 16, 3))
    return ImageSet("colours", images.astype(np.uint8), labels.astype(np.int32), tuple("abcd"), f"digest {seed}")


@pytest.fixture(scope="module")
def params():
    return tiny.params(MODEL)


def evaluated(params, folder, images=None, about=ABOUT, model=MODEL, **changes):
    """The summary, and what was asked of the network in this call."""
    said = []
    protocol = dataclasses.replace(PROTOCOL, **changes)
    summary = evaluation.evaluate(params, model, images or images_of(), protocol, folder, about, said.append, 32)
    return summary, said


@pytest.fixture(scope="module")
def kept(params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation") / "colours"
    return folder, evaluated(params, folder)[0]


def test_every_method_and_number_of_shots_has_its_figure_and_its_episodes(kept, params):
    folder, summary = kept
    names = [f"{method}_{shots}" for shots in (1, 2) for method in evaluation.METHODS]
    assert sorted(summary["figures"]) == sorted(names)
    assert json.loads((folder / "summary.json").read_text()) == summary
    images = images_of()
    features = embed(params, MODEL, images.images, 32)
    with np.load(folder / "accuracies.npz") as arrays:
        for shots, rounds in ((1, 2), (2, 1)):
            episodes = PROTOCOL.sample(images, shots)
            plain, helped = accuracy(features, episodes), accuracy(features, episodes, Transduction(rounds))
            np.testing.assert_array_equal(arrays[f"prototypes_{shots}"], plain)
            np.testing.assert_array_equal(arrays[f"transductive_{shots}"], helped)
            assert arrays[f"finetuned_{shots}"].shape == (2,)
            figure = summary["figures"][f"prototypes_{shots}"]
            assert (figure["mean"], figure["n"]) == (pytest.approx(plain.mean()), 6)
            assert figure["ci95"] == pytest.approx([interval(plain).low, interval(plain).high])


def never(*arguments, **others):
    raise AssertionError("asked again")


def test_what_is_kept_is_not_asked_again(kept, params, monkeypatch):
    folder, summary = kept
    monkeypatch.setattr(evaluation, "embed", never)
    monkeypatch.setattr(evaluation, "finetuned_accuracy", never)
    assert evaluated(params, folder)[0] == summary


def test_only_what_changed_is_asked_again(kept, params, monkeypatch, tmp_path):
    folder, summary = kept
    copied = shutil.copytree(folder, tmp_path / "colours")
    monkeypatch.setattr(evaluation, "finetuned_accuracy", never)
    again = evaluated(params, copied, rounds=(1, 1))[0]["figures"]
    assert again["transductive_1"]["protocol"]["rounds"] == 1
    assert {name: figure for name, figure in again.items() if name != "transductive_1"} == {
        name: figure for name, figure in summary["figures"].items() if name != "transductive_1"
    }


def test_a_call_that_asks_for_less_throws_nothing_away(kept, params, monkeypatch, tmp_path):
    folder, summary = kept
    copied = shutil.copytree(folder, tmp_path / "colours")
    monkeypatch.setattr(evaluation, "embed", never)
    monkeypatch.setattr(evaluation, "finetuned_accuracy", never)
    less = evaluated(params, copied, finetuned_episodes=0, shots=(1,), rounds=(2,))[0]
    assert sorted(less["figures"]) == ["prototypes_1", "transductive_1"]
    assert sorted(less["not_asked"]) == ["finetuned_1", "finetuned_2", "prototypes_2", "transductive_2"]
    assert evaluated(params, copied)[0] == summary
    with np.load(folder / "accuracies.npz") as before, np.load(copied / "accuracies.npz") as after:
        assert {name: array.tolist() for name, array in before.items()} == {
            name: array.tolist() for name, array in after.items()
        }


def test_the_images_that_could_not_be_read_are_named_beside_the_figures(params, tmp_path):
    images = dataclasses.replace(images_of(), unreadable=("a/3.png: no image",))
    summary = evaluated(params, tmp_path, images, finetuned_episodes=0)[0]
    assert (summary["images"], summary["unreadable"]) == (32, ["a/3.png: no image"])


@pytest.mark.parametrize("other", [{"about": {**ABOUT, "step": 4}}, {"images": images_of(1)}])
def test_figures_of_other_weights_or_images_are_not_taken_over(kept, params, tmp_path, other):
    folder = shutil.copytree(kept[0], tmp_path / "colours")
    asked = evaluated(params, folder, finetuned_episodes=0, **other)[0]
    assert "finetuned_1" not in asked["figures"]
    assert asked["about"] == other.get("about", ABOUT)


@pytest.mark.parametrize("left", [0, 3, 100])
def test_a_broken_file_of_figures_is_made_anew(params, tmp_path, left):
    folder = tmp_path / "colours"
    first = evaluated(params, folder, finetuned_episodes=0)[0]
    file = folder / "accuracies.npz"
    file.write_bytes(file.read_bytes()[:left])
    assert evaluated(params, folder, finetuned_episodes=0)[0] == first


def test_a_network_without_a_mix_has_no_fine_tuned_figure(tmp_path):
    model = dataclasses.replace(MODEL, norm="layer")
    summary = evaluated(tiny.params(model), tmp_path, model=model, rounds=())[0]
    assert sorted(summary["figures"]) == ["prototypes_1", "prototypes_2"]


def test_classes_that_are_too_small_are_refused_before_training_or_left_out_and_counted(params, tmp_path):
    small = images_of(sizes=(8, 8, 8, 5))
    with pytest.raises(UserError, match=r"colours: classes with fewer than 2 \+ 4 images: d \(5\)"):
        evaluation.check(PROTOCOL, [small])
    dropping = {"too_small": "drop", "finetuned_episodes": 0}
    evaluation.check(dataclasses.replace(PROTOCOL, **dropping), [small])
    figures = evaluated(params, tmp_path, small, **dropping)[0]["figures"]
    assert figures["prototypes_2"]["left_out"] == {"d": 5}
    assert figures["prototypes_1"]["left_out"] == {}


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"rounds": (1,)}, "1 numbers of rounds for 2"), ({"finetuned_episodes": 7}, "more episodes are fine-tuned")],
)
def test_a_protocol_that_cannot_be_asked_is_refused(changes, told):
    with pytest.raises(UserError, match=told):
        dataclasses.replace(PROTOCOL, **changes)
