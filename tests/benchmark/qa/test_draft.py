"""What writers reply is read field by field; what is not as asked for is malformed, with a reason of our own."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.benchmark.qa.draft import (
    Candidate,
    Draft,
    Evidence,
    MalformedReply,
    candidate_from_json,
    read_drafts,
    read_object,
    to_json,
)

FIELDS = {
    "task": "BP",
    "question": "What is written?",
    "answer": "SALE",
    "clues": "It says so.",
    "ledger": [{"claim": "c", "modality": "OCR", "start": 1, "quote": "SALE"}],
}


def reply(**changes):
    return json.dumps({"drafts": [{**FIELDS, **changes}]})


def test_drafts_are_read_in_a_fence_and_after_a_reasoning_block():
    (draft,) = read_drafts(f"<think>{{'no': 1}}</think>Here:\n```json\n{reply()}\n```")
    assert draft == Draft("BP", "What is written?", "SALE", "It says so.", (Evidence("c", "ocr", 1.0, 1.0, "SALE"),))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        reply()[:-5],
        "[1]",
        '{"drafts": {}}',
        reply(task="XX"),
        reply(answer=" "),
        reply(question=3),
        reply(ledger="none"),
        reply(ledger=[{"modality": "smell", "start": 1}]),
        reply(ledger=[{"modality": "ocr", "start": "1"}]),
        reply(ledger=[{"modality": "ocr", "start": True}]),
        '{"drafts": [{"task": "BP", "ledger": [{"start": NaN}]}]}',
        "{" * 3000 + '"a":' * 3000,
    ],
)
def test_what_is_no_draft_is_malformed(text):
    with pytest.raises(MalformedReply):
        read_drafts(text)


def test_a_good_draft_counts_beside_a_bad_one_and_one_draft_per_task():
    rows = [{**FIELDS, "answer": ""}, FIELDS, {**FIELDS, "answer": "second"}]
    (draft,) = read_drafts(json.dumps({"drafts": rows}))
    assert draft.answer == "SALE"
    assert read_drafts('{"drafts": []}') == []


def test_texts_lose_line_ends_and_answer_tags():
    (draft,) = read_drafts(reply(answer="<answer>SALE\n now</answer>\ud800"))
    assert draft.answer == "SALE now ?"


@given(st.text())
def test_no_reply_crashes_the_reader(text):
    for body in (text, "{" + text, reply(answer=text)):
        try:
            read_object(body)
            read_drafts(body)
        except MalformedReply:
            pass


def test_candidates_survive_the_disk():
    (draft,) = read_drafts(reply(ledger=[{"modality": "visual", "start": 0, "end": 2, "frames": [1, 1.5]}]))
    candidate = Candidate("consumer-BP", "consumer", draft, "vague", "withdrawn")
    assert candidate_from_json(json.loads(json.dumps(to_json(candidate)))) == candidate
