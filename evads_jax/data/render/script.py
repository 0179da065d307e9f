"""Ad scripts: everything that an ad shows and says, drawn from a seed.

An ad has three scenes of two seconds. The product keeps its colour and material in all of them; setting and prop change
with the scene. Each scene speaks two sentences: one of the three persuasion steps and one of {audience cue, claim,
remark}, both in random order, so that neither a place nor a phrase tells its time. The remark breaks a rule of
advertising, or is harmless.

Splits share no (product, colour, brand, claim): a hash of the four says which split an ad belongs to.
"""

import dataclasses
import hashlib
import random
from collections.abc import Mapping

from evads_jax.data.records import Event
from evads_jax.data.render import vocabulary as words
from evads_jax.data.render.vocabulary import Value

SCENES = 3
SCENE_SECONDS = 2
SECONDS = SCENES * SCENE_SECONDS
# Share of the (product, colour, brand, claim) combinations, in percent: train, then validation, the rest test.
_TRAIN, _VALIDATION = 70, 80
_COMPLIANT_SHARE = 0.3


@dataclasses.dataclass(frozen=True)
class Scene:
    """Two seconds of an ad.

    Attributes:
      setting, prop: what is shown behind and beside the product.
      sentences: what is said, in order.
      overlay: what is written.
    """

    setting: Value
    prop: Value
    sentences: tuple[str, ...]
    overlay: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class AdScript:
    """One ad.

    Attributes:
      seed: what it was drawn from; the video's jitter derives from it too.
      language: language of its speech and questions, "en" or "zh".
      product, colour, material, hook, proof, close, audience, claim: values of the slots of `vocabulary`.
      risk: the rule it breaks, or `vocabulary.COMPLIANT`.
      told_in: slot of a value that is told → index of the scene whose speech tells it; "risk" is the remark's.
      brand: brand name.
      price: yuan.
      scenes: the scenes in time order.
      category: goods category, in the words of the released annotations. It is the shop's and drawn on its own: the
        prompt states it, and the product's would give away half of what BP asks.
    """

    seed: int
    language: str
    product: Value
    colour: Value
    material: Value
    hook: Value
    proof: Value
    close: Value
    audience: Value
    claim: Value
    risk: Value
    told_in: Mapping[str, int]
    brand: str
    price: int
    scenes: tuple[Scene, ...]
    category: str

    @property
    def values(self) -> dict[str, Value]:
        """Slot → value, of every slot that an answer may state."""
        values = {
            "product": self.product,
            "colour": self.colour,
            "material": self.material,
            "hook": self.hook,
            "proof": self.proof,
            "close": self.close,
            "audience": self.audience,
            "need": self.claim,
            "risk": self.risk,
        }
        for number, scene in enumerate(self.scenes, 1):
            values |= {f"setting_{number}": scene.setting, f"prop_{number}": scene.prop}
        if self.risk is not words.COMPLIANT:
            values["risk_time"] = words.TIMES[self.told_in["risk"]]
        return values

    @property
    def facts(self) -> dict[str, str]:
        """Slot → canonical wording, of every slot that an answer may state, with brand and price."""
        named = {slot: value.name(self.language) for slot, value in self.values.items()}
        return named | {"brand": self.brand, "price": str(self.price)}

    @property
    def events(self) -> tuple[Event, ...]:
        """One event per scene: overlay and speech."""
        space = " " if self.language == "en" else ""
        return tuple(
            Event(i * SCENE_SECONDS, (i + 1) * SCENE_SECONDS - 1, scene.overlay, space.join(scene.sentences))
            for i, scene in enumerate(self.scenes)
        )


def split_of(product: Value, colour: Value, brand: str, claim: Value) -> str:
    """The split that a combination belongs to: "train" (shared by sft and rl), "validation" or "test"."""
    text = "/".join((product.key, colour.key, brand, claim.key)).encode()
    share = int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big") % 100
    return "train" if share < _TRAIN else "validation" if share < _VALIDATION else "test"


def draw_script(seed: int, language: str, split: str = "train") -> AdScript:
    """Draws an ad.

    Args:
      seed: any integer; the same one gives the same script.
      language: "en" or "zh".
      split: "train", "validation" or "test"; combinations of other splits are drawn again.

    Raises:
      ValueError: unknown language or split.
    """
    if language not in words.LANGUAGES or split not in ("train", "validation", "test"):
        raise ValueError(f"no ad scripts for language {language!r}, split {split!r}")
    rng = random.Random(f"script {seed}")
    while True:
        product, colour = rng.choice(words.PRODUCTS), rng.choice(words.COLOURS)
        brand, claim = rng.choice(words.BRANDS), rng.choice(words.CLAIMS)
        if split_of(product, colour, brand, claim) == split:
            break
    hook, proof, close = rng.choice(words.HOOKS), rng.choice(words.PROOFS), rng.choice(words.CLOSES)
    audience = rng.choice(words.AUDIENCES)
    risk = words.COMPLIANT if rng.random() < _COMPLIANT_SHARE else rng.choice(words.RISKS)
    price = rng.randrange(19, 199, 10)
    steps, extras = [hook, proof, close], [audience, claim, risk]
    rng.shuffle(steps)
    rng.shuffle(extras)
    told_in = {slot: steps.index(value) for slot, value in (("hook", hook), ("proof", proof), ("close", close))}
    told_in |= {slot: extras.index(value) for slot, value in (("audience", audience), ("need", claim), ("risk", risk))}
    overlays = [(brand,), (brand, f"{price} yuan"), (f"{price} yuan",)]
    rng.shuffle(overlays)
    settings, props = rng.sample(words.SETTINGS, SCENES), rng.sample(words.PROPS, SCENES)
    scenes = tuple(
        Scene(setting, prop, tuple(rng.choice(value.spoken[language]) for value in told), overlay)
        for setting, prop, told, overlay in zip(settings, props, zip(steps, extras, strict=True), overlays, strict=True)
    )
    return AdScript(
        seed=seed,
        language=language,
        product=product,
        colour=colour,
        material=rng.choice(words.MATERIALS),
        hook=hook,
        proof=proof,
        close=close,
        audience=audience,
        claim=claim,
        risk=risk,
        told_in=told_in,
        brand=brand,
        price=price,
        scenes=scenes,
        category=rng.choice(words.CATEGORIES),
    )
