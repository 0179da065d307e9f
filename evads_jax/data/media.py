"""Media in and out: frames by presentation time, 16 kHz mono audio, mp4, JPEG and FLAC.

A file that cannot be read gives a `MediaFailure`, a value, so that a caller has to decide about it; a video without
sound is data (`audio is None`), not a failure.
"""

import dataclasses
import io
import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

SAMPLE_RATE = 16_000
JPEG_QUALITY = 90
FailureKind = Literal["missing", "empty", "truncated", "zero_duration", "no_video", "undecodable"]

_EARLY = 1e-3  # a frame stamped this little after a moment counts as shown at it: time bases round
_BOX_HEADER = 8


@dataclasses.dataclass(frozen=True)
class Media:
    """What a video shows and sounds like.

    Attributes:
      frames: uint8 [H, W, 3] RGB, all of one size.
      times: seconds after the first frame at which each is taken.
      duration: seconds.
      audio: float32 in [-1, 1], 16 kHz mono; None without an audio track.
    """

    frames: list[np.ndarray]
    times: tuple[float, ...]
    duration: float
    audio: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class MediaFailure:
    """Why a file gave no media."""

    kind: FailureKind
    detail: str


@dataclasses.dataclass(frozen=True)
class Numbered:
    """Frames of a video that were asked for by their number.

    Attributes:
      frames: as `decode_at`'s `convert` gave them.
      indices: their numbers, counted from 0 in the order in which they are shown.
      total: frames of the whole video.
      rate: its mean frame rate.
    """

    frames: list[np.ndarray]
    indices: tuple[int, ...]
    total: int
    rate: float


def decode(path: str | Path, frame_rate: float, max_frames: int, size: int, multiple: int = 1) -> Media | MediaFailure:
    """Reads a video.

    The frame of a moment is the last one whose presentation time is not after it, so a variable frame rate is no
    special case. A video longer than `max_frames / frame_rate` is sampled at the lower rate that spreads `max_frames`
    over the whole of it.

    Args:
      path: the file.
      frame_rate: frames to take per second.
      max_frames: the most frames to take.
      size: frames are scaled, with their shape kept, to fit a square of so many pixels.
      multiple: height and width are rounded to a multiple of this, at least one.
    """
    return _opened(path, lambda container: _decode(container, frame_rate, max_frames, size, multiple))


def decode_at(
    path: str | Path,
    choose: Callable[[int, float], Sequence[int] | np.ndarray],
    convert: Callable[[np.ndarray, int], np.ndarray],
) -> Numbered | MediaFailure:
    """Reads the frames of chosen numbers, as the processors of published models ask for them.

    Args:
      path: the file.
      choose: (number of frames, mean frame rate) → numbers of the frames to take, increasing.
      convert: (RGB frame, number of frames to take) → what is kept of it; called as frames are decoded, so that one
        is held in full size only.
    """
    return _opened(path, lambda container: _decode_at(container, choose, convert))


def _opened(path: str | Path, read: Callable[[av.container.InputContainer], Any]) -> Any:
    """What `read` gives for an opened file, or why it could not be read."""
    path = Path(path)
    if not path.is_file():
        return MediaFailure("missing", "no such file")
    if path.stat().st_size == 0:
        return MediaFailure("empty", "0 bytes")
    if (lost := _missing_bytes(path)) > 0:
        return MediaFailure("truncated", f"{lost} bytes of its last box are missing")
    try:
        with av.open(str(path)) as container:
            return read(container)
    except (av.FFmpegError, OSError, ValueError) as error:
        detail = " ".join(str(error).split())
        return MediaFailure("undecodable", detail.replace(str(path), path.name) or type(error).__name__)


def _decode_at(
    container: av.container.InputContainer,
    choose: Callable[[int, float], Sequence[int] | np.ndarray],
    convert: Callable[[np.ndarray, int], np.ndarray],
) -> Numbered | MediaFailure:
    if not container.streams.video:
        return MediaFailure("no_video", f"{len(container.streams)} streams, none of them video")
    video = container.streams.video[0]
    total, rate = video.frames, float(video.average_rate or 0)
    if not total:  # the file does not state it
        total = sum(packet.pts is not None for packet in container.demux(video))
        container.seek(0)
    if not total or not rate:
        return MediaFailure("zero_duration", "no frame could be decoded")
    wanted = tuple(int(index) for index in choose(total, rate))
    chosen, frames, indices = set(wanted), [], []
    for index, frame in enumerate(container.decode(video)):
        if index in chosen:
            frames.append(convert(frame.to_ndarray(format="rgb24"), len(wanted)))
            indices.append(index)
        if index >= wanted[-1]:
            break
    if not frames:
        return MediaFailure("zero_duration", "no frame could be decoded")
    return Numbered(frames, tuple(indices), total, rate)


def _missing_bytes(path: Path) -> int:
    """How many bytes the boxes of an mp4 file announce beyond its end; 0 for other files."""
    length, offset = path.stat().st_size, 0
    with path.open("rb") as file:
        while offset + _BOX_HEADER <= length:
            file.seek(offset)
            header = file.read(16)
            extent, kind = struct.unpack(">I4s", header[:_BOX_HEADER])
            if offset == 0 and kind != b"ftyp":
                return 0
            if extent == 1 and len(header) == 16:
                extent = struct.unpack(">Q", header[_BOX_HEADER:])[0]
            if extent == 0:  # to the end of the file
                return 0
            if extent < _BOX_HEADER:
                return 0  # not a box: left to the decoder
            offset += extent
    return max(offset - length, 0)


def _decode(
    container: av.container.InputContainer, frame_rate: float, max_frames: int, size: int, multiple: int
) -> Media | MediaFailure:
    if not container.streams.video:
        return MediaFailure("no_video", f"{len(container.streams)} streams, none of them video")
    video = container.streams.video[0]
    video.thread_count = 1 if video.width * video.height <= 256 * 256 else 0
    stated = _stated_duration(container, video)
    if stated is not None and stated <= 0:
        return MediaFailure("zero_duration", "the file states a duration of 0")
    if stated is None:
        stated = _measured_duration(container, video)
    rate = min(frame_rate, max_frames / stated) if stated else frame_rate
    picker = _FramePicker(rate, max_frames, size, multiple)
    # Channels are averaged here: ffmpeg's own mix to mono is louder than they are, and clips.
    resampler = av.AudioResampler(format="fltp", rate=SAMPLE_RATE)
    chunks: list[np.ndarray] = []
    streams = [video, *container.streams.audio[:1]]
    for packet in container.demux(streams):
        for frame in packet.decode():
            if isinstance(frame, av.VideoFrame):
                picker.see(frame)
            elif isinstance(frame, av.AudioFrame):
                chunks += [f.to_ndarray().mean(0) for f in resampler.resample(frame)]
    if container.streams.audio and chunks:
        chunks += [f.to_ndarray().mean(0) for f in resampler.resample(None)]
    end = picker.end
    if end <= 0:
        return MediaFailure("zero_duration", "no frame could be decoded")
    # Where only the container states a duration, it is that of its longest stream.
    heard = sum(map(len, chunks)) / SAMPLE_RATE if video.duration is None else 0.0
    if stated and max(end, heard) < stated - max(0.5, 2 * picker.interval):
        return MediaFailure("truncated", f"frames end at {end:.2f} s of {stated:.2f} s")
    duration = max(stated, picker.last) if stated else end
    frames, times = picker.finish(duration)
    audio = np.clip(np.concatenate(chunks), -1, 1).astype(np.float32) if chunks else None
    return Media(frames, times, duration, audio)


def _stated_duration(container: av.container.InputContainer, video: av.VideoStream) -> float | None:
    if video.duration is not None and video.time_base is not None:
        return float(video.duration * video.time_base)
    return container.duration / av.time_base if container.duration is not None else None


def _measured_duration(container: av.container.InputContainer, video: av.VideoStream) -> float:
    """Seconds between the first and the last packet, for files that do not state their duration."""
    stamps = [p.pts for p in container.demux(video) if p.pts is not None]
    container.seek(0)
    return float((max(stamps) - min(stamps)) * (video.time_base or 0)) if stamps else 0.0


class _FramePicker:
    """Takes, from frames in presentation order, the one that is shown at each moment k / rate."""

    def __init__(self, rate: float, max_frames: int, size: int, multiple: int):
        self._rate, self._max, self._size, self._multiple = rate, max_frames, size, multiple
        self._shown: av.VideoFrame | None = None
        self._first, self.last = 0.0, 0.0
        self.interval, self._lasts = 0.0, 0.0
        self._frames: list[np.ndarray] = []
        self._shape: tuple[int, int] | None = None
        self._scaler = VideoReformatter()

    @property
    def end(self) -> float:
        """Seconds from the first frame to the end of the last: it stays as long as it states, or the one before it."""
        return self.last + max(self.interval, self._lasts) if self._shown is not None else 0.0

    def see(self, frame: av.VideoFrame) -> None:
        stamp = frame.time if frame.time is not None else self._first + self.last + self.interval
        self._lasts = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        if self._shown is None:
            self._first, self.interval = stamp, self._lasts
        time = stamp - self._first
        if self._shown is not None:
            while len(self._frames) < self._max and len(self._frames) / self._rate < time - _EARLY:
                self._take()
            self.interval = time - self.last if time > self.last else self.interval
        self._shown, self.last = frame, max(time, self.last)

    def finish(self, duration: float) -> tuple[list[np.ndarray], tuple[float, ...]]:
        """Takes what is left up to the end and gives frames and times."""
        while len(self._frames) < self._max and (k := len(self._frames)) / self._rate < duration - _EARLY:
            self._take()
            if k and k / self._rate > duration:
                break
        return self._frames, tuple(k / self._rate for k in range(len(self._frames)))

    def _take(self) -> None:
        assert self._shown is not None
        if self._shape is None:
            self._shape = fitted(self._shown.height, self._shown.width, self._size, self._multiple)
        height, width = self._shape
        scaled = self._scaler.reformat(self._shown, width, height, format="rgb24", interpolation="AREA")
        self._frames.append(scaled.to_ndarray())


def fitted(height: int, width: int, size: int, multiple: int = 1) -> tuple[int, int]:
    """Height and width scaled to fit a square of `size`, each rounded to a multiple of `multiple`, at least one."""
    scale = size / max(height, width)
    limit = max(size // multiple, 1)
    h, w = (min(max(round(side * scale / multiple), 1), limit) * multiple for side in (height, width))
    return h, w


def write_mp4(path: str | Path, frames: Iterable[np.ndarray], rate: float, audio: np.ndarray | None = None) -> None:
    """Writes a video: h264 where the encoder is at hand, else mpeg4; FLAC sound, lossless and cheap to write.

    The same input gives the same bytes.

    Args:
      path: the file; overwritten.
      frames: uint8 [H, W, 3] RGB with even sides, all of one size; at least one.
      rate: frames per second.
      audio: float32 16 kHz mono, or None for a silent file.
    """
    frames = iter(frames)
    first = next(frames)
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        h264 = "libx264" in av.codecs_available
        video = container.add_stream("libx264" if h264 else "mpeg4", rate=Fraction(rate).limit_denominator(1000))
        video.height, video.width = first.shape[:2]
        video.pix_fmt = "yuv420p"
        video.thread_count = 1
        video.options = {"preset": "ultrafast", "crf": "16"} if h264 else {"qscale": "3"}
        sound = _add_flac(container) if audio is not None else None
        for array in (first, *frames):
            container.mux(video.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(video.encode())
        if sound is not None and audio is not None:
            _mux_audio(container, sound, audio)


def encode_jpeg(frame: np.ndarray) -> bytes:
    """A uint8 [H, W, 3] RGB frame as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> np.ndarray:
    """A JPEG file as a uint8 [H, W, 3] RGB frame."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def decode_jpegs(files: Sequence[bytes]) -> np.ndarray:
    """JPEG files of one size as uint8 [F, H, W, 3]."""
    return np.stack([decode_jpeg(data) for data in files])


def encode_flac(audio: np.ndarray) -> bytes:
    """16 kHz mono float32 as a 16-bit FLAC file."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flac", options={"fflags": "+bitexact"}) as container:
        _mux_audio(container, _add_flac(container), audio)
    return buffer.getvalue()


def _add_flac(container: av.container.OutputContainer) -> av.AudioStream:
    stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
    # `strict` lets older ffmpeg put FLAC into mp4.
    stream.options = {"compression_level": "5", "strict": "-2", "flags": "+bitexact"}
    return stream


def _mux_audio(container: av.container.OutputContainer, stream: av.AudioStream, audio: np.ndarray) -> None:
    samples = np.round(np.clip(audio, -1, 1) * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts = SAMPLE_RATE, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode())


def decode_flac(data: bytes) -> np.ndarray:
    """A FLAC file as 16 kHz mono float32."""
    with av.open(io.BytesIO(data), "r") as container:
        chunks = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    samples = np.concatenate(chunks) if chunks else np.zeros(0, np.int16)
    return (samples / 32767).astype(np.float32)
