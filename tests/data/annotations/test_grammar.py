"""The text grammar: typed fields give back the released text, and nothing else is accepted."""

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.data.annotations import FILES, Malformed, grammar, read_rl, read_sft
from evads_jax.data.prompts import render
from evads_jax.data.records import Event

TEXT = st.text(st.characters(blacklist_characters="\n", blacklist_categories=["Cs"]), max_size=12)
HOSTILE = st.sampled_from(
    ["] ; ASR Text: ", "]", "[", '"', "|", "| a |", "Time 3s: ", "<think>", "Question: ", "；", ""]
)
ITEM = st.one_of(TEXT, HOSTILE, st.builds(str.__add__, TEXT, HOSTILE)).filter(lambda t: " | " not in f" {t} ")
SPEECH = TEXT.filter(lambda t: '"' not in t)


@st.composite
def events(draw, ocr: bool = True):
    start = draw(st.integers(0, 300))
    items = tuple(draw(st.lists(ITEM, max_size=4))) if ocr else ()
    asr = draw(SPEECH if not items else st.none() | SPEECH)
    return Event(start, start + draw(st.sampled_from([0, 0, 1, 7])), items, asr)


@given(events())
def test_an_event_line_gives_back_its_event(event):
    assert grammar.parse_line(grammar.format_line(event)) == event


@given(
    st.lists(events(), max_size=5),
    st.none() | st.integers(0, 999),
    st.sampled_from(["家用电器", "食品生鲜 & 医药保健"]),
)
def test_an_sft_prompt_gives_back_its_fields(lines, duration, category):
    text = "<video>" + grammar.sft_prompt(category, duration, lines, "这是什么？").text
    assert grammar.parse_sft_prompt(text) == grammar.ParsedText(category, duration, tuple(lines), "这是什么？")


@given(st.lists(events(ocr=False), max_size=5), st.none() | st.integers(0, 999), SPEECH)
def test_an_rl_prompt_gives_back_its_fields(lines, duration, question):
    text = "<video>" + grammar.rl_prompt(duration, lines, question).text
    assert grammar.parse_rl_prompt(text) == grammar.ParsedText(None, duration, tuple(lines), question)


@given(st.lists(events(), max_size=5), st.integers(0, 999))
def test_a_meta_info_gives_back_its_fields(lines, duration):
    text = grammar.format_meta("其他", duration, lines)
    assert grammar.parse_meta(text) == grammar.ParsedText("其他", duration, tuple(lines))


def test_the_grammar_writes_what_was_released():
    lines = [Event(0, 0, ("限时 5 折", "a|b"), "天气"), Event(23, 25, ("EXIT",)), Event(26, 26, asr="好")]
    sft = grammar.sft_prompt("美容彩妆", 27, lines, "是什么？").text
    assert sft.startswith(
        "Category: 美容彩妆\nDuration: 27s\n\n[Time-aligned Events]:\n"
        'Time 0s: OCR Text: [限时 5 折 | a|b] ; ASR Text: "天气"\n'
        'Time 23-25s: OCR Text: [EXIT]\nTime 26s: ASR Text: "好"\n是什么？\n\nYou are permitted to gather'
    )
    rl = grammar.rl_prompt(27, [Event(0, 0, asr="天气")], "是什么？").text
    assert rl.startswith(
        "Voiceover: Duration: 27s\n\n[Time-aligned Events]:\n"
        'Time 0s: Audio Speech: "天气"\n\n Question: 是什么？\nYou are '
    )


@pytest.mark.parametrize(
    "line",
    [
        'Time 1s: Audio: "a"',
        "Time 1s: ",
        "1s: OCR Text: [a]",
        "Time 5-3s: OCR Text: [a]",
        "Time 5-5s: OCR Text: [a]",
        "Time 05s: OCR Text: [a]",
        "Time ٣s: OCR Text: [a]",
        "Time 1s: OCR Text: [a",
        'Time 1s: OCR Text: [a] ASR Text: "b"',
        'Time 1s:  ; ASR Text: "b"',
        "Time 1s: OCR Text: [a] ; ",
        'Time 1s: ASR Text: "a" b"',
    ],
)
def test_a_line_of_another_form_is_malformed(line):
    with pytest.raises(Malformed):
        grammar.parse_line(line)


@pytest.mark.parametrize(
    ("old", "new"), [("<video>", ""), ("Duration: 9s", "Duration: 9"), ("within", "in"), ("Events]", "Event]")]
)
def test_a_prompt_of_another_form_is_malformed(old, new):
    text = "<video>" + grammar.sft_prompt("其他", 9, [Event(0, 0, ("a",))], "问？").text
    grammar.parse_sft_prompt(text)
    with pytest.raises(Malformed):
        grammar.parse_sft_prompt(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [("Duration: 9s", "Category: x\nDuration: 9s"), ("9s", "09s"), ("Voiceover: ", ""), ("\n Question", "")],
)
def test_an_rl_prompt_of_another_form_is_malformed(old, new):
    text = "<video>" + grammar.rl_prompt(9, [Event(0, 0, asr="a")], "问？").text
    grammar.parse_rl_prompt(text)
    with pytest.raises(Malformed):
        grammar.parse_rl_prompt(text.replace(old, new))


@pytest.mark.parametrize(("old", "new"), [("9s", "09s"), ("\n\n", "\n"), ("Time-", ""), ("Category", " Category")])
def test_a_meta_info_of_another_form_is_malformed(old, new):
    text = grammar.format_meta("其他", 9, [Event(0, 0, ("a",))])
    grammar.parse_meta(text)
    with pytest.raises(Malformed):
        grammar.parse_meta(text.replace(old, new))


@given(TEXT, TEXT)
def test_a_target_gives_back_clues_and_answer(clues, answer):
    assert grammar.parse_target(grammar.format_target(clues, answer)) == (clues, answer)


def test_clues_with_a_tag_make_no_target():
    with pytest.raises(Malformed):
        grammar.format_target("a</think>", "b")
    with pytest.raises(Malformed):
        grammar.parse_target("<think>a<answer></think>\n<answer>b</answer>")


def test_the_typed_fields_give_back_every_released_prompt_and_meta_info(released_annotations):
    counts = {"prompts": 0, "meta_info": 0}
    for kind, read in (("sft", read_sft), ("rl", read_rl)):
        path = released_annotations / FILES[kind]
        annotations = read(path)
        assert not annotations.bad
        rows = pq.read_table(path).to_pylist()
        for row, example in zip(rows, annotations.examples, strict=True):
            assert "<video>" + render(example, f"{kind}_released", "zh").text == row["prompt"][0]["content"]
            counts["prompts"] += 1
            if kind == "rl":
                meta = grammar.format_meta(example.category, example.duration, example.evidence)
                assert meta == row["reward_model"]["verifier"][0]["meta_info"]
                counts["meta_info"] += 1
    assert counts == {"prompts": 2860, "meta_info": 980}
