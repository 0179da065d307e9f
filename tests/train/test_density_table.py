"""Measured corpora beside the published ones."""

import json

import pytest

from evads_jax.density.published import PUBLISHED
from evads_jax.errors import UserError
from evads_jax.train import density_table

FIGURES = {"mean": 5.0, "ci95": [4.5, 5.5], "n": 40, "n_missing": 2, "rule": "one word per character"}


def corpus(folder, name):
    (folder / "density").mkdir(parents=True)
    summary = {"V_den": FIGURES | {"mean": None, "ci95": None}, "A_den": FIGURES, "O_den": FIGURES}
    (folder / "density" / "corpus.json").write_text(json.dumps({name: summary, "comparison": {"with": "x"}}))
    (folder / "density" / "config.json").write_text(json.dumps({"name": name}))


def test_a_corpus_stands_with_interval_n_and_run_above_the_published_ones_which_are_marked(tmp_path, capsys):
    for name in ("ours", "theirs"):
        corpus(tmp_path / name, name)
    density_table.run({"runs": str(tmp_path / "*")}, tmp_path / "out")
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("| ")]
    assert lines[2].startswith("| ours | – | 5.000 [4.500, 5.500] n=40 (2 missing) |")
    assert "ours@" in lines[2]
    assert sum("(published)" in line for line in lines) == len(PUBLISHED)
    assert "| E-VAds (published) | 60.44 | 5.08 | 18.66 | published |" in out
    assert "one word per character" in out
    assert {path.suffix for path in (tmp_path / "out" / "tables").iterdir()} == {".md", ".csv", ".tex", ".html"}
    with pytest.raises(UserError, match="no measured corpus"):
        density_table.run({"runs": str(tmp_path / "out")}, tmp_path)
