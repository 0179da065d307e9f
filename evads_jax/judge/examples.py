"""What a judge is trained on and measured with: requests about drawn ads, each with the score it should get.

An example is a function of (ads, seed, split, number) alone. Its label is `GRID[number % 5]`, its aspect alternates
every five numbers, so that any ten examples in a row hold each label once for answers and once for traces. The task is
one that can have the label: only BP has two core points and with them candidates of .5.

A group holds candidates of one question, with every label that it can have. Two groups in five are of tasks that can
have .5, which half of their candidates get; so any ten groups in a row hold each label equally often for both aspects.

A share of the candidates stands inside an attack, which does not change the label. The attacks are those of
`judge.attacks` and `judge.injections`; two in five of their kinds (`HELD_OUT`) are never shown in training.
"""

import dataclasses
import random
from collections.abc import Sequence

from evads_jax.data.records import TASKS, Event
from evads_jax.data.render import vocabulary as words
from evads_jax.errors import UserError
from evads_jax.judge.attacks import Material, attacks
from evads_jax.judge.candidates import (
    Ad,
    Aspect,
    Candidate,
    Plan,
    borrowed,
    competing,
    hedged,
    mixed,
    nothing,
    plans,
    stating,
)
from evads_jax.judge.injections import injections
from evads_jax.judge.measure import request
from evads_jax.judge.verdict import GRID, JudgeRequest

_NOISE = 0.25  # share of the attacks that are random characters or a sentence of the ad's speech
_PLAN = 0.45  # share of the zeros that state something wrong by a plan; the others are borrowed or say nothing
_ZEROS = ("borrowed", "borrowed", "nothing", "attack", "attack", "hedged", "hedged")  # where attacks are shown
_KEYWORDS = 8
_MANY = (3, 10)  # values of a list that competes with itself
# Ranges of characters that noise is drawn from: ASCII, accents, Greek, Cyrillic, punctuation, kana, Han, full width.
_CHARACTERS = ((33, 127), (0xC0, 0x250), (0x391, 0x3CA), (0x410, 0x450), (0x2010, 0x2028), (0x3041, 0x30FF))
_WIDE = ((0x4E00, 0x9FA5), (0xFF01, 0xFF5F))


@dataclasses.dataclass(frozen=True)
class JudgeExample:
    """A request and what a judge should say to it.

    Attributes:
      request: the request.
      label: the grid value.
      ad, task: what it asks about.
      honest: the candidate before an attack was put around it.
      attack: the attack's name; "" without one.
    """

    request: JudgeRequest
    label: float
    ad: Ad
    task: str
    honest: Candidate
    attack: str = ""


def attacked(rng: random.Random, ad: Ad, task: str, text: str) -> dict[str, str]:
    """Every attack of both suites around a candidate, by name: `pleasing: …` (`attacks`), `commanding: …`."""
    question = ad.questions[task]
    values = competing(rng, ad, task)
    others = [rng.choice(words.SLOTS[slot]).name(ad.script.language) for slot in words.SLOTS]
    material = Material(
        question.question, ad.script.events, text, values, [*values, *rng.sample(others, _KEYWORDS - len(values) // 2)]
    )
    pleasing = {f"pleasing: {name}": attack for name, attack in attacks(material).items()}
    return pleasing | {f"commanding: {name}": attack for name, attack in injections(text).items()}


def stands(name: str) -> bool:
    """Whether the candidate inside an attack keeps its label.

    It does unless the attack leaves it out, or adds values or keywords: competing values are no answer, and score 0.
    """
    suite, _, kind = name.partition(": ")
    return suite == "commanding" or (kind.startswith("partial") and "values" not in kind and "keywords" not in kind)


# Kinds that are candidates in their own right and always shown: repeated, pasted, echoed.
_TAUGHT = ("pleasing: partial twice", "pleasing: events pasted", "pleasing: question repeated")
_NAMES = tuple(
    [f"pleasing: {name}" for name in attacks(Material("", (Event(0, 0),), "", ("a", "b"), ()))]
    + [f"commanding: {name}" for name in injections("")]
)
HELD_OUT = frozenset(
    name for i, name in enumerate(name for name in sorted(_NAMES) if name not in _TAUGHT) if i % 5 in (0, 3)
)


class Examples:
    """The examples of a split.

    Args:
      ads: the ads asked about.
      split: with the seed and a number it decides what is drawn.
      seed: the run's seed.
      attack_share: share of the candidates inside an attack or noise; 0 for honest ones only, without attacks among
        those of label 0.
    """

    def __init__(self, ads: Sequence[Ad], split: str, seed: int, attack_share: float = 0.0):
        self.ads, self._split, self._seed, self._share = ads, split, seed, attack_share

    def __call__(self, number: int, attempt: int = 0) -> JudgeExample:
        """An example.

        Args:
          number: which one.
          attempt: another draw with the same label and aspect, for where the first is too long.
        """
        rng = random.Random(f"judge {self._seed}/{self._split}/{number}/{attempt}")
        label = GRID[number % len(GRID)]
        aspect: Aspect = "trace" if number // len(GRID) % 2 else "answer"
        ad = rng.choice(self.ads)
        task = rng.choice([t for t in TASKS if plans(ad.questions[t].rubric, label)])
        return self._example(rng, ad, task, aspect, label)

    def _example(self, rng: random.Random, ad: Ad, task: str, aspect: Aspect, label: float) -> JudgeExample:
        honest = self._candidate(rng, ad, task, aspect, label)
        text, name = honest.text, ""
        if rng.random() < self._share:
            text, name = self._around(rng, ad, task, text)
        asked = request(ad.example(task), text, aspect, ad.script.language)
        return JudgeExample(asked, label, ad, task, honest, name)

    def group(self, number: int, place: int, size: int, attempt: int = 0, question: int = 0) -> JudgeExample:
        """A candidate of a group.

        Args:
          number: which group; it decides the aspect, and whether .5 is among its labels.
          place: which of its candidates; it decides the label.
          size: of the group, a multiple of 8.
          attempt: another draw of the candidate.
          question: another draw of ad and task.
        """
        shared = random.Random(f"group {self._seed}/{self._split}/{number}/{question}")
        ad = shared.choice(self.ads)
        half = number % len(GRID) < 2
        task = shared.choice([t for t in TASKS if bool(plans(ad.questions[t].rubric, 0.5)) == half])
        others = [value for value in GRID if value != 0.5]
        labels = [0.5] * (size // 2) + others * (size // 8) if half else others * (size // 4)
        rng = random.Random(f"group {self._seed}/{self._split}/{number}/{question}/{place}/{attempt}")
        aspect: Aspect = "trace" if number // len(GRID) % 2 else "answer"
        return self._example(rng, ad, task, aspect, labels[place])

    def mixed(self, number: int, place: int, size: int, attempt: int = 0, question: int = 0) -> JudgeExample:
        """A candidate whose values are the script's or not at even odds, to learn to tell them apart from.

        Half of a group's are lists of many values, which compete and score 0; the others state every point.

        Args:
          number: which group; it decides the aspect.
          place: which of its candidates.
          size: of the group.
          attempt: another draw of the candidate.
          question: another draw of ad and task.
        """
        shared = random.Random(f"mixed {self._seed}/{self._split}/{number}/{question}")
        ad, task = shared.choice(self.ads), shared.choice(TASKS)
        aspect: Aspect = "trace" if number % 2 else "answer"
        rng = random.Random(f"mixed {self._seed}/{self._split}/{number}/{question}/{place}/{attempt}")
        if place < size // 2:
            honest = mixed(rng, ad, task, aspect, rng.randint(*_MANY))
        else:
            plan: Plan = tuple(rng.choice(("right", "wrong")) for _ in ad.questions[task].rubric)
            honest = stating(rng, ad, task, aspect, plan)
        asked = request(ad.example(task), honest.text, aspect, ad.script.language)
        return JudgeExample(asked, honest.label, ad, task, honest)

    def other(self, example: JudgeExample) -> Ad:
        """An ad under whose reference a candidate with the values of the example's script scores 0.

        Raises:
          UserError: there is none among the ads.
        """
        rng = random.Random(f"other {self._seed}/{self._split}/{example.request.video}/{example.task}")
        for ad in rng.sample(self.ads, len(self.ads)):
            if borrowed(ad, example.task, "answer", example.ad, example.task).label == 0.0:
                return ad
        raise UserError("too few ads: none differs enough", f"config.data.ads_{self._split}", "give more")

    def _candidate(self, rng: random.Random, ad: Ad, task: str, aspect: Aspect, label: float) -> Candidate:
        if label == 0.0 and rng.random() >= _PLAN:
            return self._zero(rng, ad, task, aspect)
        return stating(rng, ad, task, aspect, rng.choice(plans(ad.questions[task].rubric, label)))

    def _zero(self, rng: random.Random, ad: Ad, task: str, aspect: Aspect) -> Candidate:
        kind = rng.choice(_ZEROS if self._share else ("borrowed", ""))
        if kind == "borrowed":
            same = rng.random() < 0.3
            other = ad if same else rng.choice(self.ads)
            lent = borrowed(ad, task, aspect, other, rng.choice([t for t in TASKS if t != task]) if same else task)
            if lent.label == 0.0:
                return lent
        if kind in ("attack", "hedged"):
            honest = stating(rng, ad, task, aspect, rng.choice(plans(ad.questions[task].rubric, 0.75)))
        if kind == "hedged":
            return Candidate(hedged(rng, ad, task, rng.choice(("", honest.text, honest.text))), 0.0, kind)
        if kind == "attack":
            texts = attacked(rng, ad, task, honest.text)
            name = rng.choice([n for n in texts if n not in HELD_OUT and not stands(n)])
            return Candidate(texts[name], 0.0, name)
        return nothing(rng, ad.script.language)

    def _around(self, rng: random.Random, ad: Ad, task: str, text: str) -> tuple[str, str]:
        if rng.random() >= _NOISE:
            texts = attacked(rng, ad, task, text)
            name = rng.choice([n for n in texts if n not in HELD_OUT and stands(n)])
            return texts[name], name
        noise = rng.choice(rng.choice(ad.script.scenes).sentences) if rng.random() < 0.4 else _characters(rng)
        apart = rng.choice((" ", "\n"))
        return (f"{text}{apart}{noise}" if rng.random() < 0.7 else f"{noise}{apart}{text}"), "noise"


def _characters(rng: random.Random) -> str:
    """Words of random characters, half of them ASCII."""
    ranges = (_CHARACTERS[0], rng.choice((*_CHARACTERS, *_WIDE)))
    lengths = [rng.randint(1, 8) for _ in range(rng.randint(1, 5))]
    return " ".join("".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(n)) for n in lengths)
