"""Tables in four formats."""

from evads_jax.density.measurement import Measurement
from evads_jax.density.report.corpus import corpus_summary
from evads_jax.density.report.tables import FORMATS, HEAD, comparison_rows, density_rows, difference_rows

RULES = {"V_den": "50 % | a_b", "A_den": "words", "O_den": "words"}
VIDEOS = [Measurement(str(i), "甲" if i else None, 1.0, {"A_den": float(i)}, {"V_den": "why"}) for i in range(4)]


def test_every_format_holds_every_number():
    summary = corpus_summary(VIDEOS, RULES, 50, 0, 4)
    rows = density_rows("mine", summary)
    assert [r[1] for r in rows] == ["V_den", "A_den", "O_den"]
    assert rows[1][2] == "1.50"
    assert rows[0][2] == "–"
    for form in FORMATS.values():
        text = form(HEAD, rows)
        assert "1.50" in text
        assert text.count("mine") == 3
    assert r"50 \% | a\_b" in FORMATS["tex"](HEAD, rows)
    assert r"50 % \| a_b" in FORMATS["md"](HEAD, rows)


def test_categories_have_rows_of_their_own_and_reasons_are_counted():
    summary = corpus_summary(VIDEOS, RULES, 50, 0, 4)
    assert summary["V_den"]["missing"] == {"why": 4}
    assert summary["O_den"]["missing"] == {"not measured": 4}
    assert {r[0] for r in density_rows("mine", summary, categories=True)} == {"mine / 甲", "mine / unknown"}
    assert summary["A_den"]["categories"]["甲"]["mean"] == 2.0


def test_the_corpus_stands_below_the_seven_published_benchmarks():
    rows = comparison_rows("mine", corpus_summary(VIDEOS, RULES, 50, 0, 4))
    assert len(rows) == 8
    assert rows[6] == ["E-VAds", "60.44", "5.08", "18.66"]
    assert rows[7] == ["mine", "–", "1.50", "–"]


def test_a_reason_is_counted_without_what_is_one_videos_own():
    spoiled = [Measurement(name, None, 1.0, {}, {"A_den": f"unreadable transcript: {name}.srt"}) for name in "ab"]
    assert corpus_summary(spoiled, RULES, 50, 0, 4)["A_den"]["missing"] == {"unreadable transcript": 2}


def test_a_difference_has_its_interval_its_p_and_both_counts():
    found = {"mean": 1.234, "ci95": (0.5, 2.0), "p_value": 0.0123, "n": (7, 4), "paired": False}
    absent = {"mean": None, "ci95": None, "p_value": None, "n": (0, 0), "paired": True}
    assert difference_rows({"A_den": found, "O_den": absent}) == [
        ["A_den", "1.23", "[0.50, 2.00]", "0.0123", "4", "7", "two samples"],
        ["O_den", "–", "–", "–", "0", "0", "video by video"],
    ]
