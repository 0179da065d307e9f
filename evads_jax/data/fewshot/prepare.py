"""From names in a config to image sets: made once, kept as one array a set, used as they are the next time.

A set is named `<source>` or `<source>/<part>`:

    photos/train  photos/validation  photos/novel  lines/…  thermal/…  textures/validation  textures/novel   rendered
    digits                                                                                    scikit-learn's
    mini_imagenet/{train,validation,novel}  isic  chestx                         from the folder of `data.<source>`
    plant_village  eurosat  cars196  caltech_birds2011  places365_small  i_naturalist2017       from `data.tfds`
    folder:DIR                                                                   a folder with a folder for each class

    <root>/<set>/images.npy   uint8 [M, H, W, 3]; mapped into memory, so that large sets need not fit
    <root>/<set>/set.json     classes, labels, the recipe, and the images that could not be read
    <root>/<set>/lock         held by the process that makes the set; others wait and use what it made
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from evads_jax.data.fewshot import domains, folders, noise, products, registered, render, shapes, textures
from evads_jax.data.fewshot.digits import digits
from evads_jax.data.fewshot.reading import Images, Plan, Unreadable
from evads_jax.data.fewshot.sets import FOLDER, ImageSet, file_name
from evads_jax.data.prepare import made_by
from evads_jax.errors import UserError

Log = Callable[[str], None]

# What a rendered image is made by: a change in any of these makes another set.
_SOURCES = (domains, noise, products, render, shapes, textures)
_PACKAGES = ("numpy", "pillow")
_LAYOUTS = {"isic": folders.isic, "chestx": folders.chestx}


def prepare(data: ConfigDict, names: Sequence[str], size: int, root: Path, say: Log) -> dict[str, ImageSet]:
    """Makes or reuses image sets.

    Args:
      data: `rendered_per_class`, `at_most_per_class` (0 for all), `seed` (of what is rendered, and of which images
        are taken where there are more), `bad_images` ("skip" or "refuse"), and the folders `mini_imagenet`, `isic`,
        `chestx`, `tfds`.
      names: which sets.
      size: pixels of a side.
      root: where they are kept.
      say: told one line at a time.

    Returns:
      Name → set, in the order of `names`.

    Raises:
      UserError: an unknown name, a missing folder, an unreadable image that is refused, a full disk.
    """
    plans = check(data, names)  # all of them before the first is made
    return {one.name: _made(one, data, size, root, say) for one in plans}


def check(data: ConfigDict, names: Sequence[str]) -> list[Plan]:
    """How the sets of some names are made, each once; nothing is made yet.

    Raises:
      UserError: an unknown name, a missing folder, an unknown choice.
    """
    if data.bad_images not in ("skip", "refuse"):
        raise UserError(f"unknown choice {data.bad_images!r}", "config.data.bad_images", "one of skip, refuse")
    return [plan(data, name) for name in dict.fromkeys(names)]


def plan(data: ConfigDict, name: str) -> Plan:
    """How the set of a name is made.

    Raises:
      UserError: there is no such set, or its folder is not named or not there.
    """
    if name.startswith(FOLDER):
        return folders.class_folders(name, Path(name.removeprefix(FOLDER)))
    source, _, part = name.partition("/")
    parts: tuple[str, ...] = ("",)
    if source in render.DOMAINS:
        parts = render.parts(source)
    elif source == "mini_imagenet":
        parts = tuple(folders.MINI_PARTS)
    elif source not in ("digits", *_LAYOUTS, *registered.SPLITS):
        known = (*render.DOMAINS, "digits", "mini_imagenet", *_LAYOUTS, *registered.SPLITS, "folder:DIR")
        raise UserError(f"unknown image set {name!r}", "config.data", "one of " + ", ".join(known))
    if part not in parts:
        shown = ", ".join(f"{source}/{p}" if p else source for p in parts)
        raise UserError(f"unknown image set {name!r}", "config.data", f"one of {shown}")
    if source in render.DOMAINS:
        return _rendered(data, name, source, part)
    if source == "digits":
        return digits(name)
    if source in registered.SPLITS:
        return registered.registered(name, source, _folder(data, "tfds", name))
    folder = _folder(data, source, name)
    return folders.mini_imagenet(name, folder, part) if part else _LAYOUTS[source](name, folder)


def _folder(data: ConfigDict, field: str, name: str) -> Path:
    if not data[field]:
        raise UserError(f"the set {name} needs a folder", f"config.data.{field}", "name it; nothing is downloaded")
    return Path(data[field])


def _rendered(data: ConfigDict, name: str, domain: str, part: str) -> Plan:
    count, seed = data.rendered_per_class, data.seed
    if count < 1:
        raise UserError("a rendered set needs a number of images", "config.data.rendered_per_class", "1 or more")
    classes = render.classes(domain, part)
    labels = tuple(label for label in range(len(classes)) for _ in range(count))

    def make(index: int, size: int) -> np.ndarray:
        label, number = divmod(index, count)
        return render.draw(domain, part, classes[label], number, size, seed)

    recipe = {"rendered": name, "per_class": count, "seed": seed, "made_by": made_by(_SOURCES, _PACKAGES)}
    return Plan(name, recipe, lambda: Images(classes, labels, make))


def _made(plan: Plan, data: ConfigDict, size: int, root: Path, say: Log) -> ImageSet:
    """The set of a plan: the one that is kept, if it has the same recipe, else a new one."""
    folder = root / file_name(plan.name)
    recipe = {**plan.recipe, "size": size, "at_most": data.at_most_per_class, "drawn_by": data.seed}
    recipe = json.loads(json.dumps(recipe))
    found = _read(folder, recipe)
    if found is None:
        with _alone(folder, plan.name, say):
            found = _read(folder, recipe)  # another process may have made it meanwhile
            if found is None:
                _make(plan, folder, recipe, say)
                found = _read(folder, recipe)
    assert found is not None, "it was just written"
    kept, images = found
    if kept["bad"]:
        first = kept["bad"][0]
        if data.bad_images == "refuse":
            raise UserError(f"{len(kept['bad'])} images of {plan.name} cannot be read, first {first}", "config.data")
        say(f"{plan.name}: {len(kept['bad'])} unreadable images left out, first {first}")
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]
    labels, classes = np.array(kept["labels"], np.int32), tuple(kept["classes"])
    return ImageSet(plan.name, images, labels, classes, digest, tuple(kept["bad"]))


@contextlib.contextmanager
def _alone(folder: Path, name: str, say: Log) -> Iterator[None]:
    """Keeps a set's folder to one process of any number; the lock ends with the process, however that ends."""
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context((folder / "lock").open("a"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"{name}: another process makes it, waiting")
                fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            what = f"cannot write an image set: {error.strerror}"
            raise UserError(what, str(folder), "check the folder and its permissions") from error
        yield


def _make(plan: Plan, folder: Path, recipe: Mapping[str, Any], say: Log) -> None:
    """Writes a set; `set.json` comes last, so that a set that was cut short is made again."""
    images, size = plan.open().capped(recipe["at_most"], recipe["drawn_by"]), recipe["size"]
    if not images.labels:
        raise UserError(f"the set {plan.name} has no images", str(folder))
    temporary = folder / "images.tmp"
    labels: list[int] = []
    bad: list[str] = []
    try:
        (folder / "set.json").unlink(missing_ok=True)
        shape = (len(images.labels), size, size, 3)
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        for index, label in enumerate(images.labels):
            try:
                array[len(labels)] = images.make(index, size)
                labels.append(label)
            except Unreadable as error:
                bad.append(str(error))
            if index % 100 == 99:
                say(f"{plan.name}: {index + 1} of {len(images.labels)} images")
        array.flush()
        del array
        if bad:
            _shorten(temporary, len(labels))
        os.replace(temporary, folder / "images.npy")
        made = {"classes": list(images.classes), "labels": labels, "bad": bad, "recipe": recipe}
        unfinished = folder / "set.tmp"
        unfinished.write_text(json.dumps(made, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(unfinished, folder / "set.json")
    except OSError as error:
        raise UserError(f"cannot write an image set: {error.strerror}", str(folder), "make room") from error
    say(f"{plan.name}: {len(labels)} images in {len(images.classes)} classes")


def _shorten(path: Path, count: int) -> None:
    """Keeps the first `count` images of an array file."""
    whole = np.load(path, mmap_mode="r")
    shorter = path.with_suffix(".shorter")
    kept = np.lib.format.open_memmap(shorter, mode="w+", dtype=np.uint8, shape=(count, *whole.shape[1:]))
    kept[:] = whole[:count]
    kept.flush()
    os.replace(shorter, path)


def _read(folder: Path, recipe: Mapping[str, Any]) -> tuple[dict[str, Any], np.ndarray] | None:
    """What a folder holds, its images mapped; None where it holds no whole set of this recipe."""
    try:
        text = (folder / "set.json").read_text(encoding="utf-8")
        kept, images = json.loads(text), np.load(folder / "images.npy", mmap_mode="r")
        if (folder / "set.json").read_text(encoding="utf-8") != text:
            return None  # a set of another recipe takes its place: these may be its images
    except (OSError, ValueError):
        return None
    return (kept, images) if kept["recipe"] == recipe and len(images) == len(kept["labels"]) else None
