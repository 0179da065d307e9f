"""Image sets are made once, are what their recipe says, and name what they left out."""

import json
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from evads_jax.data.fewshot import prepare as preparation
from evads_jax.data.fewshot.prepare import plan, prepare
from evads_jax.data.fewshot.reading import Images, Plan
from evads_jax.data.fewshot.sets import ImageSet, file_name
from evads_jax.errors import UserError

from .images import class_folders, settings, write_image

SIZE = 32


def made(names, root, said=None, **changes):
    return prepare(settings(**changes), names, SIZE, root, (said if said is not None else []).append)


def test_a_rendered_set_has_its_classes_and_so_many_images_of_each(tmp_path):
    sets = made(("photos/validation", "textures/novel"), tmp_path)
    assert list(sets) == ["photos/validation", "textures/novel"]
    for one in sets.values():
        assert one.images.shape == (2 * len(one.classes), SIZE, SIZE, 3)
        assert one.counts().tolist() == [2] * len(one.classes)
    image, label = sets["photos/validation"][3]
    assert label == 1
    assert (image == sets["photos/validation"].images[3]).all()


def test_a_set_is_made_once_and_made_again_under_another_recipe(tmp_path):
    said = []
    first = made(("lines/validation",), tmp_path, said)["lines/validation"]
    assert said
    said.clear()
    again = made(("lines/validation",), tmp_path, said)["lines/validation"]
    assert not said
    assert again.digest == first.digest
    other = made(("lines/validation",), tmp_path, said, seed=1)["lines/validation"]
    assert said
    assert other.digest != first.digest
    assert (np.asarray(other.images) != np.asarray(first.images)).any()


@pytest.mark.parametrize("lost", ["set.json", "images.npy"])
def test_a_set_that_was_cut_short_is_made_again(tmp_path, lost):
    first = made(("lines/validation",), tmp_path)["lines/validation"]
    (tmp_path / "lines_validation" / lost).unlink()
    (tmp_path / "lines_validation" / "images.tmp").write_bytes(b"half")
    again = made(("lines/validation",), tmp_path)["lines/validation"]
    assert (np.asarray(again.images) == np.asarray(first.images)).all()
    assert again.digest == first.digest


def test_of_two_that_make_the_same_set_one_makes_it_and_the_other_waits_for_it(tmp_path, monkeypatch):
    begun, waiting, drawn = threading.Event(), threading.Event(), []

    def draw(index, size):
        drawn.append(index)
        begun.set()
        waiting.wait(5)  # the other comes while this one is at its first image
        return np.full((size, size, 3), index + 1, np.uint8)

    recipe = {"drawn": 3}
    monkeypatch.setattr(preparation, "plan", lambda data, name: Plan(name, recipe, lambda: Images("a", (0,) * 3, draw)))
    found, told = {}, []

    def other(line):
        told.append(line)
        waiting.set()

    def run(who, say):
        found[who] = prepare(settings(), ("digits",), 4, tmp_path, say)["digits"]

    threads = [threading.Thread(target=run, args=pair) for pair in (("one", lambda line: None), ("other", other))]
    threads[0].start()
    assert begun.wait(5)
    threads[1].start()
    for thread in threads:
        thread.join(10)
    assert drawn == [0, 1, 2]
    assert told[0] == "digits: another process makes it, waiting"
    for one in (found["one"], found["other"]):
        assert one.images[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert found["one"].digest == found["other"].digest
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_set_that_another_recipe_is_taking_the_place_of_is_not_read_with_its_images(tmp_path, monkeypatch):
    made(("lines/validation",), tmp_path)
    folder, load = tmp_path / "lines_validation", np.load
    recipe = json.loads((folder / "set.json").read_text())["recipe"]
    assert preparation._read(folder, recipe) is not None
    assert preparation._read(folder, {**recipe, "size": 8}) is None

    def replaced(path, **how):
        (folder / "set.json").unlink()  # as the process that makes the other begins
        return load(path, **how)

    monkeypatch.setattr(np, "load", replaced)
    assert preparation._read(folder, recipe) is None


def test_folders_whose_paths_differ_only_in_their_slashes_share_no_files(tmp_path):
    roots = [class_folders(tmp_path / place / "set", each=each) for place, each in (("a", 2), ("b", 4))]
    roots.append(class_folders(tmp_path / "a_set", each=6))
    names = [f"folder:{root}" for root in roots]
    kept = tmp_path / "kept"
    made(names, kept)
    said = []
    assert [len(one) for one in made(names, kept, said).values()] == [4, 8, 12]
    assert not said  # none took another's place
    assert len({file_name(name) for name in names}) == len(list(kept.iterdir())) == 3
    assert file_name("photos/train") == "photos_train"
    assert len(file_name("folder:/" + "x" * 300).encode()) < 200


def test_an_image_that_cannot_be_read_is_named_counted_and_left_out_or_refused(tmp_path):
    root = class_folders(tmp_path / "set")
    (root / "a" / "1.png").write_bytes(b"no image")
    said = []
    one = made((f"folder:{root}",), tmp_path / "kept", said)[f"folder:{root}"]
    assert one.counts().tolist() == [2, 3]
    assert len(one.images) == 5
    assert any("1 unreadable images left out, first a/1.png" in line for line in said)
    with pytest.raises(UserError, match=r"1 images of folder:.* cannot be read, first a/1\.png"):
        made((f"folder:{root}",), tmp_path / "kept", bad_images="refuse")


def test_a_changed_file_makes_the_set_anew(tmp_path):
    root = class_folders(tmp_path / "set")
    first = made((f"folder:{root}",), tmp_path / "kept")[f"folder:{root}"]
    write_image(root / "b" / "2.png", colour=(255, 255, 255), size=(40, 40))
    second = made((f"folder:{root}",), tmp_path / "kept")[f"folder:{root}"]
    assert first.digest != second.digest
    assert (second.images[5] == 255).all()


def test_at_most_so_many_images_of_a_class_are_taken_the_same_each_time(tmp_path):
    root = class_folders(tmp_path / "set", each=9)
    name = f"folder:{root}"
    capped = made((name,), tmp_path / "kept", at_most_per_class=4)[name]
    assert capped.counts().tolist() == [4, 4]
    again = made((name,), tmp_path / "other", at_most_per_class=4)[name]
    assert (np.asarray(capped.images) == np.asarray(again.images)).all()
    other = made((name,), tmp_path / "third", at_most_per_class=4, seed=5)[name]
    assert (np.asarray(capped.images) != np.asarray(other.images)).any()


def test_a_cap_takes_each_image_with_its_own_label():
    images = Images(("a", "b"), (0, 1, 0, 1, 1, 0), lambda index, size: np.full((1, 1, 3), index, np.uint8)).capped(
        2, 0
    )
    assert images.labels.count(0) == images.labels.count(1) == 2
    for index, label in enumerate(images.labels):
        assert (0, 1, 0, 1, 1, 0)[images.make(index, 1)[0, 0, 0]] == label


def test_a_picture_keeps_its_middle_with_its_shorter_side_as_the_square(tmp_path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    (tmp_path / "set" / "a").mkdir(parents=True)
    Image.fromarray(wide).save(tmp_path / "set" / "a" / "x.png")
    name = f"folder:{tmp_path / 'set'}"
    assert (made((name,), tmp_path / "kept")[name].images[0] == 200).all()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("paintings", "unknown image set 'paintings'"),
        ("photos", "one of photos/train, photos/validation, photos/novel"),
        ("textures/train", "one of textures/validation, textures/novel"),
        ("digits/train", "one of digits"),
        ("isic", r"needs a folder \[config.data.isic\]"),
        ("mini_imagenet/train", "needs a folder"),
        ("eurosat", r"config.data.tfds"),
        ("folder:/nowhere", "no such folder of images"),
    ],
)
def test_a_name_that_cannot_be_read_is_refused_before_any_set_is_made(tmp_path, name, told):
    with pytest.raises(UserError, match=told):
        made(("photos/validation", name), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("changes", [{"rendered_per_class": 0}, {"bad_images": "hide"}])
def test_settings_that_make_no_sense_are_refused(tmp_path, changes):
    with pytest.raises(UserError, match=r"config\.data"):
        made(("photos/validation",), tmp_path, **changes)


def test_the_digits_are_ten_classes_of_handwriting(tmp_path):
    datasets = pytest.importorskip("sklearn.datasets")
    digits = made(("digits",), tmp_path)["digits"]
    assert digits.classes == tuple("0123456789")
    assert len(digits) == 1797
    assert digits.counts().min() > 150
    bundle = datasets.load_digits()
    assert (digits.labels == bundle.target).all()
    small = digits.images[7].astype(float).mean(-1).reshape(8, 4, 8, 4).mean((1, 3))
    assert np.corrcoef(small.ravel(), bundle.images[7].ravel())[0, 1] > 0.97


def test_digits_without_scikit_learn_are_told_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        plan(settings(), "digits")


def test_an_image_set_refuses_labels_that_are_not_its_own():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    for labels in ([0], [0, 2], [-1, 0]):
        with pytest.raises(ValueError, match="x: "):
            ImageSet("x", images, np.array(labels, np.int32), ("a", "b"))


def test_what_is_written_beside_the_images_says_where_they_are_from(tmp_path):
    made(("thermal/validation",), tmp_path)
    kept = json.loads((tmp_path / "thermal_validation" / "set.json").read_text())
    assert kept["recipe"]["rendered"] == "thermal/validation"
    assert kept["recipe"]["made_by"]
    assert kept["bad"] == []
