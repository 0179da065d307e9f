"""The quote check over released clues: what is quoted is found where it is, and the tables add up."""

import dataclasses

import pytest

from evads_jax.benchmark.qa import measure_quotes
from evads_jax.benchmark.qa.measure_quotes import KINDS, LABELS, Quoted, quoted, read_labels, report, sample
from evads_jax.data.annotations import read_rl
from evads_jax.data.records import Event, Example, Question

EVENTS = (Event(0, 0, ("限时特价", "面料是亲肤螺纹棉的"), "一定要试试"), Event(1, 1, (), "这件半高领"))


def kinds(clues):
    example = Example(Question("q", "q", "a", clues), "v", events=EVENTS, judge_events=None)
    return [(quote.text, quote.kind, quote.places) for quote in quoted(example)]


def test_quoted_strings_are_looked_up_in_text_and_speech():
    assert kinds("写着“限时特价”，说“试试这件”，又写“轻肤螺纹棉”，属于“体感豁免”。") == [
        ("限时特价", "exact", ("ocr",)),
        ("试试这件", "exact", ("asr",)),
        ("轻肤螺纹棉", "fuzzy", ("ocr",)),
        ("体感豁免", "none", ()),
    ]


def test_a_string_in_parts_is_as_good_as_its_worst_part_and_single_letters_are_left_out():
    assert kinds("“限时……特价”“限时/半价”“卷”")[:2] == [("限时……特价", "exact", ("ocr",)), ("限时/半价", "none", ())]
    assert len(kinds("“限时……特价”“限时/半价”“卷”")) == 2


def test_the_tables_add_up_and_the_sample_is_the_same_every_time():
    found = [Quoted(str(i), str(i), "", KINDS[i % 3], ("ocr",) if i % 3 < 2 else ()) for i in range(30)]
    labels = {(quote.id, quote.text): "term" for quote in sample(found)[:4]}
    assert sample(found) == sample(list(found))
    table = report(found, labels, 30)
    assert "| exactly | 10 | 33.3% | 10 | 0 | 0 |" in table
    assert f"| {LABELS['term']} | 4 |" in table
    assert "| not labelled | 6 |" in table
    assert "not labelled" not in report(found, {(q.id, q.text): "term" for q in found}, 30)


def test_the_labels_are_known_ones():
    assert len(read_labels()) == measure_quotes.SAMPLE
    assert set(read_labels().values()) <= set(LABELS)


@pytest.mark.slow
def test_the_labelled_strings_are_the_released_rows_sample(released_annotations):
    examples = read_rl(released_annotations / "EVAds_RL.parquet").examples
    found = [quote for example in examples for quote in quoted(dataclasses.replace(example))]
    assert {(quote.id, quote.text) for quote in sample(found)} == set(read_labels())
