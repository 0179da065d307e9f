"""Five questions about an ad, one per task, each with clues, a short reference and its rubric.

====  ===================================  =======================================  ==================
task  asks for                             needs                                    rubric (core first)
====  ===================================  =======================================  ==================
BP    product, colour, material            the pixels                               product, colour | material
CM    setting and prop while the proof is  the time of a sentence, then the pixels  setting | prop
      heard
ML    the three persuasion steps           speech, mapped to steps                  proof | hook, close
CI    audience and need                    speech, mapped to a group and a need     audience | need
RC    the broken rule and where            speech and its place                     risk | risk_time or need
====  ===================================  =======================================  ==================

Clues and answers are fixed text around slots in braces; question and answer wordings are drawn independently. Clues
say at which second each thing is seen or heard, so that answers can be reasoned out from them.
"""

import random

from evads_jax.data.records import TASKS, Question, RubricPoint
from evads_jax.data.render import vocabulary as words
from evads_jax.data.render.script import AdScript

QUESTIONS = {
    "en": {
        "BP": (
            "What is being sold? Name its kind, colour and material.",
            "Which item appears, in which colour and material?",
            "Describe the item on show: kind, colour, material.",
        ),
        "CM": (
            "Where is the item, and what stands beside it, while the proof is heard?",
            "Which place and which object are in the picture during the proof?",
            "Name the place and the small object shown with the proof.",
        ),
        "ML": (
            "How does the ad persuade: hook, proof and closing push?",
            "Which hook, which proof and which final push does it use?",
            "Name the means of attracting, convincing and closing.",
        ),
        "CI": (
            "Who is the ad for, and which need does it meet?",
            "Which group does it address, and what do they gain?",
            "Name the target group and its need.",
        ),
        "RC": (
            "Does a sentence break advertising rules? If so, which kind and where?",
            "Is there an illegal statement, and in which part?",
            "Review the speech for advertising law.",
        ),
    },
    "zh": {
        "BP": (
            "视频卖的是什么？说出种类、颜色和材质。",
            "画面里是什么商品，什么颜色和材质？",
            "描述商品：种类、颜色、材质。",
        ),
        "CM": (
            "说到论证时，商品在哪里，旁边有什么？",
            "听到论证时，画面是什么场所和物件？",
            "与论证同时出现的场所和小物件是什么？",
        ),
        "ML": (
            "广告怎样说服人：引子、论证和促单？",
            "它用了哪种引子、论证和收尾手法？",
            "说出吸引、取信、促单的手段。",
        ),
        "CI": ("广告面向谁，满足什么需求？", "它针对哪类人，他们得到什么？", "说出目标人群和需求。"),
        "RC": ("有没有违反广告规定的话？是哪类，在哪里？", "有违法表述吗，在哪一段？", "按广告法审查这段口播。"),
    },
}

ANSWERS = {
    "en": {
        "BP": ("It is a {material} {product} in {colour}.", "The {product} is {colour} and {material}."),
        "CM": ("The {setting}, with the {prop}.", "Beside the {prop}, in the {setting}."),
        "ML": (
            "The {hook} hook, proof by {proof}, closing with {close}.",
            "Proof by {proof}, after {hook}; then {close}.",
        ),
        "CI": ("For {audience}, who want {need}.", "It offers {need} to {audience}."),
        "RC": ("Breach in the {risk_time}: {risk}.", "Kind of breach: {risk}, in the {risk_time}."),
        "compliant": ("Speech is {risk}; {need} can be checked.", "It is {risk}, with {need} as a fair point."),
    },
    "zh": {
        "BP": ("{colour}的{material}{product}。", "{product}，{colour}，{material}。"),
        "CM": ("在{setting}，旁边有{prop}。", "{prop}旁边，场景是{setting}。"),
        "ML": ("以{hook}引入，用{proof}论证，靠{close}促单。", "{proof}取信，先有{hook}，后有{close}。"),
        "CI": ("面向{audience}，满足{need}。", "为{audience}提供{need}。"),
        "RC": ("{risk_time}有{risk}。", "出现{risk}，在{risk_time}。"),
        "compliant": ("内容{risk}，{need}可以验证。", "{risk}，{need}属正常卖点。"),
    },
}

CLUES = {
    "en": {
        "BP": "Every scene shows {product}, in {colour}, with {material}.",
        "CM": "Seen {scenes}. Heard proof {proof_time}.",
        "ML": "Heard hook {hook_time}: {hook}; proof {proof_time}: {proof}; push {close_time}: {close}.",
        "CI": "Heard group {audience_time}: {audience}; benefit {need_time}: {need}.",
        "RC": "Heard breach {risk_time}: {risk}.",
        "compliant": "Heard {risk}, only {need}.",
    },
    "zh": {
        "BP": "各场景可见{product}，{colour}，{material}。",
        "CM": "看到{scenes}。听到论证{proof_time}。",
        "ML": "听到引子{hook_time}：{hook}；论证{proof_time}：{proof}；促单{close_time}：{close}。",
        "CI": "听到人群{audience_time}：{audience}；好处{need_time}：{need}。",
        "RC": "听到违规{risk_time}：{risk}。",
        "compliant": "听到{risk}，只有{need}。",
    },
}

# A scene in CM's clues, and what stands between two of them.
SCENE = {"en": ("{time}: {setting}, {prop}", "; "), "zh": ("{time}：{setting}，{prop}", "；")}

# task → (slot, core); CM's slots get the number of the scene that is asked about.
RUBRICS = {
    "BP": (("product", True), ("colour", True), ("material", False)),
    "CM": (("setting", True), ("prop", False)),
    "ML": (("proof", True), ("hook", False), ("close", False)),
    "CI": (("audience", True), ("need", False)),
    "RC": (("risk", True), ("risk_time", False)),
    "compliant": (("risk", True), ("need", False)),
}


def ask(script: AdScript, video: str) -> tuple[Question, ...]:
    """The five questions of an ad, in random order; each id ends in its task and the number of its question template.

    Args:
      script: the ad.
      video: the video's name; the ids begin with it.
    """
    rng = random.Random(f"questions {script.seed}")
    questions = [_question(script, video, task, rng) for task in TASKS]
    rng.shuffle(questions)
    return tuple(questions)


def _question(script: AdScript, video: str, task: str, rng: random.Random) -> Question:
    language = script.language
    kind = "compliant" if task == "RC" and script.risk is words.COMPLIANT else task
    # The slot as templates name it → the slot as the script does.
    scene = script.told_in["proof"] + 1
    slots = {slot: f"{slot}_{scene}" if task == "CM" else slot for slot, _ in RUBRICS[kind]}
    values = {slot: script.values[name] for slot, name in slots.items()}
    template = rng.randrange(len(QUESTIONS[language][task]))
    evidence = {slot: value.evidence[language] or value.name(language) for slot, value in values.items()}
    times = {f"{slot}_time": words.TIMES[told].evidence[language] for slot, told in script.told_in.items()}
    return Question(
        id=f"{video}-{task}{template + 1}",
        question=QUESTIONS[language][task][template],
        answer=rng.choice(ANSWERS[language][kind]).format(**{s: v.name(language) for s, v in values.items()}),
        clues=CLUES[language][kind].format(**(times | evidence), scenes=_scenes(script)),
        task=task,
        rubric=tuple(
            RubricPoint(slots[slot], value.wordings[language], words.rivals(slot, value, language), core)
            for (slot, core), value in zip(RUBRICS[kind], values.values(), strict=True)
        ),
    )


def _scenes(script: AdScript) -> str:
    """What is seen in every scene, and when."""
    language = script.language
    form, between = SCENE[language]
    return between.join(
        form.format(
            time=time.evidence[language], setting=scene.setting.evidence[language], prop=scene.prop.evidence[language]
        )
        for time, scene in zip(words.TIMES, script.scenes, strict=True)
    )
