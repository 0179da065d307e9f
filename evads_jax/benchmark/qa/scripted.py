"""The embedded writer: drafts from events alone by fixed rules, so that the whole pipeline runs without a network.

It is no author. Its questions are plain («what is written when … is said?»), its marketing, insight and compliance
answers come from word lists, and its critics know three objections. Each role looks at other events, so that the five
draft different questions.
"""

import itertools
import json
from collections.abc import Sequence
from typing import Any

from evads_jax.benchmark.qa.draft import Candidate
from evads_jax.benchmark.qa.prompting import ROLES, Call, Subject
from evads_jax.benchmark.qa.writers import Written
from evads_jax.data.records import Event

_STEPS = {
    "zh": {
        "抛出痛点": ("怕", "担心", "难", "烦", "尴尬", "没有", "总是", "太"),
        "展示卖点": ("面料", "材质", "设计", "效果", "舒适", "显瘦", "质量", "百搭", "不会"),
        "以价格和优惠打动": ("元", "折", "优惠", "便宜", "特价", "到手", "买一"),
        "促使下单": ("下单", "入手", "赶紧", "快来", "冲", "链接", "抢", "试试"),
    },
    "en": {
        "names a pain": ("tired", "worry", "problem", "hate", "never", "hard"),
        "shows a benefit": ("soft", "light", "strong", "easy", "quality", "design", "made", "keeps"),
        "tempts with the price": ("yuan", "off", "price", "sale", "deal", "free"),
        "calls to buy": ("buy", "order", "now", "today", "hurry", "get"),
    },
}
_AUDIENCES = {
    "zh": ("宝宝", "妈妈", "学生", "上班族", "微胖", "敏感肌", "女生", "男生", "老人", "孩子", "姐妹", "通勤"),
    "en": (
        "students",
        "parents",
        "children",
        "runners",
        "office",
        "travellers",
        "beginners",
        "cooks",
        "families",
        "pets",
    ),
}
_FORBIDDEN = {
    "zh": ("最", "第一", "100%", "绝对", "根治", "永久", "国家级", "顶级", "神器"),
    "en": ("best", "number one", "100%", "cure", "guaranteed", "forever", "miracle", "only one"),
}
_TEXTS: dict[str, dict[str, Any]] = {
    "zh": {
        "BP": ("视频中以“{hint}”开头的那条字幕，完整写了什么？", "完整字幕是“{whole}”。"),
        "CM": ("口播说到“{said}”时，画面上同时写着什么？", "同时写着“{whole}”。"),
        "ML": ("从“{first}”到“{second}”，视频依次用了怎样的说服手法？", "先{a}，再{b}。"),
        "CI": ("口播中“{said}”这句话，针对的是哪类人群？", "针对{who}。"),
        "RC": ("口播或字幕中“{said}”这一表述，是否合规？", "不合规，“{word}”属于绝对化或保证性用语。"),
        "clues": "依据第{start}至{end}秒的文字与语音。",
        "short": "答案过短，请补充证据所在的时间。",
        "added": "（见第{start}秒）",
    },
    "en": {
        "BP": ("What does the overlay that begins with “{hint}” say in full?", "In full it says “{whole}”."),
        "CM": ("What is written on the screen while the voice says “{said}”?", "The words “{whole}” are written."),
        "ML": ("Which persuasion steps lead from “{first}” to “{second}”?", "It first {a}, and then {b}."),
        "CI": ("Whom does the sentence “{said}” address?", "It addresses {who}."),
        "RC": ("Does “{said}” comply with advertising rules?", "No: “{word}” is an absolute or guaranteeing claim."),
        "clues": "From what is written and said in seconds {start} to {end}.",
        "short": "The answer is very short; add when it can be seen.",
        "added": " (at second {start})",
    },
}


class ScriptedWriter:
    """Writes by rule; the same video gives the same questions.

    Args:
      language: "zh" or "en".
    """

    name, sees_frames = "scripted", False

    def __init__(self, language: str):
        self._language, self._texts = language, _TEXTS[language]

    async def reply(self, call: Call, messages: list[dict[str, Any]]) -> Written:
        """See `Writer`."""
        answer = getattr(self, "_" + call.stage)(call)
        return Written(json.dumps(answer, ensure_ascii=False))

    def _draft(self, call: Call) -> dict[str, Any]:
        turn = ROLES.index(call.role)
        drafts = [make(call.subject, turn) for make in (self._bp, self._cm, self._ml, self._ci, self._rc)]
        return {"drafts": [draft for draft in drafts if draft is not None]}

    def _critique(self, call: Call) -> dict[str, Any]:
        return {"objections": [{"id": c.id, "objection": self._objection(c)} for c in call.candidates]}

    def _objection(self, candidate: Candidate) -> str:
        return self._texts["short"] if len(candidate.draft.answer) < 8 else ""

    def _revise(self, call: Call) -> dict[str, Any]:
        drafts = []
        for candidate in call.candidates:
            draft = candidate.draft
            start = draft.ledger[0].start if draft.ledger else 0
            added = self._texts["added"].format(start=int(start)) if candidate.objection else ""
            ledger = [vars(entry) | {"frames": list(entry.frames)} for entry in draft.ledger]
            drafts.append(vars(draft) | {"answer": draft.answer + added, "ledger": ledger})
        return {"drafts": drafts}

    def _blind(self, call: Call) -> dict[str, Any]:
        # Without the video there are only the question's own words.
        return {"answer": call.candidates[0].draft.question}

    def _support(self, call: Call) -> dict[str, Any]:
        draft = call.candidates[0].draft
        quoted = "".join(entry.quote for entry in draft.ledger)
        if draft.task in ("BP", "CM"):
            return {"supported": any(entry.quote in draft.answer for entry in draft.ledger), "reason": "quotes"}
        return {"supported": bool(quoted), "reason": "quotes"}

    def _choose(self, call: Call) -> dict[str, Any]:
        ranked = sorted(call.candidates, key=lambda c: (-len(c.draft.ledger), -len(c.draft.answer), c.id))
        return {"ranking": [candidate.id for candidate in ranked]}

    def _bp(self, subject: Subject, turn: int) -> dict[str, Any] | None:
        shown = [(event, text) for event in subject.events for text in event.ocr if len(text) >= 6]
        if not shown:
            return None
        event, text = _pick(shown, turn)
        hint = text[: max(len(text) // 3, 2)] if self._language == "zh" else text.split()[0]
        return self._made("BP", {"hint": hint, "whole": text}, [_entry(event, "ocr", text)])

    def _cm(self, subject: Subject, turn: int) -> dict[str, Any] | None:
        both = [event for event in subject.events if event.asr and event.ocr and len(event.asr) >= 4]
        both = [event for event in both if (event.asr or "") not in "".join(event.ocr)] or both
        if not both:
            return None
        event = _pick(both, turn)
        evidence = [_entry(event, "asr", event.asr or ""), _entry(event, "ocr", event.ocr[0])]
        return self._made("CM", {"said": event.asr, "whole": event.ocr[0]}, evidence)

    def _ml(self, subject: Subject, turn: int) -> dict[str, Any] | None:
        steps = [(event, step) for event, step in ((e, self._step(e)) for e in subject.events) if step]
        pairs = [(a, b) for a, b in itertools.pairwise(steps) if a[1] != b[1]]
        if not pairs:
            return None
        (first, a), (second, b) = _pick(pairs, turn)
        values = {"first": first.asr, "second": second.asr, "a": a, "b": b}
        return self._made(
            "ML", values, [_entry(first, "asr", first.asr or ""), _entry(second, "asr", second.asr or "")]
        )

    def _ci(self, subject: Subject, turn: int) -> dict[str, Any] | None:
        return self._listed("CI", "who", _AUDIENCES[self._language], subject, turn)

    def _rc(self, subject: Subject, turn: int) -> dict[str, Any] | None:
        return self._listed("RC", "word", _FORBIDDEN[self._language], subject, turn)

    def _listed(self, task: str, name: str, words: Sequence[str], subject: Subject, turn: int) -> dict[str, Any] | None:
        """A draft about a sentence that holds a listed word."""
        hits = [(event, word) for event in subject.events for word in words if word in (event.asr or "").lower()]
        if not hits:
            return None
        event, word = _pick(hits, turn)
        return self._made(task, {"said": event.asr, name: word}, [_entry(event, "asr", event.asr or "")])

    def _step(self, event: Event) -> str:
        said = (event.asr or "").lower()
        return next((step for step, words in _STEPS[self._language].items() if any(w in said for w in words)), "")

    def _made(self, task: str, values: dict[str, Any], evidence: list[dict[str, Any]]) -> dict[str, Any]:
        question, answer = self._texts[task]
        clues = self._texts["clues"].format(start=int(evidence[0]["start"]), end=int(evidence[-1]["end"]))
        return {
            "task": task,
            "question": question.format(**values),
            "answer": answer.format(**values),
            "clues": clues,
            "ledger": evidence,
        }


def _entry(event: Event, modality: str, quote: str) -> dict[str, Any]:
    return {"claim": quote, "modality": modality, "start": event.start, "end": event.end, "quote": quote}


def _pick(items: Sequence[Any], turn: int) -> Any:
    """The items at five places spread over the video, one for each role."""
    return items[turn * len(items) // len(ROLES)]
