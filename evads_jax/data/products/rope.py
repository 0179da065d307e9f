"""Reads ROPE (arXiv 2308.05550) from the text files that its authors hand out and a folder of downloaded pictures.

The authors' README names nine files for training:

    training_product_{pages,videos,lives}_pair.txt   which page, video or live clip shows which product
    training_page_titles.txt, training_video_asrs.txt, training_live_asrs.txt
    training_page_images.txt, training_video_frames.txt, training_live_clips.txt   addresses of the pictures

and says that there are such files for the test set without naming them: here `test_…`. **What stands in a line is not
published.** It is taken to be an id, a separator (tab) and a value: product (in either order in the pair files, see
`columns`), text, or picture addresses joined by commas; an id may have several lines. Of a page's pictures the first is
taken. In the released code a text of the one character 空 stands for none. All of this is checked while reading: a line
without separator, a file whose ids do not occur in the pairs, two titles of one clip are told with file and line.

Nothing is downloaded: a picture is looked for under its address's last part in the folder of pictures.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from evads_jax.data import media
from evads_jax.data.fewshot.reading import READING_ERRORS
from evads_jax.data.products.records import DOMAINS, Lost, ProductClip, ProductRecord, spread
from evads_jax.data.products.render import resized
from evads_jax.data.shards import Broken
from evads_jax.errors import UserError

PREFIXES = {"train": "training", "test": "test"}
NO_TEXT = "空"
COLUMNS = ("clip", "product")
_PAIRS = {"page": "product_pages_pair", "video": "product_videos_pair", "live": "product_lives_pair"}
_TEXTS = {"page": "page_titles", "video": "video_asrs", "live": "live_asrs"}
_PICTURES = {"page": "page_images", "video": "video_frames", "live": "live_clips"}


@dataclasses.dataclass(frozen=True)
class RopeClip:
    """What the files say of a clip: its id, domain, text and the names of its pictures in time order."""

    id: str
    domain: str
    text: str
    pictures: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class RopeProduct:
    """A product and its clips."""

    product: str
    clips: tuple[RopeClip, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the authors leave open about a line.

    Attributes:
      separator: between id and value.
      columns: the pair files' columns, ("clip", "product") or ("product", "clip").
    """

    separator: str = "\t"
    columns: tuple[str, str] = COLUMNS

    def __post_init__(self):
        """Refuses columns that are not these two."""
        if sorted(self.columns) != sorted(COLUMNS):
            raise UserError(f"columns {self.columns!r}", "data.pair_columns", f"the two of {COLUMNS}, in their order")


def read_rope(
    folder: str | Path, split: str, layout: Layout | None = None, *, most: int = 0
) -> tuple[RopeProduct, ...]:
    """Reads the products of a split.

    The pair files are read first, and of the others only what belongs to clips that are kept: the whole training split
    has 12 million, whose addresses need some tens of gigabytes in memory.

    Args:
      folder: where the text files are.
      split: "train" or "test".
      layout: what a line looks like.
      most: clips kept of each product and domain, chosen by a hash of their ids; 0 for all.

    Returns:
      The products in the order of their ids. Some may have clips in one domain only.

    Raises:
      UserError: a missing file, or a line that is not as described.
    """
    layout = layout or Layout()
    if split not in PREFIXES:
        raise UserError(f"ROPE has no split {split!r}", str(folder), f"one of {', '.join(PREFIXES)}")
    files = _Files(Path(folder), PREFIXES[split], layout)
    products: dict[str, list[RopeClip]] = {}
    for domain in DOMAINS:
        owners = _capped(_owners(files, domain), most)
        texts, pictures = files.texts(domain, owners), files.pictures(domain, owners)
        for clip, product in owners.items():
            found = RopeClip(clip, domain, texts.get(clip, ""), tuple(pictures.get(clip, ())))
            products.setdefault(product, []).append(found)
    if not products:
        raise UserError("no products", str(folder), "are the pair files empty?")
    return tuple(RopeProduct(name, tuple(products[name])) for name in sorted(products))


def _owners(files: "_Files", domain: str) -> dict[str, str]:
    """Clip → product."""
    swapped = files.layout.columns != COLUMNS
    owners: dict[str, str] = {}
    for where, one, other in files.lines(_PAIRS[domain]):
        product, clips = (one, other.split(",")) if swapped else (other, one.split(","))
        for clip in filter(None, map(str.strip, clips)):
            if owners.setdefault(clip, product) != product:
                what = f"clip {clip!r} belongs to {owners[clip]!r} and to {product!r}"
                raise UserError(what, where, "swap data.pair_columns if the columns stand the other way round")
    return owners


def _capped(owners: Mapping[str, str], most: int) -> dict[str, str]:
    """At most so many clips of each product, those with the lowest hashes, in their order."""
    if not most:
        return dict(owners)
    ranked = sorted(owners, key=lambda clip: hashlib.blake2b(clip.encode(), digest_size=8).digest())
    taken: dict[str, int] = {}
    chosen = set()
    for clip in ranked:
        product = owners[clip]
        if taken.get(product, 0) < most:
            taken[product] = taken.get(product, 0) + 1
            chosen.add(clip)
    return {clip: product for clip, product in owners.items() if clip in chosen}


class _Files:
    """The nine files of a split."""

    def __init__(self, folder: Path, prefix: str, layout: Layout):
        self.folder, self.prefix, self.layout = folder, prefix, layout
        names = [*_PAIRS.values(), *_TEXTS.values(), *_PICTURES.values()]
        if missing := [path for path in map(self._path, names) if not path.is_file()]:
            raise UserError(f"{len(missing)} of ROPE's files are missing", str(missing[0]), "name their folder")

    def lines(self, name: str) -> Iterator[tuple[str, str, str]]:
        """(file:line, first column, rest) of each line that is not empty."""
        path = self._path(name)
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if not (line := line.rstrip("\r\n")).strip():
                    continue
                one, found, other = line.partition(self.layout.separator)
                if not found or not one.strip():
                    what = f"no id and value with {self.layout.separator!r} between them"
                    raise UserError(what, f"{path}:{number}", "set data.separator to what stands there")
                yield f"{path}:{number}", one.strip(), other.strip()

    def texts(self, domain: str, wanted: Mapping[str, str]) -> dict[str, str]:
        """Clip → its text."""
        texts: dict[str, str] = {}
        for where, clip, text in self._of(_TEXTS[domain], wanted):
            text = "" if text == NO_TEXT else text
            if texts.setdefault(clip, text) != text:
                raise UserError(f"two texts of {clip!r}", where, "keep one")
        return texts

    def pictures(self, domain: str, wanted: Mapping[str, str]) -> dict[str, list[str]]:
        """Clip → the file names of its pictures, in the order of the file."""
        pictures: dict[str, list[str]] = {}
        for _, clip, addresses in self._of(_PICTURES[domain], wanted):
            names = (Path(address.strip().partition("?")[0]).name for address in addresses.split(","))
            pictures.setdefault(clip, []).extend(name for name in names if name)
        return pictures

    def _of(self, name: str, wanted: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
        known = False
        for line in self.lines(name):
            if line[1] in wanted:
                known = True
                yield line
        if wanted and not known:
            what = "none of its ids stands in the pair file"
            raise UserError(what, str(self._path(name)), "swap data.pair_columns, or set data.separator")

    def _path(self, name: str) -> Path:
        return self.folder / f"{self.prefix}_{name}.txt"


@dataclasses.dataclass(frozen=True)
class ReadRope:
    """Item number → the record of a product of ROPE; picklable, since worker processes call it.

    Attributes:
      products: the products.
      pictures: the folder of the pictures.
      frames: most frames of a video or live clip (`records.spread`); of a page the first picture is taken.
      size: side of a frame in pixels.
      refuse: whether something that cannot be had ends the job; otherwise it is left out and listed (`lost`).
    """

    products: tuple[RopeProduct, ...]
    pictures: Path
    frames: int
    size: int
    refuse: bool

    def __call__(self, index: int) -> ProductRecord | Broken:
        """The `index`-th product, or why there is none.

        Raises:
          UserError: `refuse`, and a picture is missing or cannot be read, a clip has nothing, or a product no pair.
        """
        product = self.products[index]
        clips: list[ProductClip] = []
        lost: list[Lost] = []
        for clip in product.clips:
            frames, bad = self._read(clip)
            lost += bad
            if not frames and not clip.text:
                lost.append(Lost(clip.id, "empty", "neither a picture nor a text"))
                continue
            clips.append(ProductClip(clip.id, product.product, clip.domain, frames, clip.text))
        if self.refuse and lost:
            raise UserError(f"{lost[0].kind}: {lost[0].detail}", lost[0].clip, "mend it, or set data.on_bad to skip")
        record = ProductRecord(product.product, tuple(clips), lost=tuple(lost))
        if record.paired:
            return record
        detail = "clips in " + (", ".join(sorted({clip.domain for clip in clips})) or "no domain")
        if self.refuse:
            raise UserError(f"a product without any pair ({detail})", product.product, "set data.on_bad to skip")
        return Broken(product.product, "no_pair", detail)

    def _read(self, clip: RopeClip) -> tuple[tuple[bytes, ...], list[Lost]]:
        frames, lost = [], []
        chosen = [0] if clip.domain == "page" else spread(len(clip.pictures), self.frames)
        for name in (clip.pictures[i] for i in chosen if i < len(clip.pictures)):
            path = self.pictures / name
            if not path.is_file():
                lost.append(Lost(clip.id, "missing", name))
                continue
            try:
                picture = media.decode_jpeg(path.read_bytes())
            except READING_ERRORS as error:
                lost.append(Lost(clip.id, "undecodable", f"{name}: {' '.join(str(error).split())[:120]}"))
                continue
            frames.append(media.encode_jpeg(resized([picture], self.size)[0]))
        return tuple(frames), lost
