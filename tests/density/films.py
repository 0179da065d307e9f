"""Small videos of known construction for the density tests."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from evads_jax.data.media import SAMPLE_RATE, write_mp4

SIDE, RATE = 64, 4


def scene(seed: int) -> np.ndarray:
    """A picture: 4 × 4 blocks of random colours."""
    blocks = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8)
    return blocks.repeat(SIDE // 4, axis=0).repeat(SIDE // 4, axis=1)


def film(path: Path, scenes: int, seconds: int = 6, seed: int = 0, audio: bool = False) -> Path:
    """Writes a video that cuts through `scenes` pictures of equal length."""
    count = seconds * RATE
    frames = [scene(100 * seed + k * scenes // count) for k in range(count)]
    sound = np.random.default_rng(seed).normal(0, 0.1, seconds * SAMPLE_RATE).astype(np.float32) if audio else None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mp4(path, frames, RATE, sound)
    return path


def settings_of(**changes):
    """The job's config with some fields changed, e.g. `settings_of(**{"run.workers": 0})`."""
    import runpy

    config = runpy.run_path(str(Path(__file__).parents[2] / "configs" / "density.py"))["get_config"]()
    with config.unlocked():
        for name, value in changes.items():
            *sections, field = name.split(".")
            target = config
            for section in sections:
                target = target[section]
            target[field] = value
    return config


def written(path: Path, frames: list[np.ndarray], stamps: list[int], rotated: bool = False) -> Path:
    """Writes frames at presentation times of 1/100 s, with a rotation matrix on request."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        for array, stamp in zip(frames, stamps, strict=True):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if rotated:
        data = bytearray(path.read_bytes())
        unit = b"".join(x.to_bytes(4, "big") for x in (0x10000, 0, 0, 0, 0x10000, 0))
        turned = b"".join(x.to_bytes(4, "big") for x in (0, 0x10000, 0, 0xFFFF0000, 0, 0))
        at = data.index(unit, data.index(b"tkhd"))
        data[at : at + len(unit)] = turned
        path.write_bytes(data)
    return path


def chaos(folder: Path) -> dict[str, set[str | None]]:
    """Writes odd and broken videos.

    Returns:
        File name → the kinds of failure that are accepted; None stands for a measured video.
    """
    good = film(folder / "good.mp4", scenes=3, audio=True)
    data = good.read_bytes()
    (folder / "truncated.mp4").write_bytes(data[: len(data) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "no_video_at_all.mp4").write_bytes(b"text " * 100)
    spoiled = bytearray(data)
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 3
    spoiled[middle : middle + 600] = bytes(600)
    (folder / "corrupt_in_the_middle.mp4").write_bytes(spoiled)
    written(folder / "one_frame.mp4", [scene(1)], [0])
    written(folder / "variable_rate.mp4", [scene(i) for i in range(6)], [0, 10, 150, 160, 170, 400])
    written(folder / "rotated.mp4", [scene(i) for i in range(8)], list(range(0, 400, 50)), rotated=True)
    with av.open(str(folder / "audio_only.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        sound.sample_rate, sound.pts = 16_000, 0
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with av.open(str(folder / "zero_duration.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    return {
        "good.mp4": {None},
        "truncated.mp4": {"truncated"},
        "empty.mp4": {"empty"},
        "no_video_at_all.mp4": {"undecodable"},
        "corrupt_in_the_middle.mp4": {None, "undecodable", "truncated"},  # what a decoder makes of it is its own affair
        "one_frame.mp4": {None},
        "variable_rate.mp4": {None},
        "rotated.mp4": {None},
        "audio_only.mp4": {"no_video"},
        "zero_duration.mp4": {"zero_duration", "no_video"},
    }
