"""Which products there are: drawn from a seed, with look-alikes, no two alike, splits apart.

A product is a combination of six attributes. Four are seen (kind, colour, material, badge), two are told (brand,
claim). Products come in families of three: one, a look-alike that differs from it in colour, material or badge, and
one that differs in brand or claim. What only looks cannot tell the third from the first, what only listens not the
second: shade and price are the family's too. A hash of the combination decides its split, so that no combination is in
two splits, whatever the seeds.
"""

import dataclasses
import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evads_jax.data.render import vocabulary as words
from evads_jax.data.render.vocabulary import Value
from evads_jax.errors import UserError

SPLITS = ("train", "validation", "test")
# What look-alikes differ in; kind, which shapes and titles name, is the family's.
SEEN, TOLD = ("colour", "material", "badge"), ("brand", "claim")
EDITION = 2  # of how products are drawn: another number, other products; figures of two editions do not compare
BADGES = ("ring", "square", "triangle", "cross", "bars", "none")
FAMILY = 3
# Share of the combinations, in percent: train, then validation, the rest test.
_TRAIN, _VALIDATION = 70, 80

_VALUES: Mapping[str, tuple[Value | str, ...]] = {
    "kind": words.PRODUCTS,
    "colour": words.COLOURS,
    "material": words.MATERIALS,
    "badge": BADGES,
    "brand": words.BRANDS,
    "claim": words.CLAIMS,
}


@dataclasses.dataclass(frozen=True)
class ProductScript:
    """One drawn product.

    Attributes:
      seed: what its clips are drawn from, beside its attributes.
      kind, colour, material: values of the vocabulary, shown only in pictures but for their words in titles.
      badge: the mark printed on it, one of `BADGES`.
      brand: brand name.
      claim: the value that its title states and its speech implies.
      shade: decides hue, saturation and brightness within the colour; the family's.
      price: yuan, the family's; told with noise.
    """

    seed: int
    kind: Value
    colour: Value
    material: Value
    badge: str
    brand: str
    claim: Value
    shade: int
    price: int

    @property
    def key(self) -> tuple[str, ...]:
        """Its combination; unique in a catalogue."""
        return tuple(_key(getattr(self, name)) for name in (*SEEN, *TOLD))

    @property
    def facts(self) -> dict[str, str]:
        """Attribute → value."""
        return dict(zip((*SEEN, *TOLD), self.key, strict=True))


def draw_catalogue(seed: int, split: str, count: int) -> tuple[ProductScript, ...]:
    """Draws the products of a split, family by family.

    Args:
      seed: any integer; the same one gives the same products, and a larger count only adds to them.
      split: one of `SPLITS`.
      count: how many; a last family may stay incomplete.

    Raises:
      UserError: more than half of the combinations of the split, of which the last would never be found.
      ValueError: unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"no products for split {split!r}")
    share = {"train": _TRAIN, "validation": _VALIDATION - _TRAIN, "test": 100 - _VALIDATION}[split]
    most = math.prod(map(len, _VALUES.values())) * share // 200
    if count > most:
        raise UserError(f"{count} {split} products, {most} can be drawn", f"data.products_{split}", "lower it")
    rng = random.Random(f"products {seed} {split}")
    drawn: dict[tuple[str, ...], ProductScript] = {}
    while len(drawn) < count:
        family_wide: dict[str, Any] = {"shade": rng.getrandbits(56), "price": rng.randrange(19, 199, 10)}
        attributes: dict[str, Any] = {name: rng.choice(values) for name, values in _VALUES.items()}
        first = ProductScript(rng.getrandbits(56), **attributes, **family_wide)
        family = {first.key: first}
        for group in (SEEN, TOLD):
            alike = [script for script in _look_alikes(first, group, rng) if script.key not in drawn]
            alike = [script for script in alike if split_of(script.key) == split]
            if alike:
                chosen = rng.choice(alike)
                family[chosen.key] = chosen
        if len(family) == FAMILY and first.key not in drawn and split_of(first.key) == split:
            drawn |= family
    return tuple(drawn.values())[:count]


def split_of(key: tuple[str, ...]) -> str:
    """The split that a combination belongs to."""
    share = int.from_bytes(hashlib.blake2b("/".join(key).encode(), digest_size=4).digest(), "big") % 100
    return "train" if share < _TRAIN else "validation" if share < _VALIDATION else "test"


def _look_alikes(script: ProductScript, group: Sequence[str], rng: random.Random) -> Iterator[ProductScript]:
    """All products that differ from one in a single attribute of a group, each with a seed of its own."""
    for name in group:
        for value in _VALUES[name]:
            if value is not getattr(script, name):
                change: dict[str, Any] = {name: value}
                yield dataclasses.replace(script, seed=rng.getrandbits(56), **change)


def _key(value: Value | str) -> str:
    return value if isinstance(value, str) else value.key
