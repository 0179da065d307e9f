"""From a config to the four splits as shards: drawn ads, the released annotations, or one's own folder.

Splits never share a video. Where the source has no test split, `data.held_out` of its videos are kept back, by the hash
of (seed, name), and dealt to validation and test in turn. The released SFT and RL rows become sft and rl; one's own
videos serve both.

A split whose shards are there and made from the same recipe is used as it is; an unfinished one goes on.

Several processes of a run all call `prepare`. Those that share a folder of shards divide the making of them; machines
with disks of their own make all of them each, and must come to the same records.
"""

import functools
import hashlib
import importlib.metadata
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from ml_collections import config_dict

from evads_jax import processes, storage
from evads_jax.data import annotations, bucket, folder, makers, media, render, serial, shards
from evads_jax.data.makers import DrawAds, ReadVideos, Sampling
from evads_jax.data.records import Example
from evads_jax.data.render import drawing, fonts, questions, script, speech, standin, video, vocabulary
from evads_jax.errors import UserError

SPLITS = ("sft", "rl", "validation", "test")
WORKERS = 2

# What a record is made by: a change in any of these makes another record.
_SOURCES = (makers, media, serial, drawing, fonts, questions, script, speech, standin, video, vocabulary)
_PACKAGES = ("av", "numpy", "pillow", "array-record")

Log = Callable[[str], None]
Rows = tuple[Example, ...]


def prepare(config: config_dict.ConfigDict, workdir: str | Path, log: Log) -> dict[str, shards.RecordSource]:
    """Makes, completes or reuses the shards of every split.

    Args:
      config: the run's config.
      workdir: shards go to `workdir/shards/<split>` unless `data.shards` names another folder. A named folder that
        already holds all four splits is used as it is, if its media were taken as this config asks. One in a bucket
        (`gs://…`) is fetched, or made here and put there when all of it is checked.
      log: told one line of text at a time: progress, and what was left out.

    Returns:
      Split → its records.

    Raises:
      UserError: bad source, too many malformed rows or broken videos, a damaged shard, an unwritable folder.
    """
    data = config.data
    sampling = Sampling(
        frame_rate=data.frame_rate,
        max_frames=data.max_frames,
        size=data.frame_size,
        multiple=config.model.vision_patch * config.model.vision_merge,
    )
    named = str(data.shards or Path(workdir) / "shards")
    root = processes.together(lambda: Path(bucket.fetched(named, SPLITS)), "fetch the shards", named)
    if data.shards and _ready(named, root):
        opened = {split: shards.open(root, split) for split in SPLITS}
        check_foreign(opened, {"language": config.run.language, **vars(sampling)})
        _check_same(opened)
        log(f"shards: {root}, {_sizes(opened)}")
        return opened
    plans = processes.together(lambda: _plans(config, sampling, log), "read the source of the data", "config.data")
    if len(processes.beside(root)) < jax.process_count():
        log(f"{root} is not one folder for all processes: every machine makes all shards")
    opened = {}
    for split, (maker, count, recipe) in plans.items():
        if not count:
            raise UserError("a split without videos", split, f"raise data.videos_{split}")
        workers = WORKERS if count > data.records_per_shard else 0
        manifest = shards.build(
            maker,
            count,
            root / split,
            split=split,
            recipe=recipe,
            per_shard=data.records_per_shard,
            workers=workers,
            progress=functools.partial(_progress, log, split),
        )
        check = functools.partial(check_broken, manifest, count, data.max_bad_share, log)
        processes.together(check, f"use its shards of {split}", str(root))
        opened[split] = shards.open(root, split)
    _check_same(opened)
    processes.together(lambda: bucket.upload(root, named, SPLITS), "put the shards into the bucket", named)
    log(f"shards: {_sizes(opened)}")
    return opened


def _ready(named: str, root: Path) -> bool:
    """Whether a named folder holds finished shards of all splits, here and for the other processes."""
    ready = processes.values(all((root / split / "manifest.json").is_file() for split in SPLITS))
    if any(ready) and not all(ready) and storage.url_of(named) is None:
        what = f"process {ready.index(True)} finds finished shards there, process {ready.index(False)} does not"
        raise UserError(what, named, "name a folder that all processes share, or one in a bucket")
    return all(ready)  # what a machine alone has of a bucket's shards has not gone up: they are made again


def _check_same(opened: Mapping[str, shards.RecordSource]) -> None:
    """Refuses shards that are not the same for all processes of a run."""
    mine = {
        split: hashlib.sha256("".join(shard.sha256 for shard in source.manifest.shards).encode()).hexdigest()
        for split, source in opened.items()
    }
    theirs = processes.values(mine)
    for process, held in enumerate(theirs):
        for split in opened:
            if held[split] != theirs[0][split]:
                what = f"process {process} has other records of {split} than process 0"
                raise UserError(what, str(opened[split].folder), "name one folder of shards for all in data.shards")


Plan = tuple[shards.Maker, int, Mapping[str, Any]]


def _plans(config: config_dict.ConfigDict, sampling: Sampling, log: Log) -> dict[str, Plan]:
    """Split → (maker, number of items, recipe)."""
    data, language, seed = config.data, config.run.language, config.run.seed
    if language not in render.LANGUAGES:
        raise UserError(f"unknown language {language!r}", "run.language", "use one of zh, en")
    common = {"source": data.source, "language": language, "sampling": vars(sampling), "made_by": made_by()}
    if data.source == "render":
        # Overlays of drawn ads are brand and price, in Latin letters in both languages.
        notes = {"audio": render.AUDIO, "overlay": "latin"}
        log(f"ads: speech is {render.AUDIO}, overlays are latin")
        return {
            split: (
                DrawAds(split, seed, language, sampling),
                data[f"videos_{split}"],
                {**common, **notes, "split": split, "seed": seed},
            )
            for split in SPLITS
        }
    if data.source == "annotations":
        groups = _released(data, seed, log)
        root = Path(data.videos) if data.videos else None
    elif data.source == "folder":
        groups = _own(data, seed, log)
        root = folder.video_root(data.jsonl, data.videos)
    else:
        raise UserError(f"unknown source {data.source!r}", "data.source", "use one of render, annotations, folder")
    if root is not None and not root.is_dir():
        raise UserError("no such folder of videos", str(root), "set data.videos, or leave it out for stand-ins")
    notes = {"audio": "the video's", "overlay": "the video's"}
    if root is None:
        notes = {"audio": speech.speaker(), "overlay": standin.overlays()}
        log(f"stand-in videos: speech is {notes['audio']}, overlays are {notes['overlay']}")
    plans: dict[str, Plan] = {}
    for split, groups_of_split in groups.items():
        rows = tuple(groups_of_split)
        recipe = {**common, **notes, "split": split, "rows": _digest(rows), "files": _files(rows, root)}
        plans[split] = (ReadVideos(rows, root, language, sampling), len(rows), recipe)
    return plans


def _released(data: config_dict.ConfigDict, seed: int, log: Log) -> dict[str, list[Rows]]:
    """The released annotations: split → rows of each video."""
    if not data.annotations:
        raise UserError("no annotations", "data.annotations", "name the folder with the E-VAds parquets")
    files = annotations.read_folder(data.annotations, required=("sft", "rl"))
    for file in files.values():
        _check_rows(file, data.max_bad_share, log)
    groups = {kind: makers.by_video(file.examples) for kind, file in files.items()}
    shared = {rows[0].video for rows in groups["sft"]} & {rows[0].video for rows in groups["rl"]}
    if shared:
        raise UserError(f"{len(shared)} videos stand in both SFT and RL rows", min(shared), "keep them in one")
    kept, held = _hold_out([*groups["sft"], *groups["rl"]], data.held_out, seed)
    names = {rows[0].video for rows in kept}
    splits = {kind: [rows for rows in groups[kind] if rows[0].video in names] for kind in ("sft", "rl")}
    if "test" in groups:
        return _capped(splits | {"validation": held, "test": groups["test"]}, data, seed)
    return _capped(splits | {"validation": held[::2], "test": held[1::2]}, data, seed)


def _own(data: config_dict.ConfigDict, seed: int, log: Log) -> dict[str, list[Rows]]:
    """One's own videos: split → rows of each video; sft and rl are the same videos."""
    if not data.jsonl:
        raise UserError("no file of questions", "data.jsonl", "name a JSONL or CSV file")
    file = folder.read_questions(data.jsonl, data.videos)
    _check_rows(file, data.max_bad_share, log)
    kept, held = _hold_out(makers.by_video(file.examples), data.held_out, seed)
    return _capped({"sft": kept, "rl": kept, "validation": held[::2], "test": held[1::2]}, data, seed)


def _hold_out(groups: Sequence[Rows], share: float, seed: int) -> tuple[list[Rows], list[Rows]]:
    """Videos to train on, in their order, and videos held back, in random order: two at least."""
    if not 0 < share < 1:
        raise UserError(f"a share of {share} cannot be held out", "data.held_out", "give one between 0 and 1")
    if len(groups) < 3:
        raise UserError(f"{len(groups)} videos cannot be split", "data", "give at least three")
    ranked = sorted(groups, key=functools.partial(_rank, seed))
    held = ranked[: min(max(math.ceil(share * len(groups)), 2), len(groups) - 1)]
    names = {rows[0].video for rows in held}
    return [rows for rows in groups if rows[0].video not in names], held


def _rank(seed: int, rows: Rows) -> bytes:
    return hashlib.blake2b(f"{seed}/{rows[0].video}".encode(), digest_size=8).digest()


def _capped(groups: Mapping[str, list[Rows]], data: config_dict.ConfigDict, seed: int) -> dict[str, list[Rows]]:
    """At most `data.videos_<split>` videos of each split, drawn by the seed, in their order; 0 keeps all."""
    capped = {}
    for split in SPLITS:
        rows, cap = groups[split], data[f"videos_{split}"]
        if cap and cap < len(rows):
            chosen = {id(r) for r in sorted(rows, key=functools.partial(_rank, seed + 1))[:cap]}
            rows = [r for r in rows if id(r) in chosen]
        capped[split] = rows
    return capped


def _check_rows(file: annotations.AnnotationFile, max_bad_share: float, log: Log) -> None:
    if file.bad:
        total = len(file.examples) + len(file.bad)
        log(f"{len(file.bad)} of {total} rows are malformed and left out, the first: {file.bad[0]}")
    file.check(max_bad_share)


def check_broken(
    manifest: shards.Manifest,
    count: int,
    max_bad_share: float,
    log: Log,
    items: str = "videos",
    what: str = "are broken",
) -> None:
    """Tells what of a split could not be had, and fails when it is too much or leaves nothing.

    Args:
      manifest: of the split.
      count: items that it was made from.
      max_bad_share: the share of them that may be missing.
      log: told in one line.
      items: what they are called.
      what: what is the matter with those that are missing.

    Raises:
      UserError: above the share, or nothing is left.
    """
    if not (broken := manifest.broken):
        return
    first = f"{broken[0].video}: {broken[0].kind} ({broken[0].detail})"
    log(f"{manifest.split}: {len(broken)} of {count} {items} {what} and are left out, the first {first}")
    if len(broken) == count or len(broken) / count > max_bad_share:
        raise UserError(
            f"{len(broken)} of {count} {items} of {manifest.split} {what} (data.max_bad_share={max_bad_share})",
            first,
            "mend or remove them, or raise data.max_bad_share",
        )


def check_foreign(opened: Mapping[str, shards.RecordSource], asked: Mapping[str, Any]) -> None:
    """Refuses ready shards that were not made as the config asks.

    Args:
      opened: split → its records.
      asked: field of the shards' recipe, or of its sampling → what the config asks for.

    Raises:
      UserError: naming the first field that differs.
    """
    for split, source in opened.items():
        recipe = source.manifest.recipe
        held = {**recipe, **recipe.get("sampling", {})}
        for name, value in asked.items():
            if held.get(name) != value:
                raise UserError(
                    f"{split} shards have {name} {held.get(name)!r}, the config asks for {value!r}",
                    str(source.folder),
                    "change the config, or name another data.shards",
                )


def made_by(sources: Sequence[ModuleType] = _SOURCES, packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """What decides the bytes of a record beside its recipe: the code that makes it, and the codecs."""
    code = hashlib.sha256(b"".join(Path(str(module.__file__)).read_bytes() for module in sources))
    return {"code": code.hexdigest()[:16]} | {name: importlib.metadata.version(name) for name in packages}


def _digest(groups: Iterable[Rows]) -> str:
    return hashlib.sha256("\n".join(repr(rows) for rows in groups).encode()).hexdigest()


def _files(groups: Iterable[Rows], root: Path | None) -> str:
    """A digest of the videos' sizes and times of change, so that a mended file is read again."""
    if root is None:
        return ""
    stats = [path.stat() if (path := makers.locate(root, rows[0].video)).is_file() else None for rows in groups]
    return hashlib.sha256(repr([s and (s.st_size, s.st_mtime_ns) for s in stats]).encode()).hexdigest()


def _progress(log: Log, split: str, done: int, total: int) -> None:
    log(f"{split}: {done} of {total} videos")


def _sizes(opened: Mapping[str, shards.RecordSource]) -> str:
    return ", ".join(f"{len(source)} {split}" for split, source in opened.items()) + " videos"
