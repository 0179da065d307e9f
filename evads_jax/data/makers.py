"""How one item of a data set becomes a record: drawn from a script, or read from a video and its annotated rows.

Makers are called in worker processes, so they are plain, picklable values.
"""

import dataclasses
import hashlib
import os.path
import tempfile
from collections.abc import Sequence
from pathlib import Path

from evads_jax.data import media, render
from evads_jax.data.records import Example, VideoRecord
from evads_jax.data.render import standin
from evads_jax.data.shards import Broken


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How media are taken from a video; the arguments of `media.decode`."""

    frame_rate: float
    max_frames: int
    size: int
    multiple: int

    def decode(self, path: Path) -> media.Media | media.MediaFailure:
        """Reads a video."""
        return media.decode(path, **dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class DrawAds:
    """Item number → the record of a drawn ad.

    Attributes:
      split: the data set's split; sft and rl draw from the training combinations, each with its own seeds.
      seed: the run's seed.
      language: "zh" or "en".
      sampling: how frames are taken.
    """

    split: str
    seed: int
    language: str
    sampling: Sampling

    def __call__(self, index: int) -> VideoRecord:
        """The `index`-th ad of the split."""
        video = f"{self.split}-{index:05d}"
        digest = hashlib.blake2b(f"{self.seed}/{video}".encode(), digest_size=7).digest()
        combinations = "train" if self.split in ("sft", "rl") else self.split
        script = render.draw_script(int.from_bytes(digest, "big"), self.language, combinations)
        taken = render.decode_video(script, **dataclasses.asdict(self.sampling))
        return VideoRecord(
            video=video,
            **_media_fields(taken),
            questions=render.ask(script, video),
            category=script.category,
            annotated_duration=round(taken.duration),
            events=script.events,
            source="render",
            facts=script.facts,
        )


@dataclasses.dataclass(frozen=True)
class ReadVideos:
    """Item number → the record of an annotated video.

    Attributes:
      videos: the rows of each video.
      root: the folder of the videos; None draws stand-ins.
      language: of a stand-in's speech.
      sampling: how frames are taken.
    """

    videos: tuple[tuple[Example, ...], ...]
    root: Path | None
    language: str
    sampling: Sampling

    def __call__(self, index: int) -> VideoRecord | Broken:
        """The `index`-th video, or why there is none."""
        rows = self.videos[index]
        first = rows[0]
        taken = self._stand_in(first) if self.root is None else self.sampling.decode(locate(self.root, first.video))
        if isinstance(taken, media.MediaFailure):
            return Broken(first.video, taken.kind, taken.detail)
        return VideoRecord(
            video=first.video,
            **_media_fields(taken),
            questions=tuple(row.question for row in rows),
            category=first.category,
            annotated_duration=first.duration,
            events=first.events,
            judge_events=first.judge_events,
            source=first.source,
        )

    def _stand_in(self, example: Example) -> media.Media | media.MediaFailure:
        with tempfile.TemporaryDirectory(prefix="stand-in-") as folder:
            path = Path(folder) / "video.mp4"
            standin.draw_standin(example, path, self.language)
            return self.sampling.decode(path)


def locate(root: Path, video: str) -> Path:
    """The file of a video: its name under `root`, or, where only that exists, the name's last part.

    The released annotations write `../videos/1485.mp4`; a name never leads out of `root`, a link in it may.
    """
    inside = Path(os.path.abspath(root / video))
    return inside if inside.is_relative_to(os.path.abspath(root)) and inside.is_file() else root / Path(video).name


def by_video(examples: Sequence[Example]) -> list[tuple[Example, ...]]:
    """Rows grouped by video, videos in the order of their first row."""
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.video, []).append(example)
    return [tuple(rows) for rows in groups.values()]


def _media_fields(taken: media.Media) -> dict:
    return {
        "frames": tuple(media.encode_jpeg(frame) for frame in taken.frames),
        "times": taken.times,
        "duration": taken.duration,
        "audio": None if taken.audio is None else media.encode_flac(taken.audio),
    }
