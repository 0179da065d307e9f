"""From a config to the product splits as shards: drawn products, or ROPE's files.

    W/products/{train,validation,test}/…     `data.shards`

Splits share no product. Drawn combinations are dealt out by hash; of ROPE's training products `data.held_out` are held
back for validation, by the hash of (seed, product), and its test products are the test split.
"""

import functools
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from evads_jax.data import bucket, media, packing, shards
from evads_jax.data.prepare import WORKERS, check_broken, check_foreign, made_by
from evads_jax.data.products import catalogue, drawing, records, render, rope, wording
from evads_jax.data.products.catalogue import EDITION, SPLITS, draw_catalogue
from evads_jax.data.products.records import DOMAINS, PRODUCTS, ProductRecord
from evads_jax.data.products.render import DrawProducts
from evads_jax.data.products.rope import Layout, ReadRope, RopeProduct, read_rope
from evads_jax.data.render import LANGUAGES, fonts, vocabulary
from evads_jax.data.render import drawing as ads
from evads_jax.data.shards import RecordSource
from evads_jax.errors import UserError

ON_BAD = ("skip", "refuse")
FOLDER = "products"

# What a record is made by: a change in any of these makes another record.
_SOURCES = (ads, vocabulary, fonts, media, packing, catalogue, drawing, records, render, rope, wording)

Log = Callable[[str], None]
Plan = tuple[Any, int, Mapping[str, Any]]


def prepare(config: ConfigDict, workdir: str | Path, log: Log) -> dict[str, RecordSource[ProductRecord]]:
    """Makes, completes or reuses the shards of every split.

    Args:
      config: the run's config: sections `data`, `run` and, of `model`, `frames` and `frame_size`.
      workdir: shards go to `workdir/products/<split>` unless `data.shards` names another folder, which is then used as
        it is where it holds all splits, if its pictures were taken as this config asks. One in a bucket (`gs://…`) is
        fetched, or made here and put there when all of it is checked.
      log: told one line of text at a time: progress, and what was left out.

    Returns:
      Split → its products.

    Raises:
      UserError: bad source, something that cannot be had where `data.on_bad` is "refuse", more products without a
        pair than `data.max_bad_share`, a damaged shard, an unwritable folder.
    """
    data = config.data
    if data.on_bad not in ON_BAD:
        raise UserError(f"unknown choice {data.on_bad!r}", "data.on_bad", "one of " + ", ".join(ON_BAD))
    asked = {"source": data.source, "frames": config.model.frames, "size": config.model.frame_size}
    root = bucket.fetched(data.shards, SPLITS) if data.shards else Path(workdir) / FOLDER
    if data.shards and all((root / split / "manifest.json").is_file() for split in SPLITS):
        opened = open_splits(root)
        if data.source == "render":
            asked |= {"language": config.run.language, "edition": EDITION, "clips": list(_clips(data))}
            for split, source in opened.items():
                held, count = len(source) + len(source.manifest.broken), data[f"products_{split}"]
                if held != count:
                    what = f"{held} {split} products, the config asks for {count}"
                    raise UserError(what, str(source.folder), f"set data.products_{split}, or another data.shards")
        check_foreign(opened, asked)
    else:
        plans = _rendered(config) if data.source == "render" else _rope(config)
        opened = {}
        for split, (maker, count, recipe) in plans.items():
            if not count:
                do = f"raise data.products_{split}" if data.source == "render" else "change data.held_out"
                raise UserError("a split without products", split, do)
            manifest = shards.build(
                maker,
                count,
                root / split,
                split=split,
                recipe={**asked, **recipe, "made_by": made_by(_SOURCES)},
                per_shard=data.records_per_shard,
                workers=WORKERS if count > data.records_per_shard else 0,
                progress=functools.partial(_progress, log, split),
                packing=PRODUCTS,
            )
            check_broken(manifest, count, data.max_bad_share, log, "products", "have no pair")
            opened[split] = shards.open(root, split, PRODUCTS)
        bucket.upload(root, data.shards, SPLITS)
    log("products: " + ", ".join(f"{len(source)} {split}" for split, source in opened.items()))
    return opened


def open_splits(root: str | Path) -> dict[str, RecordSource[ProductRecord]]:
    """The products of every split under a folder that is complete.

    Raises:
      UserError: a split is missing or damaged.
    """
    return {split: shards.open(root, split, PRODUCTS) for split in SPLITS}


def survey(source: RecordSource[ProductRecord], says: Callable[[str], bool]) -> dict[str, int]:
    """Counts what a split holds, and what it lacks.

    Args:
      source: the split.
      says: whether a text has any token; one of letters that a vocabulary leaves out has none.

    Returns:
      `products`, the clips of each domain, the products with clips in both of two domains (`page_and_video`, …),
      `without_text` and `without_picture` (clips), what was lost by kind (`lost_missing`, `lost_undecodable`,
      `lost_empty`) and `without_pair` (products left out).
    """
    counts: Counter[str] = Counter(products=len(source))
    for index in range(len(source)):
        record = source[index]
        shown = [domain for domain in DOMAINS if record.of(domain)]
        counts.update(f"{one}_and_{other}" for one, other in itertools.combinations(shown, 2))
        for clip in record.clips:
            counts[clip.domain] += 1
            counts["without_text"] += not says(clip.text)
            counts["without_picture"] += not clip.frames
        counts.update(f"lost_{lost.kind}" for lost in record.lost)
    counts["without_pair"] = len(source.manifest.broken)
    return {name: count for name, count in counts.items() if count}


def _clips(data: ConfigDict) -> tuple[int, int, int]:
    """Clips of a drawn product in each of `DOMAINS`."""
    return data.pages, data.videos, data.lives


def _rendered(config: ConfigDict) -> dict[str, Plan]:
    data, language, seed = config.data, config.run.language, config.run.seed
    if language not in LANGUAGES:
        raise UserError(f"unknown language {language!r}", "run.language", "one of " + ", ".join(LANGUAGES))
    clips = _clips(data)
    if min(clips) < 1:
        raise UserError(f"{clips} clips in {DOMAINS}", "data", "each domain needs one at least")
    plans: dict[str, Plan] = {}
    for split in SPLITS:
        scripts = draw_catalogue(seed, split, data[f"products_{split}"])
        maker = DrawProducts(split, scripts, language, clips, config.model.frames, config.model.frame_size)
        plans[split] = maker, len(scripts), {"language": language, "seed": seed, "clips": clips, "edition": EDITION}
    return plans


def _rope(config: ConfigDict) -> dict[str, Plan]:
    data, model, seed = config.data, config.model, config.run.seed
    if data.source != "rope":
        raise UserError(f"unknown source {data.source!r}", "data.source", "one of render, rope")
    if not data.rope or not data.pictures:
        raise UserError("ROPE's files are not named", "data.rope, data.pictures", "name the two folders")
    if not Path(data.pictures).is_dir():
        raise UserError("no such folder of pictures", str(data.pictures), "download them first")
    if not 0 < data.held_out < 1:
        raise UserError(f"a share of {data.held_out} cannot be held out", "data.held_out", "give one between 0 and 1")
    layout = Layout(data.separator, tuple(data.pair_columns))
    read = functools.partial(read_rope, data.rope, layout=layout, most=data.clips_per_domain)
    training, test = read("train"), read("test")
    if shared := {p.product for p in training} & {p.product for p in test}:
        raise UserError(f"{len(shared)} products are in training and test", min(shared), "keep them in one")
    held = [p for p in training if _share(seed, p.product) < data.held_out]
    kept = [p for p in training if _share(seed, p.product) >= data.held_out]
    groups = {"train": kept, "validation": held, "test": list(test)}
    plans: dict[str, Plan] = {}
    for split, products in groups.items():
        chosen = _capped(products, data[f"products_{split}"], seed)
        maker = ReadRope(chosen, Path(data.pictures), model.frames, model.frame_size, data.on_bad == "refuse")
        digest = hashlib.sha256("\n".join(map(repr, chosen)).encode()).hexdigest()
        files = _files(chosen, Path(data.pictures))
        plans[split] = maker, len(chosen), {"rows": digest, "files": files, "on_bad": data.on_bad}
    return plans


def _files(products: Sequence[RopeProduct], folder: Path) -> str:
    """A digest of the pictures' sizes and times of change, so that one that was mended or came later is read again."""
    digest = hashlib.sha256()
    for name in (name for product in products for clip in product.clips for name in clip.pictures):
        state = path.stat() if (path := folder / name).is_file() else None
        digest.update(f"{state and (state.st_size, state.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


def _capped(products: list[RopeProduct], most: int, seed: int) -> tuple[RopeProduct, ...]:
    """At most so many products, those of the lowest hashes, in their order; 0 keeps all."""
    if not most or most >= len(products):
        return tuple(products)
    chosen = {p.product for p in sorted(products, key=lambda p: _share(seed + 1, p.product))[:most]}
    return tuple(p for p in products if p.product in chosen)


def _share(seed: int, product: str) -> float:
    """A number in [0, 1) that depends on seed and product alone."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{product}".encode(), digest_size=6).digest(), "big") / 2**48


def _progress(log: Log, split: str, done: int, total: int) -> None:
    log(f"{split}: {done} of {total} products")
