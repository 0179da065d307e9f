"""The page of measurements keeps its text and renews its blocks."""

import pytest

from evads_jax.density.measure_released import doubling_table, main, replace_block
from evads_jax.errors import UserError


def test_a_block_is_replaced_and_the_text_around_it_kept():
    page = "before\n<!-- begin a -->\nold\n<!-- end a -->\nafter"
    assert replace_block(page, "a", r"new \1") == "before\n<!-- begin a -->\nnew \\1\n<!-- end a -->\nafter"
    with pytest.raises(UserError, match="no block 'b'"):
        replace_block(page, "b", "")


def test_only_the_integral_form_does_not_move_when_frames_are_repeated():
    changes = [row.split("|")[4].strip() for row in doubling_table(videos=4).splitlines()[2:]]
    assert changes[-1] == "+0.0 %"
    assert all(abs(float(change.removesuffix(" %"))) > 5 for change in changes[:-1])


def test_the_committed_page_is_what_the_command_writes(released_annotations, tmp_path, request):
    page = request.config.rootpath / "docs" / "density.md"
    copy = tmp_path / "density.md"
    copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    main(["--annotations", str(released_annotations), "--out", str(copy)])
    assert copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
