"""The records of cross-domain product data: clips of a product, and a product with all its clips, as bytes too.

A clip is what one page, short video or live clip shows and says of a product: a page picture is a clip of one frame,
its title the text. A product is the unit of a shard, so that no split, batch or query ever divides one by accident.
"""

import dataclasses
import json
import struct
from collections.abc import Mapping

from evads_jax.data.packing import Packing

DOMAINS = ("page", "video", "live")
MAGIC = b"EVP1"


@dataclasses.dataclass(frozen=True)
class ProductClip:
    """What one page, short video or live clip shows and says of a product.

    Attributes:
      id: unique among the clips of a data set.
      product: the product's name.
      domain: one of `DOMAINS`.
      frames: JPEG files in time order, all of one size; empty where there is no picture.
      text: title (page) or speech and chat (video, live); empty where nothing is said.
    """

    id: str
    product: str
    domain: str
    frames: tuple[bytes, ...]
    text: str


@dataclasses.dataclass(frozen=True)
class Lost:
    """Something that a source names but that cannot be had: a clip or one frame of it.

    Attributes:
      clip: the clip.
      kind: "missing", "undecodable" or "empty".
      detail: which file, and why.
    """

    clip: str
    kind: str
    detail: str


@dataclasses.dataclass(frozen=True)
class ProductRecord:
    """A product with all its clips; one record of a shard.

    Attributes:
      product: its name, unique in a data set.
      clips: its clips, in the order of `DOMAINS`.
      category: goods category; None where the source tells none.
      source: "render" or "rope".
      facts: attribute → value of the script that it was drawn from; empty for real products.
      lost: what its source names and what could not be had.
    """

    product: str
    clips: tuple[ProductClip, ...]
    category: str | None = None
    source: str = "rope"
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    lost: tuple[Lost, ...] = ()

    def of(self, domain: str) -> tuple[ProductClip, ...]:
        """Its clips of one domain."""
        return tuple(clip for clip in self.clips if clip.domain == domain)

    @property
    def paired(self) -> bool:
        """Whether it has clips in two domains at least; without them no pair can be formed of it."""
        return len({clip.domain for clip in self.clips}) > 1


def spread(count: int, most: int) -> list[int]:
    """Which of `count` frames stand for all of them: at most `most`, at int((2i + 1)·count / 2 / most) of more.

    That is the released code's rule.
    """
    return list(range(count)) if count <= most else [int((2 * i + 1) * count / 2 / most) for i in range(most)]


def pack(record: ProductRecord) -> bytes:
    """A record as bytes: magic, length of the header (4 bytes, big endian), header (JSON), then all frames.

    The header's clips have the lengths of their frames in place of the frames. The same record gives the same bytes.
    """
    fields = {
        "product": record.product,
        "category": record.category,
        "source": record.source,
        "facts": dict(record.facts),
        "lost": [dataclasses.astuple(lost) for lost in record.lost],
        "clips": [[c.id, c.product, c.domain, [len(frame) for frame in c.frames], c.text] for c in record.clips],
    }
    text = json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8", "replace")
    return b"".join((MAGIC, struct.pack(">I", len(text)), text, *(frame for c in record.clips for frame in c.frames)))


def unpack(data: bytes) -> ProductRecord:
    """The record of some bytes.

    Raises:
      ValueError: the bytes are no record of a product.
    """
    if data[:4] != MAGIC or len(data) < 8:
        raise ValueError(f"not a product: it begins with {data[:4]!r}")
    at = 8 + struct.unpack(">I", data[4:8])[0]
    fields = json.loads(data[8:at].decode())
    clips = []
    for name, product, domain, lengths, text in fields.pop("clips"):
        frames = []
        for length in lengths:
            frames.append(data[at : at + length])
            at += length
        clips.append(ProductClip(name, product, domain, tuple(frames), text))
    if at != len(data):
        raise ValueError(f"a record of {len(data)} bytes announces {at}")
    return ProductRecord(clips=tuple(clips), lost=tuple(Lost(*lost) for lost in fields.pop("lost")), **fields)


def _count_clips(record: ProductRecord) -> int:
    return len(record.clips)


PRODUCTS = Packing(pack, unpack, _count_clips)
