"""Prompts: what each format shows, what fitting drops, and how completions are read."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.data import prompts
from evads_jax.data.prompts import FORMATS, LANGUAGES, PromptText, fit, fit_together, parse_completion, render
from evads_jax.data.records import Event, Example, Question
from evads_jax.errors import UserError

EVENTS = (
    Event(0, 0, ("OVERLAY",), "天气越来越干"),
    Event(1, 2, asr="燥了 so"),
    Event(3, 3, ("OVERLAY",)),
    Event(4, 4, asr="dry"),
)
EXAMPLE = Example(
    Question("1", "哪种颜色？", "红色。", "镜头"), "v.mp4", "其他", 5, EVENTS, (Event(0, 0, ("SECRET",)),)
)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("format", FORMATS)
def test_a_prompt_is_its_parts_and_never_shows_what_only_the_judge_sees(format, language):
    prompt = render(EXAMPLE, format, language)
    assert prompt.text == prompt.prefix + prompt.suffix
    assert EXAMPLE.question.question in prompt.suffix
    assert "SECRET" not in prompt.text
    assert EXAMPLE.question.answer not in prompt.text


@pytest.mark.parametrize("format", FORMATS)
def test_the_prefix_is_the_same_for_every_question_of_a_video(format):
    other = dataclasses.replace(EXAMPLE, question=Question("2", "为什么？", "因为。"))
    a, b = render(EXAMPLE, format, "zh"), render(other, format, "zh")
    assert a.prefix == b.prefix
    assert a.suffix != b.suffix


@pytest.mark.parametrize(
    ("format", "shown"), [("sft_released", 2), ("rl_released", 0), ("eval_released", 0), ("asr_ocr", 2)]
)
def test_only_two_formats_show_overlay_text(format, shown):
    assert render(EXAMPLE, format, "en").text.count("OVERLAY") == shown


def test_a_second_without_speech_has_no_line_in_an_rl_prompt():
    assert len(render(EXAMPLE, "rl_released", "zh").events) == 3
    assert '""' not in render(EXAMPLE, "rl_released", "zh").text


def test_the_evaluation_prompt_is_running_speech_a_blank_line_the_request_and_the_question():
    speech, _, rest = render(EXAMPLE, "eval_released", "zh").text.partition("\n\n")
    assert speech == "天气越来越干燥了 so dry"
    assert rest.endswith("within 50 words.\n哪种颜色？")


def test_language_sets_the_unit_of_our_own_format_and_leaves_released_text_alone():
    assert "约50字" in render(EXAMPLE, "asr_ocr", "zh").text
    assert "50 words" in render(EXAMPLE, "asr_ocr", "en").text
    for format in ("sft_released", "rl_released", "eval_released"):
        assert render(EXAMPLE, format, "zh") == render(EXAMPLE, format, "en")


def test_unknown_category_duration_and_events_leave_no_hole():
    bare = Example(EXAMPLE.question, "v.mp4")
    assert render(bare, "sft_released", "zh").text.startswith("[Time-aligned Events]:\n哪种颜色？")
    assert "None" not in "".join(render(bare, format, "zh").text for format in FORMATS)


def test_unknown_format_or_language_is_a_users_error():
    with pytest.raises(UserError, match="sft_released"):
        render(EXAMPLE, "sft", "zh")
    with pytest.raises(UserError, match="zh, en"):
        render(EXAMPLE, "asr_ocr", "de")


LINES = st.lists(st.text("ab \n", min_size=1, max_size=9), max_size=30)


@given(LINES, st.integers(0, 150))
def test_fitting_drops_whole_lines_in_order_and_only_when_it_must(lines, budget):
    prompt = PromptText("HEAD", tuple(lines), "TAIL", "QUESTION", "CLOSING")
    least = len("HEADTAILQUESTIONCLOSING")
    if budget < least and budget < len(prompt.text):
        with pytest.raises(UserError, match="prompt_tokens"):
            fit(prompt, budget, len)
        return
    fitted, dropped = fit(prompt, budget, len)
    assert len(fitted.text) <= budget
    assert dropped == len(lines) - len(fitted.events)
    assert dropped == 0 or len(prompt.text) > budget
    assert (fitted.head, fitted.tail, fitted.suffix) == (prompt.head, prompt.tail, prompt.suffix)
    remaining = iter(prompt.events)
    assert all(event in remaining for event in fitted.events)  # a subsequence: time order is kept
    if dropped and len({len(line) for line in lines}) == 1:  # equal lines: not one more would have fitted
        assert len(fitted.text) + len(lines[0]) > budget


def test_the_lines_that_stay_are_spread_over_the_video():
    prompt = PromptText("", tuple(f"{i:03d}\n" for i in range(100)), "", "", "")
    fitted, dropped = fit(prompt, 4 * 10, len)
    kept = [int(line) for line in fitted.events]
    assert dropped == 90
    assert max(b - a for a, b in zip([0, *kept], [*kept, 99], strict=True)) <= 17


def test_counting_grows_with_the_lines_not_with_their_square():
    for n in (50, 400):
        read = []
        prompt = PromptText("", ("line \n",) * n, "", "question", "")
        fit(prompt, 6 * n // 2, lambda text, read=read: read.append(len(text)) or len(text))
        assert sum(read) <= 4 * len(prompt.text)


def test_seams_between_lines_never_break_the_budget():
    def count(text: str) -> int:  # a whole costs more than its parts: three tokens at every seam
        return len(text) + 3 * text.count("\n")

    prompt = PromptText("h", tuple("abc\n" for _ in range(40)), "t", "q", "")
    per_part = {line: len(line) for line in prompt.events}
    fitted, _ = fit(prompt, 60, lambda text: per_part.get(text, count(text)))
    assert 0 < count(fitted.prefix) + count(fitted.suffix) <= 60
    assert fitted.events


def test_the_questions_of_one_video_lose_the_same_lines():
    short = PromptText("", tuple(f"{i}\n" for i in range(9)), "", "q", "")
    long = dataclasses.replace(short, question="a longer question")
    (a, b), dropped = fit_together([short, long], 23, len)
    assert a.prefix == b.prefix
    assert dropped == 6
    with pytest.raises(ValueError, match="equal before the question"):
        fit_together([short, dataclasses.replace(short, head="x")], 23, len)


def test_a_target_is_a_well_formed_completion():
    parsed = parse_completion(prompts.target(EXAMPLE.question))
    assert parsed == prompts.Completion("镜头", "红色。", True)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("x<think>a</think>\n<answer>b</answer>", "b"),  # text before
        ("<think>a</think>\n<answer>b</answer> and more", "b"),  # text after
        ("<think>a</think> so <answer>b</answer>", "b"),  # text between
        ("<think>a<think>c</think></think><answer>b</answer>", "b"),  # nesting
        ("<think>a<answer>c</answer></think><answer>b</answer>", "c"),
        ("<think>a</think><answer>b</answer><answer>c</answer>", "b"),  # duplicates
        ("<think>a</think><think>a</think><answer>b</answer>", "b"),
        ("<answer>b</answer><think>a</think>", "b"),  # order
        ("<answer>b</answer>", "b"),
        ("<think>a</think><answer>b", "b"),  # cut off
        ("<think>a</think> b", "b"),
        ("<think>a", ""),
        ("b", "b"),
        ("", ""),
        ("<think></think><answer>b</answer>", "b"),  # empty trace
        ("<think>a</think><answer> </answer>", ""),  # empty answer
        ("<THINK>a</THINK><answer>b</answer>", "b"),
    ],
)
def test_a_broken_form_is_not_well_formed_and_its_answer_is_the_best_guess(text, answer):
    parsed = parse_completion(text)
    assert not parsed.well_formed
    assert parsed.answer == answer


@given(st.lists(st.sampled_from([*prompts.TAGS, "a", " ", "\n", "b<"]), max_size=9).map("".join))
def test_any_text_is_read_without_tags_and_well_formed_only_with_each_tag_once_in_order(text):
    parsed = parse_completion(text)
    assert not any(tag in parsed.answer + parsed.trace for tag in prompts.TAGS)
    if parsed.well_formed:
        assert [text.count(tag) for tag in prompts.TAGS] == [1, 1, 1, 1]
        assert sorted(prompts.TAGS, key=text.index) == list(prompts.TAGS)
        assert text.startswith(("<think>", " ", "\n"))
