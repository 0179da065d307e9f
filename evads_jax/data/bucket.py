"""Shards whose home is in a bucket: brought here shard by shard, and put there when they are complete.

In the bucket a folder of shards looks as on the disk (`data.shards`). The manifest goes up last, and is taken away
before anything that it speaks of is replaced: a manifest in the bucket always tells of shards that are there.
"""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from evads_jax import storage, whole
from evads_jax.data.manifest import Manifest, manifest_of, problem, read_manifest
from evads_jax.errors import UserError

_MANIFEST = "manifest.json"


def fetched(folder: str | Path, splits: Iterable[str]) -> Path:
    """Where on this machine the shards of some splits are; those in a bucket are brought here first.

    A shard is taken when its size and hash are the manifest's; one that is here already is not brought again. A split
    that has no manifest in the bucket is left as it is here. What lies in the mirror of the run is there already.

    Args:
      folder: a folder of splits, local or `gs://BUCKET/folder`.
      splits: names of splits.

    Raises:
      UserError: the bucket cannot be used, or holds a damaged shard.
    """
    url = storage.url_of(folder)
    if url is None:
        return Path(folder)
    if (here := storage.inside(url)) is not None:
        return here
    store, local = storage.Bucket(url), storage.local_folder(url)
    held = store.list()  # tells of a bucket that is not there before shards are made for it
    for split in splits:
        if f"{split}/{_MANIFEST}" in held and (text := store.get(f"{split}/{_MANIFEST}")) is not None:
            try:
                _fetch(store, url, local / split, split, text)
            except OSError as error:
                reason = error.strerror or str(error)
                raise UserError(f"cannot fetch shards: {reason}", str(local / split), "make room") from error
    return local


def upload(local: Path, folder: str | Path, splits: Iterable[str]) -> None:
    """Puts the shards of some splits where they belong; nothing where that is no bucket, or another one does it.

    Another process, or the mirror of the run, in which they lie.

    Args:
      local: the complete shards, as `fetched` named them.
      folder: what the user named.
      splits: names of splits.

    Raises:
      UserError: the bucket cannot be used; what is there is as it was, or has no manifest yet.
    """
    url = storage.url_of(folder)
    if url is None or storage.inside(url) is not None or not storage.writes():
        return
    store = storage.Bucket(url)
    held = store.list()
    for split in splits:
        manifest = read_manifest(local / split)
        assert manifest is not None
        changed = [shard.name for shard in manifest.shards if not _same(held, split, local / split / shard.name)]
        if not changed and _same(held, split, local / split / _MANIFEST):
            continue
        store.delete(f"{split}/{_MANIFEST}")
        for name in (*changed, "recipe.json", _MANIFEST):
            store.put(f"{split}/{name}", local / split / name)


def _fetch(store: storage.Store, url: str, folder: Path, split: str, text: bytes) -> None:
    manifest = _read(text, f"{url}/{split}/{_MANIFEST}")
    folder.mkdir(parents=True, exist_ok=True)
    for shard in manifest.shards:
        if problem(folder, shard) is None:
            continue
        with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=folder) as arriving:
            arrived = Path(arriving, shard.name)
            try:
                store.get_file(f"{split}/{shard.name}", arrived)
                trouble = problem(Path(arriving), shard)
            except FileNotFoundError:
                trouble = "it is missing"
            if trouble:
                what = "remove the split's folder from the bucket and prepare it again"
                raise UserError(f"damaged shard: {trouble}", f"{url}/{split}/{shard.name}", what)
            arrived.replace(folder / shard.name)
    for name, content in (("recipe.json", store.get(f"{split}/recipe.json")), (_MANIFEST, text)):
        if content is not None:
            whole.write(folder / name, content)


def _read(text: bytes, where: str) -> Manifest:
    try:
        return manifest_of(json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError("unreadable manifest", where, "remove the folder from the bucket") from error


def _same(held: dict[str, storage.Object], split: str, path: Path) -> bool:
    """Whether the bucket holds just this file."""
    about = held.get(f"{split}/{path.name}")
    return about is not None and storage.same(path, about) is True
