"""What an evaluation asks about: prepared shards, a parquet of the published test layout, or one's own questions.

The videos of a parquet or a JSONL are opened one at a time, when they are asked about, and a video that is not there or
cannot be read keeps its questions: they are counted (`files.NoVideo`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from evads_jax.benchmark.files import NoVideo, Split
from evads_jax.data import annotations, folder, media, shards
from evads_jax.data.makers import Sampling, by_video, locate
from evads_jax.data.records import Example, Records, VideoRecord
from evads_jax.errors import UserError

SUFFIXES = ("", ".mp4", ".mov", ".mkv", ".webm")  # the test rows name a video by its id
SPLIT = "test"
FRAMES = ("frame_rate", "max_frames", "frame_size")


@dataclasses.dataclass(frozen=True)
class Source:
    """The questions and their videos.

    Attributes:
      split: the questions.
      sampling: how frames are taken, for the protocol: frame_rate, max_frames, frame_size.
      language: of the questions; None where the source does not say.
      missing: names of the videos that are not there.
      notes: what the user should know, one line each.
    """

    split: Split
    sampling: Mapping[str, Any]
    language: str | None = None
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class AnnotatedVideos:
    """Random access to annotated videos, decoded when asked for.

    Args:
      rows: the questions of each video.
      root: the folder of the videos.
      sampling: how frames are taken.
    """

    def __init__(self, rows: Sequence[tuple[Example, ...]], root: Path, sampling: Sampling):
        self.rows, self._root, self._sampling = list(rows), root, sampling

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> VideoRecord:
        """One video.

        Raises:
          NoVideo: it is missing or cannot be read.
        """
        rows = self.rows[index]
        first = rows[0]
        path = self.path(index)
        taken = media.MediaFailure("missing", "no such file") if path is None else self._sampling.decode(path)
        if isinstance(taken, media.MediaFailure):
            raise NoVideo(f"{taken.kind}: {taken.detail}")
        return VideoRecord(
            video=first.video,
            frames=tuple(map(media.encode_jpeg, taken.frames)),
            times=taken.times,
            duration=taken.duration,
            questions=tuple(row.question for row in rows),
            category=first.category,
            annotated_duration=first.duration,
            events=first.events,
            judge_events=first.judge_events,
            source=first.source,
        )

    def path(self, index: int) -> Path | None:
        """The file of a video; None where there is none."""
        name = self.rows[index][0].video
        found = (locate(self._root, name + suffix) for suffix in SUFFIXES)
        return next((path for path in found if path.is_file()), None)


@dataclasses.dataclass(frozen=True)
class FirstVideos:
    """The first `count` of some records."""

    records: Records
    count: int

    def __len__(self) -> int:
        return min(self.count, len(self.records))

    def __getitem__(self, index: int) -> VideoRecord:
        """One video."""
        return self.records[range(len(self))[index]]


def find(data: ConfigDict, defaults: Mapping[str, Any], multiple: int = 1, default_shards: str | None = None) -> Source:
    """The source that a config names.

    Args:
      data: the section. Of `shards`, `parquet` and `jsonl` exactly one is set, or none where there is a default.
        `frame_rate`, `max_frames` and `frame_size` may be None: then of shards as they were made, else the default.
        `limit`: the first so many videos; 0 for all.
      defaults: those three.
      multiple: what frame sides must be multiples of.
      default_shards: the shards of the run that is evaluated.

    Raises:
      UserError: no source or several; missing or malformed files; no folder of videos; shards of other frames.
    """
    named = [name for name in ("shards", "parquet", "jsonl") if data[name]]
    if len(named) > 1:
        raise UserError("several sources are named", ", ".join(f"data.{name}" for name in named), "name one")
    if not named and default_shards is None:
        raise UserError(
            "nothing to evaluate on", "data", "set data.shards, data.parquet with data.videos, or data.jsonl"
        )
    if named and named[0] != "shards":
        frames = {name: default if data[name] is None else data[name] for name, default in defaults.items()}
        return _annotated(data, named[0], frames, multiple)
    return _prepared(data.shards or str(default_shards), data)


def _prepared(root: str, data: ConfigDict) -> Source:
    records = shards.open(root, SPLIT)
    recipe = records.manifest.recipe
    held = recipe.get("sampling", {})
    sampling = {name: held.get("size" if name == "frame_size" else name) for name in FRAMES}
    for name, value in sampling.items():
        if data[name] is not None and data[name] != value:
            raise UserError(
                f"the shards have {name} {value!r}, the config asks for {data[name]!r}",
                str(records.folder),
                "leave the field out, or name videos instead of shards",
            )
    broken = len(records.manifest.broken)
    note = f"{broken} videos of these shards were broken when they were made; their questions are not in them"
    first = FirstVideos(records, data.limit) if data.limit else records
    return Source(Split.of(first), sampling, recipe.get("language"), notes=(note,) * bool(broken))


def _annotated(data: ConfigDict, kind: str, frames: Mapping[str, Any], multiple: int) -> Source:
    if kind == "parquet":
        if not data.videos:
            raise UserError("no folder of videos", "data.videos", "name the folder with the videos of the parquet")
        file, root = annotations.read_test(data.parquet), Path(data.videos)
    else:
        file = folder.read_questions(data.jsonl, data.videos, need_videos=False)
        root = folder.video_root(data.jsonl, data.videos)
    if not root.is_dir():
        raise UserError("no such folder of videos", str(root), "set data.videos")
    file.check(data.max_bad_share)
    rows = by_video(file.examples)
    rows = rows[: data.limit] if data.limit else rows
    if not rows:
        raise UserError("no question", str(data[kind]), "give at least one row")
    sampling = Sampling(frames["frame_rate"], frames["max_frames"], frames["frame_size"], multiple)
    records = AnnotatedVideos(rows, root, sampling)
    missing = {found[0].video: len(found) for i, found in enumerate(rows) if records.path(i) is None}
    notes = [f"{len(file.bad)} malformed rows are left out, the first: {file.bad[0]}"] if file.bad else []
    if missing:
        shown = ", ".join([*list(missing)[:5], *["…"] * (len(missing) > 5)])
        asked = f"their {sum(missing.values())} questions count 0 in ALL"
        notes.append(f"{len(missing)} of {len(rows)} videos are missing ({shown}): {asked}")
    return Source(Split.annotated(records, rows), dict(frames), missing=tuple(missing), notes=tuple(notes))
