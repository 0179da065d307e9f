"""What is to be measured: one `Item` a video, from a folder of mp4s, from shards, or from annotations alone."""

import dataclasses
import os
from collections import Counter
from collections.abc import Container, Iterable
from pathlib import Path

import pyarrow.parquet as pq

from evads_jax.data import annotations
from evads_jax.data.annotations import AnnotationFile
from evads_jax.data.records import Event, Example
from evads_jax.data.shards import RecordSource
from evads_jax.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".m4v", ".avi")


@dataclasses.dataclass(frozen=True)
class Item:
    """One video, and where its parts are to be had.

    Attributes:
        name: unique in the corpus; for a file its path below the folder.
        path: the video file; None without one.
        record: (shard file, position in it) of a shard record; None without one. Its name is then a place, and the
            measurement takes the record's.
        broken: (kind, detail) of an item that the shards' manifest lists as broken; None otherwise.
        category: goods category; None when unknown.
        duration: the stated length in seconds; None when the media says it.
        events: annotated events; None when nothing is annotated, which is not the same as an empty tuple.
        transcript: a file with what is spoken; None without one.
        stamp: size and time of change of those files (of a shard: its hash): tells when they became others.
    """

    name: str
    path: str | None = None
    record: tuple[str, int] | None = None
    broken: tuple[str, str] | None = None
    category: str | None = None
    duration: float | None = None
    events: tuple[Event, ...] | None = None
    transcript: str | None = None
    stamp: str = ""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The videos of one run.

    Attributes:
        items: in a fixed order.
        notes: what the user should know about the sources, e.g. bad annotation rows; one line each.
    """

    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()


def from_annotations(path: str | Path, max_bad_share: float = 0.02) -> Corpus:
    """The videos of E-VAds parquets: events and durations, no pictures.

    Args:
        path: a parquet of the SFT, RL or test schema, or a folder of them.
        max_bad_share: the largest share of malformed rows.

    Raises:
        UserError: nothing readable there, or too many bad rows.
    """
    files = _annotation_files(Path(path))
    items: dict[str, Item] = {}
    notes = []
    for file in files.values():
        file.check(max_bad_share)
        notes += [f"malformed annotation row, left out: {row}" for row in file.bad]
        for example in file.examples:
            items.setdefault(example.video, _item_of(example))
    if not items:
        raise UserError("no video in these annotations", str(path))
    return Corpus(tuple(items.values()), tuple(notes))


def from_videos(folder: str | Path) -> Corpus:
    """All video files below a folder, by name; a folder below it that is a link or cannot be read is a note.

    Raises:
        UserError: no such folder, it cannot be listed, or it holds no video.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError("no such folder of videos", str(folder), "set --config.videos to a folder of mp4 files")
    try:
        next(folder.iterdir(), None)
    except OSError as error:
        raise UserError(f"cannot read the folder of videos: {error.strerror}", str(folder)) from error
    unread: list[OSError] = []
    paths, linked = list[Path](), list[Path]()
    for home, folders, names in os.walk(folder, onerror=unread.append):
        paths += [path for name in names if (path := Path(home, name)).suffix.lower() in VIDEO_SUFFIXES]
        linked += [path for name in folders if (path := Path(home, name)).is_symlink()]
    notes = [f"folder that cannot be read, left out: {_text(str(e.filename))} ({e.strerror})" for e in unread]
    notes += [f"folder that is a link, not entered: {_text(str(path))}" for path in sorted(linked)]
    if not paths:
        raise UserError("no videos", str(folder), "; ".join(notes) or "looked for " + ", ".join(VIDEO_SUFFIXES))
    items = (Item(_text(str(p.relative_to(folder))), path=str(p), stamp=stamp_of(p)) for p in sorted(paths))
    return Corpus(tuple(items), tuple(notes))


def from_shards(folder: str | Path, split: str | None = None) -> Corpus:
    """All records of prepared shards, and the items that their manifests list as broken.

    Args:
        folder: holds a manifest, or folders of splits that do.
        split: one of those folders; None for all.

    Raises:
        UserError: no shards there, or damaged ones.
    """
    folder = Path(folder)
    homes = [folder / split] if split else [folder, *sorted(p for p in folder.glob("*") if p.is_dir())]
    homes = [home for home in homes if (home / "manifest.json").is_file()]
    if not homes:
        raise UserError("no finished shards", str(folder / (split or "")), "prepare them first, or correct the path")
    items = []
    for home in homes:
        for shard in RecordSource(home).manifest.shards:
            file = str(home / shard.name)
            items += [
                Item(f"{home.name}/{shard.name}:{i}", record=(file, i), stamp=shard.sha256)
                for i in range(len(shard.questions))
            ] + [Item(b.video, broken=(b.kind, b.detail)) for b in shard.broken]
    if not items:
        raise UserError("no videos in these shards", str(folder))
    return Corpus(tuple(items))


def with_annotations(corpus: Corpus, annotated: Corpus) -> Corpus:
    """Gives videos the category, duration and events of annotations for the same file name (without suffix).

    Raises:
        UserError: no annotation matches a video.
    """
    by_stem = {Path(item.name).stem: item for item in annotated.items}
    matched = {stem for item in corpus.items if (stem := Path(item.name).stem) in by_stem}
    if not matched:
        listed = ", ".join(sorted(by_stem)[:5])
        raise UserError("no annotation matches a video", "config.annotations", f"they are of videos named {listed}")
    items = [
        dataclasses.replace(item, category=known.category, duration=known.duration, events=known.events)
        if (known := by_stem.get(Path(item.name).stem))
        else item
        for item in corpus.items
    ]
    lost = sorted(by_stem.keys() - matched)
    notes = [f"annotation that matches no video: {stem}" for stem in lost] + _shared(corpus, matched, "annotation")
    return Corpus(tuple(items), (*corpus.notes, *annotated.notes, *notes))


def with_transcripts(corpus: Corpus, folder: str | Path, suffixes: Iterable[str]) -> Corpus:
    """Gives each video the transcript of the same name (without suffix).

    A transcript without a video is a note, and so is a second one of a video, which is left out.

    Raises:
        UserError: no such folder, it cannot be listed, or no transcript in it matches a video.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError("no such folder of transcripts", str(folder), "set --config.transcripts to one")
    known = tuple(suffixes)
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in known)
    except OSError as error:
        raise UserError(f"cannot read the folder of transcripts: {error.strerror}", str(folder)) from error
    files, second = dict[str, Path](), list[str]()
    for path in found:
        if files.setdefault(_text(path.stem), path) != path:
            second.append(_text(path.name))
    stems = {Path(item.name).stem for item in corpus.items}
    lost = [_text(p.name) for stem, p in files.items() if stem not in stems]
    if len(lost) == len(files):
        listed = ", ".join(lost[:5]) or f"there is none with a name in {', '.join(known)}"
        raise UserError("no transcript matches a video", str(folder), f"a transcript is named like its video; {listed}")
    items = tuple(
        dataclasses.replace(item, transcript=str(file), stamp=f"{item.stamp} {stamp_of(file)}")
        if (file := files.get(Path(item.name).stem))
        else item
        for item in corpus.items
    )
    notes = [f"transcript that matches no video: {name}" for name in lost]
    notes += [f"second transcript of one video, left out: {name}" for name in second]
    notes += _shared(corpus, files.keys(), "transcript")
    return Corpus(items, (*corpus.notes, *notes))


def _shared(corpus: Corpus, stems: Container[str], what: str) -> list[str]:
    """A note for each name that several videos bear, in folders of their own, and for which there is a `what`."""
    counts = Counter(Path(item.name).stem for item in corpus.items)
    named = sorted(stem for stem, count in counts.items() if count > 1 and stem in stems)
    return [f"{what} that {counts[stem]} videos of one name share: {stem}" for stem in named]


def stamp_of(path: Path) -> str:
    """Size and time of change of a file; empty for a link that leads nowhere."""
    if not path.exists():
        return ""
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def _text(name: str) -> str:
    """A file's name as text that can be written: bytes of another encoding become their numbers."""
    return name.encode("utf-8", "backslashreplace").decode()


def _annotation_files(path: Path) -> dict[str, AnnotationFile]:
    if path.is_dir():
        return annotations.read_folder(path)
    if not path.is_file():
        raise UserError("no such annotations", str(path), "set --config.annotations to a parquet or a folder of them")
    try:
        columns = pq.read_schema(path).names
    except (OSError, ValueError) as error:
        raise UserError("not a readable parquet", str(path)) from error
    kind = "rl" if "reward_model" in columns else "test" if "asr_ocr_meta" in columns else "sft"
    reader = {"sft": annotations.read_sft, "rl": annotations.read_rl, "test": annotations.read_test}[kind]
    return {kind: reader(path)}


def _item_of(example: Example) -> Item:
    return Item(example.video, category=example.category, duration=example.duration, events=example.evidence)
