"""The speed of density: the command runs to its end on tiny sizes and fills its block of the page."""

import dataclasses
import re
import shutil
import sys
from pathlib import Path

import jax
import numpy as np

from benchmarks import density
from evads_jax.data import media
from evads_jax.models.dinov3.model import forward
from evads_jax.models.dinov3.parameters import init

PAGE = Path(__file__).parents[2] / "docs" / "density.md"
BLOCK = re.compile("(?<=<!-- begin speed -->\n).*(?=<!-- end speed -->)", re.DOTALL)


def test_the_command_fills_its_block_and_goes_on_from_its_file(tmp_path, monkeypatch, capsys):
    page = Path(shutil.copy(PAGE, tmp_path))
    options = ["--quick", "--videos=2", "--rounds=1", f"--page={page}", f"--out={tmp_path / 'density.json'}"]
    monkeypatch.setattr(sys, "argv", ["density", *options])
    density.main()
    assert capsys.readouterr().out.count("…") == 3
    text = page.read_text(encoding="utf-8")
    assert BLOCK.sub("", text) == BLOCK.sub("", PAGE.read_text(encoding="utf-8"))
    [block] = BLOCK.findall(text)
    for line in (
        "decode",
        "features",
        "OCR",
        "ASR",
        "kernel",
        "all",
        "videos a second and core",
        "core hours for a million",
    ):
        assert f"\n| {line}" in block, line
    density.main()
    assert "…" not in capsys.readouterr().out
    assert page.read_text(encoding="utf-8") == text


def test_the_stages_are_parts_of_the_whole_and_what_is_absent_is_said(tmp_path):
    found = density.stage_times(tmp_path, 1, 1, density.QUICK, None)
    assert 0 < found["decode"] + found["features"] < found["all"]
    assert found["ASR"] is None
    table = density.stage_table(found | {"OCR": None, "all": 0.5, "wall": 0.25})
    assert "| ASR | not here" in table
    assert "not here: the extra ocr" in table
    assert "| videos a second and core | 2 |" in table
    assert "one process on all cores | 4 |" in table
    assert "| core hours for a million videos of 6 seconds | 139 |" in table


def test_a_film_is_six_seconds_that_are_never_still(tmp_path):
    played = media.decode(density.film(tmp_path, 0, 64), density.FILM_RATE, 1000, 64)
    assert played.duration == 6
    assert len(played.frames) == 144
    assert len(played.audio) == 6 * media.SAMPLE_RATE
    assert all((a != b).any() for a, b in zip(played.frames, played.frames[1:], strict=False))


def test_ours_stand_beside_theirs_with_the_ratio():
    encoder = {"evads_jax": 6.0, "transformers": 4.0, "peak": 8.0, "batch": 8, "image": 224, "width": 768}
    kernel = {"evads_jax": 20.0, "NumPy": 50.0, "frames": 7200}
    table = density.pair_table(encoder, kernel)
    assert "| 6 | transformers 4 | 1.50× |" in table
    assert "machine's fastest 8 | 0.75× |" in table
    assert "| 20 | NumPy 50 | 2.50× |" in table
    assert "transformers not here" in density.pair_table(encoder | {"transformers": None}, kernel)


def test_the_operations_of_a_frame_are_those_that_the_compiler_counts():
    config = density.QUICK.encoder
    params = jax.eval_shape(lambda: init(config, jax.random.key(0)))
    image = jax.ShapeDtypeStruct((1, density.QUICK.image, density.QUICK.image, 3), np.float32)
    counted = jax.jit(lambda p, x: forward(p, config, x)).lower(params, image).compile().cost_analysis()["flops"]
    # Of a loop the compiler counts one turn.
    products = density.frame_flops(dataclasses.replace(config, layers=1), density.QUICK.image)
    assert products < counted < 1.2 * products
