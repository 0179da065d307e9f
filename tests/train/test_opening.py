"""How a job begins."""

import io

from rich.console import Console

from evads_jax.train.opening import teller


def test_of_progress_lines_one_a_second_is_printed_and_no_other_line_is_lost():
    out = io.StringIO()
    say = teller(Console(file=out, width=200))
    told = (
        "test: 3 of 50 videos are broken and left out, the first x.mp4: empty",
        "5 of 9 rows were refused: see above",
    )
    for line in ("test: 1 of 50 videos", *told, "test: 2 of 50 videos", "1,000 of 2,000 attacked candidates", *told):
        say(line)
    shown = [line.strip().partition("  ")[2] for line in out.getvalue().splitlines()]
    assert shown == ["test: 1 of 50 videos", *told, *told]


def test_what_a_line_quotes_is_printed_as_it_is():
    out = io.StringIO()
    said = "3 rows are malformed, the first: q.jsonl, row 4: {'ocr': ['[/url]', '[sale]']}"
    teller(Console(file=out, width=200))(said)
    assert said in out.getvalue()
