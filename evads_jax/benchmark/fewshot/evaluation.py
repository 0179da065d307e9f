"""One model on one image set: its accuracy over episodes by every method, kept so that it is computed once.

    W/evaluation/<set>/accuracies.npz   `<method>_<shots>`: each episode's share of right queries, float32 [E]
    W/evaluation/<set>/summary.json     means, intervals, protocols, and the classes that were left out

Methods: `prototypes` (nothing is learned), `transductive` (the queries help), `finetuned` (the support is learned).
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evads_jax.benchmark import files
from evads_jax.benchmark.fewshot.episodes import Episodes, sample
from evads_jax.benchmark.fewshot.features import embed
from evads_jax.benchmark.fewshot.finetuning import Finetuning, finetuned_accuracy
from evads_jax.benchmark.fewshot.intervals import interval
from evads_jax.benchmark.fewshot.prototypes import Transduction, accuracy
from evads_jax.data.fewshot.sets import ImageSet
from evads_jax.errors import UserError
from evads_jax.models.flor import Augmentation, FlorConfig

METHODS = ("prototypes", "transductive", "finetuned")
SUMMARY, ACCURACIES = "summary.json", "accuracies.npz"
Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How models are asked.

    Attributes:
      ways: classes of an episode.
      shots: support images a class; each of them is an evaluation of its own.
      queries: query images a class.
      episodes: how many.
      seed: of the episodes.
      too_small: what becomes of a class with fewer than shots + queries images: "refuse" or "drop".
      rounds: of the transductive form, one number for each of `shots`; empty: it is not asked.
      finetuned_episodes: how many of the episodes are also fine-tuned on; 0 for none.
      finetuning: how.
    """

    ways: int
    shots: tuple[int, ...]
    queries: int
    episodes: int
    seed: int
    too_small: str
    rounds: tuple[int, ...]
    finetuned_episodes: int
    finetuning: Finetuning

    def __post_init__(self):
        """Refuses what cannot be asked.

        Raises:
          UserError: naming the field.
        """
        if self.rounds and len(self.rounds) != len(self.shots):
            what = f"{len(self.rounds)} numbers of rounds for {len(self.shots)} numbers of shots"
            raise UserError(what, "config.eval.rounds", "give one for each, or none")
        if self.finetuned_episodes > self.episodes:
            raise UserError("more episodes are fine-tuned on than there are", "config.eval.finetuned_episodes")

    @classmethod
    def from_config(cls, section: Any) -> "Protocol":
        """Reads `config.eval`.

        Raises:
          UserError: naming the field that makes no sense.
        """
        tuning = dict(section.finetuning)
        augmentation = Augmentation(
            **{**tuning.pop("augmentation"), "area": tuple(section.finetuning.augmentation.area)}
        )
        names = {field.name for field in dataclasses.fields(cls)} - {"finetuning"}
        values = {name: section[name] for name in names}
        values |= {name: tuple(section[name]) for name in ("shots", "rounds")}
        return cls(**values, finetuning=Finetuning(**tuning, augmentation=augmentation))

    def sample(self, images: ImageSet, shots: int, count: int | None = None) -> Episodes:
        """The episodes of one number of shots.

        Raises:
          UserError: classes are too small, or too few.
        """
        return sample(
            images.labels,
            images.classes,
            ways=self.ways,
            shots=shots,
            queries=self.queries,
            count=self.episodes if count is None else count,
            seed=self.seed,
            too_small=self.too_small,
        )


def check(protocol: Protocol, sets: Sequence[ImageSet]) -> None:
    """Refuses sets that have too small classes, before anything is trained.

    Raises:
      UserError: naming set and classes.
    """
    for images in sets:
        for shots in protocol.shots:
            try:
                protocol.sample(images, shots, 1)
            except UserError as error:
                raise UserError(f"{images.name}: {error.what}", error.where or "config.eval", error.do) from error


def evaluate(
    params: Params,
    model: FlorConfig,
    images: ImageSet,
    protocol: Protocol,
    folder: Path,
    about: Mapping[str, Any],
    say: Callable[[str], None],
    batch: int = 128,
) -> dict[str, Any]:
    """Accuracies that are not there yet, and the summary of all.

    Args:
      params: the network.
      model: its sizes.
      images: the set.
      protocol: how it is asked.
      folder: of this set's results.
      about: which weights these are, of which run; results of others are not mixed in.
      say: told one line at a time.
      batch: images computed at one time.

    Returns:
      What `summary.json` holds: `about`, `set`, `images`, `classes`, `unreadable`, `figures`, by `<method>_<shots>`,
      and `not_asked`: the same of figures that an earlier call asked for and this one does not.
    """
    kept, arrays = _read(folder, about, images)
    figures: dict[str, Any] = {}
    features = None
    for shots, rounds in zip(protocol.shots, protocol.rounds or [0] * len(protocol.shots), strict=True):
        episodes = protocol.sample(images, shots)
        for method in METHODS:
            asked = _asked(protocol, model, method, shots, rounds)
            if asked is None:
                continue
            name = f"{method}_{shots}"
            if kept.get(name, {}).get("protocol") != asked:
                if method == "finetuned":
                    say(f"{images.name}: fine-tuning on {protocol.finetuned_episodes} episodes of {shots} shots")
                    fewer = dataclasses.replace(episodes, indices=episodes.indices[: protocol.finetuned_episodes])
                    found = finetuned_accuracy(params, model, images.images, fewer, protocol.finetuning)
                else:
                    features = embed(params, model, images.images, batch) if features is None else features
                    transduction = Transduction(rounds) if method == "transductive" else None
                    found = accuracy(features, episodes, transduction)
                arrays[name] = np.asarray(found, np.float32)
                one = interval(arrays[name])
                ends = None if one.n < 2 else [one.low, one.high]
                kept[name] = {"mean": one.mean, "ci95": ends, "n": one.n, "protocol": asked}
            figures[name] = {**kept[name], "left_out": dict(episodes.left_out)}
    summary = {
        "about": dict(about),
        "set": {"name": images.name, "digest": images.digest},
        "images": len(images),
        "classes": len(images.classes),
        "unreadable": list(images.unreadable),
        "figures": figures,
        "not_asked": {name: figure for name, figure in kept.items() if name not in figures},
    }
    files.write_arrays(folder / ACCURACIES, {name: arrays[name] for name in kept})
    files.write(folder / SUMMARY, files.to_json(summary, indent=2) + "\n")
    return summary


def _asked(protocol: Protocol, model: FlorConfig, method: str, shots: int, rounds: int) -> dict[str, Any] | None:
    """Everything that a figure depends on beside model and images, as JSON; None where it is not asked."""
    asked = {"method": method, "ways": protocol.ways, "shots": shots, "queries": protocol.queries}
    asked |= {"episodes": protocol.episodes, "seed": protocol.seed, "too_small": protocol.too_small}
    if method == "transductive":
        return {**asked, "rounds": rounds} if rounds else None
    if method == "finetuned":
        without_mix = protocol.finetuning.what == "mix" and model.norm not in ("fixed", "flor")
        if not protocol.finetuned_episodes or without_mix:
            return None
        settings = json.loads(json.dumps(dataclasses.asdict(protocol.finetuning)))
        return {**asked, "episodes": protocol.finetuned_episodes, "finetuning": settings}
    return asked


def _read(folder: Path, about: Mapping[str, Any], images: ImageSet) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The figures and accuracies that are kept of these weights and images."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        found = files.read_arrays(folder / ACCURACIES)
        if summary["about"] == dict(about) and summary["set"]["digest"] == images.digest:
            figures = summary["not_asked"] | summary["figures"]
            return {name: figure for name, figure in figures.items() if name in found}, found
    except (OSError, ValueError, KeyError):
        pass
    return {}, {}
