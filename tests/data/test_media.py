"""Decoding: the right frame of each moment, and a typed failure for every file that gives none."""

from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evads_jax.data import media
from evads_jax.data.media import Media, MediaFailure


def grey(level: int) -> np.ndarray:
    return np.full((48, 64, 3), level, np.uint8)


def tone(seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * media.SAMPLE_RATE)) / media.SAMPLE_RATE
    return (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


def write_at(path, stamps, levels, end) -> None:
    """A video whose frames have the given presentation times in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for stamp, level in zip([*stamps, end], [*levels, levels[-1]], strict=True):
            frame = av.VideoFrame.from_ndarray(grey(level), format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def levels(taken: Media) -> list[int]:
    return [round(float(frame.mean()) / 10) * 10 for frame in taken.frames]


def test_frames_are_taken_by_presentation_time_not_by_number(tmp_path):
    """Twenty frames in the first second, one in each of the next two: counting would take three of the first."""
    stamps = [*range(0, 1000, 50), 1000, 2000]
    write_at(tmp_path / "vfr.mp4", stamps, [50] * 20 + [120, 200], 2990)
    taken = media.decode(tmp_path / "vfr.mp4", 1.0, 10, 64)
    assert taken.times[:3] == (0, 1, 2)
    assert levels(taken)[:3] == [50, 120, 200]


def test_between_two_frames_the_earlier_one_is_shown(tmp_path):
    write_at(tmp_path / "gap.mp4", [0, 2500], [50, 200], 3990)
    taken = media.decode(tmp_path / "gap.mp4", 1.0, 10, 64)
    assert levels(taken)[:4] == [50, 50, 50, 200]


def test_a_long_video_is_sampled_over_the_whole_of_it(tmp_path):
    media.write_mp4(tmp_path / "long.mp4", (grey(10 * k) for k in range(20)), 1)
    taken = media.decode(tmp_path / "long.mp4", 1.0, 5, 64)
    assert taken.times == (0, 4, 8, 12, 16)
    assert levels(taken) == [0, 40, 80, 120, 160]


def test_a_faster_rate_repeats_frames_and_never_invents_time(tmp_path):
    media.write_mp4(tmp_path / "slow.mp4", [grey(50), grey(200)], 1)
    taken = media.decode(tmp_path / "slow.mp4", 2.0, 100, 64)
    assert taken.times == (0, 0.5, 1, 1.5)
    assert levels(taken) == [50, 50, 200, 200]


def test_a_last_frame_that_states_to_stay_long_is_the_end_of_a_whole_video(tmp_path):
    with av.open(str(tmp_path / "card.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        packets = []
        for k in range(3):
            frame = av.VideoFrame.from_ndarray(grey(50 + 60 * k), format="rgb24")
            frame.pts, frame.time_base = 100 * k, Fraction(1, 100)
            packets += stream.encode(frame)
        packets += stream.encode()
        for packet, seconds in zip(packets, (1, 1, 5), strict=True):
            packet.duration = round(seconds / packet.time_base)
            container.mux(packet)
    taken = media.decode(tmp_path / "card.mp4", 1.0, 10, 64)
    assert taken.duration == 7
    assert levels(taken) == [50, 110, *[170] * 5]


def test_sound_that_goes_on_behind_the_pictures_makes_no_video_truncated(tmp_path):
    path = tmp_path / "longer.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=5)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        sound = container.add_stream("flac", rate=media.SAMPLE_RATE, layout="mono")
        for _ in range(10):
            container.mux(video.encode(av.VideoFrame.from_ndarray(grey(90), format="rgb24")))
        container.mux(video.encode())
        frame = av.AudioFrame.from_ndarray((tone(4) * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = media.SAMPLE_RATE, 0
        container.mux([*sound.encode(frame), *sound.encode()])
    taken = media.decode(path, 1.0, 10, 64)
    assert taken.duration == pytest.approx(4, abs=0.1)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    assert media.decode(path, 1.0, 10, 64).kind == "truncated"


def test_a_silent_video_is_data(tmp_path):
    media.write_mp4(tmp_path / "silent.mp4", [grey(90)] * 3, 1)
    taken = media.decode(tmp_path / "silent.mp4", 1.0, 10, 64)
    assert isinstance(taken, Media)
    assert taken.audio is None


def test_sound_comes_as_16_khz_mono(tmp_path):
    with av.open(str(tmp_path / "stereo.mp4"), "w") as container:
        video = container.add_stream("mpeg4", rate=5)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        sound = container.add_stream("aac", rate=44_100, layout="stereo")
        for _ in range(10):
            container.mux(video.encode(av.VideoFrame.from_ndarray(grey(90), format="rgb24")))
        time = np.arange(2 * 44_100) / 44_100
        wave = np.tile(0.3 * np.sin(2 * np.pi * 440 * time), (2, 1)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 44_100, 0
        for stream, packets in ((video, video.encode()), (sound, [*sound.encode(frame), *sound.encode()])):
            del stream
            container.mux(packets)
    taken = media.decode(tmp_path / "stereo.mp4", 1.0, 10, 64)
    assert abs(len(taken.audio) - 2 * media.SAMPLE_RATE) < 1600
    middle = taken.audio[8000:24000]
    assert np.abs(np.fft.rfft(middle)).argmax() == 440  # one second: bin = Hz
    assert 0.2 < np.abs(middle).max() < 0.4


@pytest.fixture
def good(tmp_path):
    media.write_mp4(tmp_path / "good.mp4", [grey(k) for k in range(0, 200, 10)], 5, tone(4))
    return tmp_path / "good.mp4"


@given(share=st.floats(0.02, 0.98))
def test_a_file_cut_anywhere_is_a_failure_never_a_shorter_video(good_bytes, tmp_path_factory, share):
    path = tmp_path_factory.getbasetemp() / "cut.mp4"
    path.write_bytes(good_bytes[: int(len(good_bytes) * share)])
    failure = media.decode(path, 1.0, 10, 64)
    assert isinstance(failure, MediaFailure)
    assert failure.kind in ("truncated", "undecodable")


@pytest.fixture(scope="module")
def good_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("media") / "good.mp4"
    media.write_mp4(path, [grey(k) for k in range(0, 200, 10)], 5, tone(4))
    return path.read_bytes()


def test_a_file_cut_in_its_media_is_truncated(good, tmp_path):
    (tmp_path / "cut.mp4").write_bytes(good.read_bytes()[:-50])
    assert media.decode(tmp_path / "cut.mp4", 1.0, 10, 64).kind == "truncated"


def test_every_kind_of_bad_file_has_its_name(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("this is not a video " * 50)
    (tmp_path / "sound.flac").write_bytes(media.encode_flac(tone(1)))
    kinds = {
        name: media.decode(tmp_path / name, 1.0, 10, 64).kind
        for name in ("absent.mp4", "empty.mp4", "text.mp4", "sound.flac", ".")
    }
    assert kinds == {
        "absent.mp4": "missing",
        "empty.mp4": "empty",
        "text.mp4": "undecodable",
        "sound.flac": "no_video",
        ".": "missing",
    }


def test_a_video_without_frames_has_zero_duration(tmp_path):
    with av.open(str(tmp_path / "none.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        sound = container.add_stream("flac", rate=media.SAMPLE_RATE, layout="mono")
        sound.options = {"strict": "-2"}
        samples = (tone(1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = media.SAMPLE_RATE, 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    assert media.decode(tmp_path / "none.mp4", 1.0, 10, 64).kind in ("zero_duration", "no_video")


@given(
    height=st.integers(2, 4000),
    width=st.integers(2, 4000),
    size=st.integers(1, 20).map(lambda n: 16 * n),
)
def test_frames_fit_the_square_in_whole_multiples_and_fill_one_side(height, width, size):
    h, w = media.fitted(height, width, size, 16)
    assert h % 16 == w % 16 == 0
    assert 16 <= min(h, w) <= max(h, w) == size
    if height >= width:
        assert abs(w - size * width / height) <= 8 or w == 16


@given(st.binary(min_size=2, max_size=2000).filter(lambda b: len(b) % 2 == 0))
def test_flac_loses_nothing_but_the_sixteenth_bit(data):
    audio = np.frombuffer(data, np.int16).astype(np.float32).clip(-32767) / 32767
    back = media.decode_flac(media.encode_flac(audio))
    assert back.shape == audio.shape
    np.testing.assert_allclose(back, audio, atol=1e-6)


def test_jpeg_keeps_size_and_nearly_the_pixels():
    frame = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (32, 1, 3))
    back = media.decode_jpeg(media.encode_jpeg(frame))
    assert back.shape == frame.shape
    assert np.abs(back.astype(int) - frame).max() < 6
