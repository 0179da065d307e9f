"""Episodes of few-shot evaluation: which images are the support and which the queries, as index arrays."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from evads_jax.errors import UserError

TOO_SMALL = ("refuse", "drop")


@dataclasses.dataclass(frozen=True)
class Episodes:
    """E episodes of n classes, k support images and q queries each.

    Attributes:
      indices: into the images; of the last axis the first k are the support.
      shots: k.
      left_out: classes that have fewer than k + q images → how many they have; empty unless they were to be dropped.
    """

    indices: Int[np.ndarray, "E n k+q"]
    shots: int
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.indices)


def sample(
    labels: Int[np.ndarray, " M"],
    names: Sequence[str],
    *,
    ways: int = 5,
    shots: int,
    queries: int = 15,
    count: int,
    seed: int,
    too_small: str = "refuse",
) -> Episodes:
    """Draws episodes: n of the classes, then k + q of the images of each, all without replacement.

    The same labels and arguments give the same episodes, so that models can be compared episode by episode; a larger
    `count` begins with the same ones.

    Args:
      labels: each image's class, an index into `names`.
      names: the classes.
      ways: n.
      shots: k.
      queries: q.
      count: E.
      seed: of the draws.
      too_small: what becomes of a class with fewer than k + q images: "refuse" or "drop".

    Raises:
      UserError: a class is too small (and none may be dropped), fewer than n are left, or a number makes no sense.
    """
    if too_small not in TOO_SMALL:
        raise UserError(f"unknown choice {too_small!r}", "config: too_small", "one of " + ", ".join(TOO_SMALL))
    for name, value, least in (("ways", ways, 2), ("shots", shots, 1), ("queries", queries, 1), ("count", count, 1)):
        if value < least:
            raise UserError(f"{name} must be at least {least}, got {value}", f"config: {name}")
    members = [np.flatnonzero(np.asarray(labels) == c) for c in range(len(names))]
    need = shots + queries
    left_out = {names[c]: len(found) for c, found in enumerate(members) if len(found) < need}
    if left_out and too_small == "refuse":
        shown = ", ".join(f"{name} ({number})" for name, number in left_out.items())
        what = f"classes with fewer than {shots} + {queries} images: {shown}"
        raise UserError(what, "", "set too_small to drop, or ask fewer queries")
    members = [found for found in members if len(found) >= need]
    if len(members) < ways:
        what = f"{ways} ways need as many classes of {need} images or more, there are {len(members)}"
        raise UserError(what, "config: ways")
    rng = np.random.default_rng(seed)
    indices = np.empty((count, ways, need), np.int32)
    for episode in indices:
        for row, c in enumerate(rng.choice(len(members), ways, replace=False)):
            episode[row] = rng.choice(members[c], need, replace=False)
    return Episodes(indices, shots, left_out)
