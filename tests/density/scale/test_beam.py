"""Apache Beam writes what the local processes write."""

import pytest

from density.films import settings_of
from density.scale.test_local import SETTINGS, copies, files, first_part_broken
from evads_jax.density.items import from_videos
from evads_jax.density.scale import beam
from evads_jax.density.scale.beam import MeasurePart, run_beam
from evads_jax.density.scale.local import run_local
from evads_jax.density.scale.parts import partition
from evads_jax.density.settings import MeasureSettings
from evads_jax.errors import UserError

TWO_PROCESSES = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
RUNNERS = pytest.mark.parametrize(
    "options", [(), pytest.param(TWO_PROCESSES, marks=pytest.mark.slow)], ids=["in_process", "two_processes"]
)
needs_beam = pytest.mark.skipif(beam.beam is None, reason="needs the extra beam")


@needs_beam
@RUNNERS
def test_beam_gives_the_bytes_of_the_local_processes_and_skips_what_is_done(tmp_path, options):
    parts = partition(from_videos(copies(tmp_path / "videos", 20, broken_every=10)).items, 6)
    run_local(parts, SETTINGS, tmp_path / "local", workers=0, max_bad_share=0.2)
    run_local(parts[:1], SETTINGS, tmp_path / "beam", workers=0, max_bad_share=0.2)
    marked = parts[0].done(tmp_path / "beam")
    before = marked.stat().st_mtime_ns
    run_beam(parts, SETTINGS, tmp_path / "beam", options=options, max_bad_share=0.2)
    assert files(tmp_path / "beam") == files(tmp_path / "local")
    assert marked.stat().st_mtime_ns == before


@needs_beam
@RUNNERS
def test_beam_stops_when_too_many_fail(tmp_path, options):
    parts = partition(from_videos(copies(tmp_path / "videos", 8, broken_every=2)).items, 4)
    with pytest.raises(UserError, match=r"^(\d) of 8 videos failed \(\1 truncated\) .* what was measured is kept$"):
        run_beam(parts, SETTINGS, tmp_path / "beam", options=options, max_bad_share=0.1)


@needs_beam
def test_a_beam_worker_that_cannot_load_its_tools_says_so_in_one_line(tmp_path):
    settings = MeasureSettings.from_config(settings_of(**{"visual.features": "dinov3"}))
    parts = partition(from_videos(copies(tmp_path / "videos", 2)).items, 4)
    with pytest.raises(UserError, match=r"^no DINOv3 weights .*\bset visual\.features to blocks$"):
        run_beam(parts, settings, tmp_path / "beam", options=(), max_bad_share=0.1)


def test_without_the_extra_it_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(beam, "beam", None)
    with pytest.raises(UserError, match=r"evads_jax\[beam\]"):
        run_beam([], SETTINGS, tmp_path, options=(), max_bad_share=0.1)


def test_a_part_without_any_media_spoils_no_other(tmp_path):
    parts = first_part_broken(tmp_path)
    run_local(parts, SETTINGS, tmp_path / "local", workers=0, max_bad_share=0.9)
    (tmp_path / "beam").mkdir()
    made = MeasurePart(SETTINGS, str(tmp_path / "beam"), 3, 0.9, True)
    for part in parts:
        list(made.process(part))
    made.teardown()
    assert files(tmp_path / "beam") == files(tmp_path / "local")
