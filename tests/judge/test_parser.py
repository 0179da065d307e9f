"""The parser reads what judges really write, and nothing else."""

import json
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evads_jax.judge.parser import LONGEST, parse_joint, parse_reply, read_value
from evads_jax.judge.verdict import GRID, Missing, Verdict

SEEN = {
    "Answer: 0.75.": 0.75,
    "**Answer:** 0.5": 0.5,
    "**Answer**: 0.5": 0.5,
    "Answer: **0.25**": 0.25,
    "Answer: 3/4\n": 0.75,
    "Answer: 3 / 4 .": 0.75,
    "Score: 75%": 0.75,
    "Score: 100 %": 1.0,
    "Score: .75": 0.75,
    "Score: 0,75": 0.75,
    "Score：0.75": 0.75,
    "Ｓｃｏｒｅ：０．７５": 0.75,
    "得分：0.5": 0.5,
    "得分:0.5分。": 0.5,
    "最终得分为0.25，因为证据与结论不符。": 0.25,
    "评分是 1.0": 1.0,
    "final score = 0.5": 0.5,
    "The final score is 0.75.": 0.75,
    "Score (0-1): 0.75": 0.75,
    "Score: 0.75/1": 0.75,
    "Score: 1 out of 4": 0.25,
    "# Verdict\n\nThe answer is generic.\n\n## Score: 0.75": 0.75,
    "**Score**\n0.75": None,
    "**Score:**\n\n0.75\n": 0.75,
    "Score: 0.75 - right but generic": 0.75,
    "Score: 0.5 (half of the key points)": 0.5,
    "Score: 0.75, 1 detail is missing": 0.75,
    "Score: 0.75 because 3/4 of it is there": 0.75,
    "0.75": 0.75,
    " **0.75** ": 0.75,
    "75%": 0.75,
    "3/4": 0.75,
    '{"score": 0.75, "reason": "generic"}': 0.75,
    '{"score": "3/4"}': 0.75,
    '{"Score": 1}': 1.0,
    '{"evaluation": {"score": 0.5}}': 0.5,
    'Here is my verdict:\n```json\n{"reason": "Score: 1.0 it said", "score": 0.25}\n```\nDone.': 0.25,
    "```\nScore: 0.25\n```": 0.25,
    "The candidate says «Answer: 1.0», which is no evidence.\nAnswer: 0": None,
    "The candidate says «Answer: 1.0», which is no evidence.\nAnswer: 0.0": 0.0,
    "> Answer: 1.0\n\nThat was the candidate.\nAnswer: 0.25": 0.25,
    "1.0: complete\n0.75: right but generic\n0.5: half\nScore: 0.5": 0.5,
    "<think>Score: 1.0? No, generic.</think>\nScore: 0.75": 0.75,
    "the thought began in the prompt, Score: 1.0\n</think>\n\nScore: 0.75": 0.75,
    "<think>it wrote </think>\nScore: 1.0\n really</think>\nScore: 0.25": 0.25,
    "<score>0.75</score>": 0.75,
    "<answer>0.75</answer>": 0.75,
    "So \\(x\\).\n$\\boxed{0.75}$": 0.75,
    "Score: 0.5\n\nTo repeat:\nScore: 0.50": 0.5,
    "- **Score**: 0.5\n- **Reason**: half": 0.5,
}


@pytest.mark.parametrize("reply", SEEN)
def test_what_judges_write_is_read(reply):
    verdict = parse_reply(reply)
    assert verdict.raw == reply
    assert getattr(verdict, "score", None) == SEEN[reply]


MISSING = {
    "": "empty",
    " \n ": "empty",
    "Score: 0.8": "off the grid",
    "Score: -1": "off the grid",
    "Score: −0.5": "off the grid",
    "Score: nan": "off the grid",
    "Score: Infinity": "off the grid",
    "Score: 10\n": "off the grid",
    "Score: 10 points": "off the grid",
    "Score: 0.": "may be",
    "Score: 7.5/10\nScore: 0.5": "contradictory",
    "Score: 3/0": "off the grid",
    '{"score": NaN}': "off the grid",
    '{"score": -Infinity}': "off the grid",
    '{"score": 1e400}': "off the grid",
    '{"score": true}': "not a number",
    '{"score": null}': "not a number",
    '{"score": 0.5, "score": 1.0}': "contradictory",
    '{"score": 0.75, "reason": "the answer': "no verdict",
    "Score: 0.5\nScore: 0.75": "contradictory",
    '{"score": 0.5}\nScore: 1.0': "contradictory",
    "Score: 0.5 or 0.75": "not a value",
    "Score: 0.5-0.75": "not a value",
    "Score: 0.5, on reflection 0.75": "contradictory",
    "Score: 1. It names the colour.\n2. It names the brand.": "not a value",
    "Score:\n1. It names the colour.": "no verdict",
    "<think>Score: 1.0": "cut off",
    "Score:": "cut off",
    "The answer is complete, so I give 0.75": "no verdict",
    "I cannot judge this.": "no verdict",
    "Score: not 0.75": "no verdict",
    "Scores of 1.0 are for complete answers.": "no verdict",
}


@pytest.mark.parametrize("reply", MISSING)
def test_everything_else_is_missing_with_its_reason(reply):
    verdict = parse_reply(reply)
    assert isinstance(verdict, Missing)
    assert verdict.reason.startswith(MISSING[reply])


def test_a_reply_that_is_known_to_be_cut_off_is_missing_and_one_known_to_be_whole_may_end_in_an_integer():
    assert isinstance(parse_reply("Score: 0.75", finished=False), Missing)
    assert parse_reply("Score: 0", finished=True).score == 0.0
    assert isinstance(parse_reply("Score: 0"), Missing)


def test_what_the_judge_echoes_of_the_candidate_is_no_verdict():
    echo = "[BEGIN candidate 3fa9]\nScore: 1.0\n[END candidate 3fa9]\n"
    assert parse_reply(echo + "Score: 0.25", nonce="3fa9").score == 0.25
    assert isinstance(parse_reply(echo, nonce="3fa9"), Missing)
    assert isinstance(parse_reply("[BEGIN candidate 3fa9]\nScore: 1.0", nonce="3fa9"), Missing)
    assert isinstance(parse_reply(echo + "Score: 0.25", nonce="aaaa"), Missing)  # two verdicts


def test_the_reason_is_kept():
    assert parse_reply('{"reason": "no  brand", "score": 0.5}').reason == "no brand"
    assert "half" in parse_reply("Only half of it.\nScore: 0.5").reason


def test_one_reply_may_hold_the_verdicts_on_answer_and_trace():
    for reply in (
        '{"answer": 0.75, "trace": 0.5}',
        '{"answer_score": 0.75, "trace_score": 0.5}',
        '{"answer": {"score": 0.75, "reason": "x"}, "trace": {"score": 0.5}}',
        "**Answer score:** 3/4\n**Trace score:** 50%",
        "答案得分：0.75\n推理得分：0.5",
    ):
        verdicts = parse_joint(reply)
        assert {name: v.score for name, v in verdicts.items()} == {"answer": 0.75, "trace": 0.5}, reply
    half = parse_joint('{"answer": 0.75}')
    assert half["answer"].score == 0.75
    assert isinstance(half["trace"], Missing)


PIECES = (
    "Score",
    ":",
    "：",
    "{",
    "}",
    '"score"',
    "0.75",
    "1",
    "/",
    "%",
    "<think>",
    "</think>",
    "\n",
    "**",
    "```",
    "nan",
)
ODD = ("\\boxed{", "[BEGIN candidate n]", "[END candidate n]", "\u200b", "\x00", "\ud800", "[[[[", "9" * 400)
FRAGMENTS = st.sampled_from([*SEEN, *MISSING, *PIECES, *ODD])


@given(st.lists(FRAGMENTS, max_size=8).map("".join) | st.text() | st.none() | st.integers())
@example("{" * 5000)
@example('{"a":' * 3000)
@example("[" * 5000)
@example('{"score": ' + "1" * 5000 + "}")
@example("Score: " + "9" * 45_000)
@settings(max_examples=300)
def test_no_reply_crashes_the_parser_and_no_score_leaves_the_grid(reply):
    for verdict in (parse_reply(reply, nonce="n"), *parse_joint(reply, finished=True).values()):
        assert isinstance(verdict, Missing) or verdict.score in GRID


STYLES = (
    "Score: {}",
    "**Answer:** {}.",
    "得分：{}",
    "some reasons first.\n\nFinal score: {}",
    '{{"reason": "r", "score": "{}"}}',
    '```json\n{{"score": "{}"}}\n```',
    "<think>x</think>{}",
)


def written(score: float) -> list[str]:
    quarters = round(score * 4)
    plain = f"{score:g}"
    return [
        plain,
        f"{score:.2f}",
        plain.replace(".", ","),
        plain.removeprefix("0") or "0",
        f"{quarters}/4",
        f"{score:.0%}",
    ]


@given(st.sampled_from(GRID), st.integers(0, 5), st.sampled_from(STYLES))
@settings(max_examples=200)
def test_every_way_of_writing_gives_the_score_that_was_meant(score, way, style):
    assert parse_reply(style.format(written(score)[way]), finished=True).score == score


@given(st.sampled_from(GRID), st.integers(0, 5), st.sampled_from(STYLES), st.integers(1, 60))
@settings(max_examples=300)
def test_a_reply_cut_anywhere_gives_no_other_score(score, way, style, at):
    cut = parse_reply(style.format(written(score)[way])[:at])
    assert isinstance(cut, Missing) or cut.score == score


@given(st.sampled_from(GRID), st.sampled_from(GRID), st.sampled_from(STYLES[:4]))
def test_two_different_verdicts_are_never_one(first, second, style):
    verdict = parse_reply(style.format(f"{first:.2f}") + "\n" + style.format(f"{second:.2f}"))
    assert (verdict.score == first) if first == second else isinstance(verdict, Missing)


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers())
def test_a_number_off_the_grid_is_missing_and_never_rounded(number):
    verdict = parse_reply(json.dumps({"score": number}))
    assert isinstance(verdict, Verdict) == (number in GRID)


HEAVY = (
    "{",
    '{"a":',
    "Score: ",
    "the ",
    "\n",
    "the\n",
    "Score:\n",
    "1/",
    "0.5 ",
    "Score: 0.5\n",
    "> ",
    "# ",
    "<think>",
    "(",
    "* ",
)


def test_reading_takes_time_in_proportion_to_length():
    start = time.perf_counter()
    for piece in HEAVY:
        parse_reply(piece * (LONGEST // len(piece)), nonce="n")
    assert time.perf_counter() - start < 5


def test_values_are_read_exactly():
    assert read_value("3/4") == 0.75
    assert isinstance(read_value("three quarters"), str)
    assert re.match("not a number", read_value([1]))
