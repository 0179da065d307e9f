"""Decoding in a guarded process."""

import os
import signal

import numpy as np
import pytest

from density.films import film
from evads_jax.data import media
from evads_jax.density.scale.decoder import Failure, GuardedDecoder


@pytest.fixture
def decoder():
    found = GuardedDecoder(seconds=30, mebibytes=4096)
    yield found
    found.close()


def test_a_guarded_file_decodes_to_what_the_plain_decoder_gives(tmp_path, decoder):
    path = film(tmp_path / "a.mp4", scenes=2, audio=True)
    guarded, plain = decoder(str(path), 2, 100, 64), media.decode(path, 2, 100, 64)
    assert guarded.times == plain.times
    assert guarded.duration == plain.duration
    assert np.array_equal(guarded.frames, plain.frames)
    assert np.array_equal(guarded.audio, plain.audio)


def test_a_bad_file_is_a_failure_and_the_next_file_decodes(tmp_path, decoder):
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert decoder(str(tmp_path / "empty.mp4"), 2, 100, 64).kind == "empty"
    assert decoder(str(tmp_path / "none.mp4"), 2, 100, 64).kind == "missing"
    assert len(decoder(str(film(tmp_path / "a.mp4", scenes=1)), 2, 100, 64).frames) == 12


def test_a_decoder_that_is_killed_is_replaced(tmp_path, decoder):
    path = str(film(tmp_path / "a.mp4", scenes=1))
    decoder(path, 2, 100, 64)
    os.kill(decoder._child.pid, signal.SIGSTOP)
    decoder._seconds = 0.3
    assert decoder(path, 2, 100, 64).kind == "timeout"
    decoder._seconds = 30
    assert len(decoder(path, 2, 100, 64).frames) == 12
    os.kill(decoder._child.pid, signal.SIGKILL)
    found = decoder(path, 2, 100, 64)
    assert isinstance(found, Failure) is (found == Failure("crashed", "the decoder ended with code -9"))
    assert len(decoder(path, 2, 100, 64).frames) == 12


def test_a_video_beyond_the_memory_limit_is_a_failure_of_that_kind(tmp_path):
    path = film(tmp_path / "a.mp4", scenes=1)
    small = GuardedDecoder(seconds=30, mebibytes=1500)
    found = small(str(path), 4, 24, 8192)
    small.close()
    assert isinstance(found, Failure)
    assert found.kind in ("memory", "crashed")
