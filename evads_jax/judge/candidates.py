"""Candidates of every quality for the questions of drawn ads, each with the grid value that its making gives it.

What a candidate says is decided before it is worded: of each rubric point of its question, whether it states the
script's value, another value of the slot, or nothing. Its label is `rubric.grade` of that plan; no judge has a part
in it. An answer states names of values, a trace what gives them away (`Value.evidence`), by the same plan.
"""

import dataclasses
import functools
import hashlib
import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from evads_jax.data.records import Example, Question, RubricPoint
from evads_jax.data.render import AdScript, ask, draw_script
from evads_jax.data.render import vocabulary as words
from evads_jax.data.render.vocabulary import Value
from evads_jax.errors import UserError
from evads_jax.judge.rubric import grade

Aspect = Literal["answer", "trace"]
Plan = tuple[Literal["right", "wrong", "absent"], ...]

_OWN_TEMPLATE = 0.7  # share of the candidates that state every point in the script's own templates
_OTHER_WORDING = 0.4  # share of the values that are not named by their first wording
# Between values of a hedging candidate; not « or », by which attacks that are held out join theirs.
_JOINTS = {"en": (", ", "; ", " / ", " and ", " | ", "\n", "\n- "), "zh": ("，", "、", "；", " / ", "和", "\n", "\n- ")}

# What a slot is called where a candidate lists what it found, and how such a list begins and is written.
_LABELS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "product": "item",
        "colour": "colour",
        "material": "material",
        "setting": "place",
        "prop": "object beside it",
        "hook": "hook",
        "proof": "proof",
        "close": "final push",
        "audience": "group",
        "need": "need",
        "risk": "finding",
        "risk_time": "part",
    },
    "zh": {
        "product": "种类",
        "colour": "颜色",
        "material": "材质",
        "setting": "场所",
        "prop": "旁边物件",
        "hook": "引子",
        "proof": "论证",
        "close": "促单",
        "audience": "人群",
        "need": "需求",
        "risk": "结论",
        "risk_time": "位置",
    },
}
_LEADS = {
    "en": ("", "", "In short: ", "As far as one can tell, ", "I take it to be this: "),
    "zh": ("", "", "简单说：", "看起来是，", "我的判断："),
}
_FORM = {"en": ("{}: {}", ", ", "."), "zh": ("{}：{}", "，", "。")}

# Texts that say nothing of any ad.
_NOTHING = {
    "en": (
        *("...", "-", "?", "None.", "I do not know.", "No answer.", "It cannot be told from the video.", "Yes.", "OK"),
        *("It is a fine item that many people will like.", "The ad is lively and convincing.", "See above."),
        *("Everything that the question asks for is shown.", "The usual things, as in most ads of this kind."),
    ),
    "zh": (
        *("……", "-", "？", "无。", "不知道。", "没有答案。", "从视频看不出来。", "是的。", "好"),
        *("这是一件很多人会喜欢的好东西。", "广告生动，很有说服力。", "见上文。"),
        *("问题所问的都展示了。", "和多数同类广告一样。"),
    ),
}


@dataclasses.dataclass(frozen=True)
class Ad:
    """A drawn ad, without its pixels.

    Attributes:
      script: everything it shows and says.
      video: its name.
      questions: task → question.
    """

    script: AdScript
    video: str
    questions: Mapping[str, Question]

    def example(self, task: str) -> Example:
        """The question of a task with what is known about the video."""
        return Example(
            self.questions[task], self.video, self.script.category, events=self.script.events, source="render"
        )


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A text to be judged.

    Attributes:
      text: the text.
      label: the grid value that its making gives it.
      kind: how it was made.
    """

    text: str
    label: float
    kind: str


def draw_ads(split: str, count: int, seed: int, language: str) -> tuple[Ad, ...]:
    """Ads of a split; those of two splits share no combination of product, colour, brand and claim.

    Args:
      split: "train", "validation" or "test".
      count: how many.
      seed: the run's seed.
      language: "en" or "zh".

    Raises:
      UserError: fewer than two: a candidate may be another ad's answer.
    """
    if count < 2:
        raise UserError(f"{count} ads to judge answers about", f"config.data.ads_{split}", "give at least 2")
    ads = []
    for index in range(count):
        video = f"judge-{split}-{index:05d}"
        digest = hashlib.blake2b(f"{seed}/{video}".encode(), digest_size=7).digest()
        script = draw_script(int.from_bytes(digest, "big"), language, split)
        ads.append(Ad(script, video, {str(question.task): question for question in ask(script, video)}))
    return tuple(ads)


def label_of(points: Sequence[RubricPoint], plan: Plan) -> float:
    """The grid value of what a plan states."""
    where = {choice: {i for i, said in enumerate(plan) if said == choice} for choice in ("right", "wrong")}
    return grade(tuple(points), where["right"], where["wrong"])


def plans(points: Sequence[RubricPoint], label: float) -> tuple[Plan, ...]:
    """All plans that state something and have this label; a question of one core point has none for .5."""
    return _plans(tuple(point.core for point in points), label)


@functools.cache
def _plans(core: tuple[bool, ...], label: float) -> tuple[Plan, ...]:
    points = [RubricPoint("", (), (), c) for c in core]
    all_plans: list[Plan] = list(itertools.product(("right", "wrong", "absent"), repeat=len(core)))
    return tuple(p for p in all_plans if set(p) != {"absent"} and label_of(points, p) == label)


def stating(rng: random.Random, ad: Ad, task: str, aspect: Aspect, plan: Plan) -> Candidate:
    """A candidate that states what a plan says.

    What states every point is written by the script's own templates, drawn anew, or as a list; what leaves a part out
    as a list, in any order, with or without the names of the slots. Values are named by any of their wordings.

    Args:
      rng: draws values, wordings and form.
      ad: the ad.
      task: of its question.
      aspect: answer or trace.
      plan: one choice for each rubric point.
    """
    question, script = ad.questions[task], ad.script
    language, chosen = script.language, {}
    for point, said in zip(question.rubric, plan, strict=True):
        value = script.values[point.slot]
        if said == "wrong":
            value = rng.choice([v for v in words.SLOTS[words.family(point.slot)] if v.key != value.key])
        if said != "absent":
            chosen[point.slot] = _reworded(rng, value, language)
    label = label_of(question.rubric, plan)
    if "absent" not in plan and rng.random() < _OWN_TEMPLATE:
        told = retell(script, chosen, rng.getrandbits(40))
        written = next(q for q in ask(told, ad.video) if q.task == task)
        return Candidate(written.answer if aspect == "answer" else written.clues, label, "template")
    named = [
        (words.family(slot), value.name(language) if aspect == "answer" else _evidence(value, language))
        for slot, value in chosen.items()
    ]
    return Candidate(_listed(rng, named, language), label, "list")


def mixed(rng: random.Random, ad: Ad, task: str, aspect: Aspect, count: int) -> Candidate:
    """A list of values of the question's slots, each the script's or another one at even odds, a slot's perhaps more
    than once: it competes with itself, and is no answer.

    Args:
      rng: draws slots, values, wordings and form.
      ad: the ad.
      task: of its question.
      aspect: answer or trace.
      count: values in the list.
    """
    named = []
    for point in rng.choices(ad.questions[task].rubric, k=count):
        family, value = words.family(point.slot), ad.script.values[point.slot]
        if rng.random() < 0.5:
            value = rng.choice([v for v in words.SLOTS[family] if v.key != value.key])
        value, language = _reworded(rng, value, ad.script.language), ad.script.language
        named.append((family, value.name(language) if aspect == "answer" else _evidence(value, language)))
    return Candidate(_listed(rng, named, ad.script.language), 0.0, "mixed")


def borrowed(ad: Ad, task: str, aspect: Aspect, other: Ad, other_task: str) -> Candidate:
    """What another question's reference says, taken for an answer (or trace) to this one.

    A point whose slot the other reference fills too is stated right where the values are the same, else wrong.
    """
    theirs = {words.family(p.slot): other.script.values[p.slot].key for p in other.questions[other_task].rubric}
    points = ad.questions[task].rubric
    families = [(words.family(point.slot), ad.script.values[point.slot].key) for point in points]
    plan: Plan = tuple("absent" if f not in theirs else "right" if theirs[f] == key else "wrong" for f, key in families)
    lent = other.questions[other_task]
    return Candidate(lent.answer if aspect == "answer" else lent.clues, label_of(points, plan), "borrowed")


def nothing(rng: random.Random, language: str) -> Candidate:
    """A text that says nothing of any ad."""
    return Candidate(rng.choice(_NOTHING[language]), 0.0, "nothing")


def competing(rng: random.Random, ad: Ad, task: str) -> list[str]:
    """Names of values of the question's slots, right and wrong ones in random order: what a hedging answer lists."""
    points = ad.questions[task].rubric
    names = [name for point in points for name in (point.accepted[0], rng.choice(point.rivals))]
    rng.shuffle(names)
    return names


def hedged(rng: random.Random, ad: Ad, task: str, front: str) -> str:
    """A text, and behind it right and wrong values of the question's slots in a row: all is said, and so nothing.

    Args:
      rng: draws order and joints.
      ad: the ad.
      task: of its question.
      front: what stands before, perhaps nothing.
    """
    joint, names = rng.choice(_JOINTS[ad.script.language]), competing(rng, ad, task)
    return joint.join([front, *names] if front else names)


def retell(script: AdScript, values: Mapping[str, Value], seed: int) -> AdScript:
    """The same ad with other values, and another seed for the wording of its questions and answers.

    Args:
      script: the ad.
      values: slot, as `AdScript.values` names it → its value.
      seed: the seed.
    """
    scenes, told_in = list(script.scenes), dict(script.told_in)
    fields: dict[str, Any] = {}
    for slot, value in values.items():
        family = words.family(slot)
        if family in ("setting", "prop"):
            number = int(slot.removeprefix(f"{family}_")) - 1
            shown: dict[str, Any] = {family: value}
            scenes[number] = dataclasses.replace(scenes[number], **shown)
        elif slot == "risk_time":
            told_in["risk"] = next(i for i, time in enumerate(words.TIMES) if time.key == value.key)
        else:
            fields["claim" if slot == "need" else slot] = value
    return dataclasses.replace(script, seed=seed, scenes=tuple(scenes), told_in=told_in, **fields)


def _reworded(rng: random.Random, value: Value, language: str) -> Value:
    """The value, perhaps with another of its wordings in the first place."""
    others = value.wordings[language][1:]
    # The script knows an ad without a breach by this very object.
    if value is words.COMPLIANT or not others or rng.random() >= _OTHER_WORDING:
        return value
    return dataclasses.replace(value, wordings={**value.wordings, language: (rng.choice(others),)})


def _evidence(value: Value, language: str) -> str:
    return value.evidence[language] or value.name(language)


def _listed(rng: random.Random, named: list[tuple[str, str]], language: str) -> str:
    form, between, end = _FORM[language]
    rng.shuffle(named)
    labelled = rng.random() < 0.5
    parts = [form.format(_LABELS[language][family], name) if labelled else name for family, name in named]
    return rng.choice(_LEADS[language]) + between.join(parts) + end
