"""Measures the lexical judge on annotated questions and writes the tables into its documentation.

    python -m evads_jax.judge.measure --annotations=DIR --out=docs/lexical_judge.md

What stands between the two markers of the file is replaced; the rest is left alone.
"""

import argparse
import collections
import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from evads_jax.data.annotations import read_folder
from evads_jax.data.records import Example
from evads_jax.errors import UserError
from evads_jax.judge.attacks import Material, attacks
from evads_jax.judge.lexical import LexicalJudge
from evads_jax.judge.text import read
from evads_jax.judge.units import units
from evads_jax.judge.verdict import GRID, JudgeRequest, Verdict

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
VALUES = (
    "红色",
    "橙色",
    "黄色",
    "绿色",
    "蓝色",
    "紫色",
    "黑色",
    "白色",
    "灰色",
    "粉色",
    "棕色",
    "金色",
    "左侧",
    "右侧",
    "合规",
    "违规",
)


def request(example: Example, candidate: str, aspect: str = "answer", language: str = "zh") -> JudgeRequest:
    """The request that judges `candidate` as an answer to, or a trace for, an example's question."""
    question = example.question
    return JudgeRequest(
        question=question.question,
        events=example.evidence,
        clues=question.clues,
        reference=question.answer,
        candidate=candidate,
        aspect="trace" if aspect == "trace" else "answer",
        rubric=question.rubric,
        task=question.task,
        video=example.video,
        language=language,
    )


def score(examples: Sequence[Example], candidates: Iterable[str], aspect: str = "answer") -> np.ndarray:
    """Scores of one candidate per example; NaN for a missing verdict."""
    judge = LexicalJudge("zh")
    verdicts = judge.judge([request(e, c, aspect) for e, c in zip(examples, candidates, strict=True)])
    return np.array([v.score if isinstance(v, Verdict) else np.nan for v in verdicts])


def next_of_video(examples: Sequence[Example]) -> list[Example]:
    """For each example the next one of the same video, cyclically."""
    videos: dict[str, list[int]] = collections.defaultdict(list)
    for i, example in enumerate(examples):
        videos[example.video].append(i)
    following = {i: group[(k + 1) % len(group)] for group in videos.values() for k, i in enumerate(group)}
    return [examples[following[i]] for i in range(len(examples))]


def of_other_video(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """For each example a random one of another video."""
    rng, chosen = random.Random(seed), []
    for example in examples:
        other = example
        while other.video == example.video:
            other = examples[rng.randrange(len(examples))]
        chosen.append(other)
    return chosen


def keywords(examples: Sequence[Example], count: int | None) -> dict[str | None, list[str]]:
    """The most frequent content units of the answers of each goods category; all of them for None."""
    seen: dict[str | None, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for example in examples:
        seen[example.category].update({unit for unit, _ in units(read(example.question.answer))})
    return {category: [unit for unit, _ in counter.most_common(count)] for category, counter in seen.items()}


def candidates(examples: Sequence[Example]) -> dict[str, tuple[list[str], str]]:
    """The candidates of the main table: name → (texts, aspect)."""
    same, other = next_of_video(examples), of_other_video(examples)
    pasted = [Material(e.question.question, e.evidence, "", (), ()).pasted for e in examples]
    asked = [e.question.question for e in examples]
    table = {
        "the reference itself": ([e.question.answer for e in examples], "answer"),
        "the first half of the reference": ([half(e.question.answer) for e in examples], "answer"),
        "the reference, twice": ([e.question.answer * 2 for e in examples], "answer"),
        "the reference and another video's answer": (
            [e.question.answer + o.question.answer for e, o in zip(examples, other, strict=True)],
            "answer",
        ),
        "another answer of the same video": ([e.question.answer for e in same], "answer"),
        "another video's answer": ([e.question.answer for e in other], "answer"),
        "the question repeated": (asked, "answer"),
        "the events pasted": (pasted, "answer"),
        "the reference clues as the answer": ([e.question.clues for e in examples], "answer"),
    }
    for count, name in ((20, "20 keywords"), (100, "100 keywords"), (None, "all keywords")):
        listed = {category: "，".join(found) for category, found in keywords(examples, count).items()}
        table[f"{name} of the category"] = ([listed[e.category] for e in examples], "answer")
    table |= {
        "trace: the reference clues": ([e.question.clues for e in examples], "trace"),
        "trace: the reference answer": ([e.question.answer for e in examples], "trace"),
        "trace: other clues of the same video": ([e.question.clues for e in same], "trace"),
        "trace: the events pasted": (pasted, "trace"),
    }
    return table


def half(text: str) -> str:
    """The first half of a text, rounded up."""
    return text[: (len(text) + 1) // 2]


def attack_table(examples: Sequence[Example], frequent: dict[str | None, list[str]]) -> list[tuple[str, float, int]]:
    """Each attack's name, mean score, and in how many rows it beats the first half of the reference.

    Args:
      examples: the rows to attack.
      frequent: keywords of each goods category.
    """
    texts: dict[str, list[str]] = collections.defaultdict(list)
    for e in examples:
        given = Material(e.question.question, e.evidence, half(e.question.answer), VALUES, frequent[e.category])
        for name, text in attacks(given).items():
            texts[name].append(text)
    honest = score(examples, [half(e.question.answer) for e in examples])
    rows = []
    for name, attempts in texts.items():
        scores = score(examples, attempts)
        rows.append((name, float(scores.mean()), int((scores > honest).sum())))
    return rows


def throughput(examples: Sequence[Example]) -> float:
    """Verdicts a second on one core over groups of 8 different candidates a question."""
    sample = list(examples[:200])
    requests = [request(e, other.question.answer) for e in sample for other in sample[:8]]
    judge, start = LexicalJudge("zh"), time.perf_counter()
    judge.judge(requests)
    return len(requests) / (time.perf_counter() - start)


def report(examples: Sequence[Example]) -> str:
    """The tables, as Markdown."""
    lines = [
        f"{len(examples):,} questions of {len({e.video for e in examples}):,} videos; reproduced by",
        "`python -m evads_jax.judge.measure --annotations=DIR --out=docs/lexical_judge.md`.",
        "",
        "| candidate | mean | " + " | ".join(f"{g:g}" for g in GRID) + " |",
        "|---|" + "---:|" * (1 + len(GRID)),
    ]
    for name, (texts, aspect) in candidates(examples).items():
        scores = score(examples, texts, aspect)
        counts = " | ".join(f"{(scores == g).sum():,}" for g in GRID)
        lines.append(f"| {name} | {np.nanmean(scores):.4f} | {counts} |")
    lines += [
        "",
        "Counts stand under their grid value. Attacks, with the first half of the reference as the partial answer:",
    ]
    lines += ["", "| attack | mean | rows in which it beats the partial answer |", "|---|---:|---:|"]
    lines += [
        f"| {name} | {mean:.4f} | {beaten} |" for name, mean, beaten in attack_table(examples, keywords(examples, 20))
    ]
    lines += ["", f"About {throughput(examples):,.0f} verdicts a second on one core, in groups of 8 a question."]
    return "\n".join(lines)


def main() -> None:
    """Command line: measures and writes."""
    parser = argparse.ArgumentParser(description="Measures the lexical judge on annotated questions.")
    parser.add_argument("--annotations", required=True, help="folder with the annotation parquets")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file with the two markers")
    arguments = parser.parse_args()
    page = arguments.out.read_text(encoding="utf-8") if arguments.out.exists() else f"{BEGIN}\n{END}\n"
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise UserError("the page has no place for the tables", str(arguments.out), f"it needs {BEGIN} and {END}")
    examples = [e for file in read_folder(arguments.annotations).values() for e in file.examples]
    tables = report(examples)
    arguments.out.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
