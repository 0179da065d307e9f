"""What code finds wrong with a draft, without asking anybody."""

import dataclasses

import pytest

from evads_jax.benchmark.qa import checks
from evads_jax.benchmark.qa.checks import Limits, check, duplicates, leaked, similarity
from evads_jax.benchmark.qa.draft import Draft, Evidence
from evads_jax.data.records import Event

EVENTS = (Event(0, 1, ("半价",), "这款红色水壶"), Event(2, 3, ("限时特价",), "只要四十九元"))
SPOKEN = Evidence("it is said", "asr", 0, 1, "红色水壶")
WRITTEN = Evidence("it is written", "ocr", 2, 3, "限时特价")
SEEN = Evidence("it is seen", "visual", 1, 1, frames=(1.0,))
GOOD = Draft("CM", "说到这款产品时，画面上写着什么？", "半价。", "画面写着半价。", (SPOKEN, WRITTEN, SEEN))


def verdict(frames=(0.5, 1.2), **changes):
    return check(dataclasses.replace(GOOD, **changes), EVENTS, 4.0, frames, Limits())


def test_a_draft_with_good_evidence_passes():
    assert verdict() == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ledger": ()}, checks.NO_EVIDENCE),
        ({"ledger": (dataclasses.replace(SPOKEN, end=9.0),)}, checks.SPAN),
        ({"ledger": (dataclasses.replace(SPOKEN, start=1.0, end=0.0),)}, checks.SPAN),
        ({"ledger": (dataclasses.replace(SPOKEN, quote="蓝色茶壶"),)}, checks.NOT_FOUND),
        ({"ledger": (dataclasses.replace(SPOKEN, modality="ocr"),)}, checks.NOT_FOUND),
        ({"ledger": (dataclasses.replace(SPOKEN, quote="。"),)}, checks.NO_QUOTE),
        ({"ledger": (dataclasses.replace(SEEN, frames=()),)}, checks.NO_FRAMES),
        ({"ledger": (dataclasses.replace(SEEN, frames=(3.0,)),)}, checks.NO_FRAMES),
        ({"ledger": (SPOKEN,)}, checks.MODALITY),
        ({"answer": "好" * 101}, checks.ANSWER),
        ({"answer": "。"}, checks.ANSWER),
        ({"question": "什么？"}, checks.QUESTION),
        ({"question": "画面上写着半价优惠四个字的是什么？", "answer": "半价优惠。"}, checks.LEAK),
    ],
)
def test_everything_else_is_rejected_with_its_reason(changes, reason):
    assert verdict(**changes) == reason
    assert reason in checks.REASONS


def test_a_writer_that_saw_no_frames_can_claim_nothing_visual():
    assert verdict(frames=()) == checks.NO_FRAMES


def test_only_cross_modal_questions_need_two_modalities():
    assert verdict(task="BP", ledger=(SPOKEN,)) == ""


def test_a_leak_is_the_answer_in_a_row_or_most_of_its_words():
    leak = dataclasses.replace(
        GOOD, question="Is the kettle that is red and shiny cheap?", answer="The red, shiny kettle"
    )
    assert leaked(leak)
    assert not leaked(dataclasses.replace(leak, answer="It costs 49 yuan and is blue"))
    assert not leaked(dataclasses.replace(leak, question="Is it red or blue?", answer="Red"))


def test_near_duplicates_are_found_by_pairs_of_words():
    assert similarity("What colour is the kettle?", "what colour is the KETTLE") == 1
    assert similarity("这款水壶是什么颜色？", "这款水壶是什么材质？") == pytest.approx(6 / 10)
    others = ["What is said about the price?", "What colour is the kettle?"]
    assert duplicates("What colour is the kettle, then?", others, Limits())
    assert not duplicates("Which brand is it?", others, Limits())
    assert similarity("", "") == 1
