"""Drawn products as records: pages, short videos and live clips of each, from its script alone."""

import dataclasses
import random
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from evads_jax.data.media import encode_jpeg
from evads_jax.data.products import drawing, wording
from evads_jax.data.products.catalogue import ProductScript
from evads_jax.data.products.records import DOMAINS, ProductClip, ProductRecord

_TEXTS: dict[str, Callable[[ProductScript, str, random.Random], str]] = {
    "page": wording.title,
    "video": wording.speech,
    "live": wording.live,
}


@dataclasses.dataclass(frozen=True)
class DrawProducts:
    """Item number → the record of a drawn product; picklable, since worker processes call it.

    Attributes:
      split: names the products.
      scripts: the products.
      language: "en" or "zh".
      clips: how many of each of `DOMAINS` a product has.
      frames: frames of a video or live clip.
      size: side of a frame in pixels.
    """

    split: str
    scripts: tuple[ProductScript, ...]
    language: str
    clips: tuple[int, int, int]
    frames: int
    size: int

    def __call__(self, index: int) -> ProductRecord:
        """The `index`-th product of the split."""
        script, product = self.scripts[index], f"{self.split}-{index:05d}"
        clips = [
            self._clip(script, product, domain, number)
            for domain, count in zip(DOMAINS, self.clips, strict=True)
            for number in range(count)
        ]
        return ProductRecord(product, tuple(clips), script.kind.category, "render", script.facts)

    def _clip(self, script: ProductScript, product: str, domain: str, number: int) -> ProductClip:
        name = f"{product}/{domain}{number}"
        rng = np.random.default_rng([script.seed, DOMAINS.index(domain), number])
        if domain == "page":
            frames = drawing.page_picture(script, rng)
        elif domain == "video":
            frames = drawing.video_frames(script, self.frames, rng)
        else:
            frames = drawing.live_frames(script, self.frames, rng)
        text = _TEXTS[domain](script, self.language, random.Random(f"{script.seed} {domain} {number}"))
        return ProductClip(name, product, domain, tuple(map(encode_jpeg, resized(frames, self.size))), text)


def resized(frames: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
    """Frames as squares of `size` pixels; those of other proportions are stretched, as nothing may be cut off."""
    return [np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BILINEAR)) for frame in frames]
