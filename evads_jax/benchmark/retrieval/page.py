"""A page of search results: the query and the nearest products, with pictures. One file, no script, all escaped."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from evads_jax.benchmark import html
from evads_jax.benchmark.html import escape
from evads_jax.benchmark.pictures import data_url
from evads_jax.benchmark.retrieval.metrics import similarities
from evads_jax.benchmark.retrieval.score import Clips
from evads_jax.data.products.records import ProductClip


@dataclasses.dataclass(frozen=True)
class Found:
    """A product of the gallery.

    Attributes:
      product: its name.
      similarity: of its nearest clip, cosine.
      clips: the numbers of its clips in the gallery, the nearest first.
    """

    product: str
    similarity: float
    clips: tuple[int, ...]


def nearest_products(query: np.ndarray, gallery: Clips, count: int) -> list[Found]:
    """The products whose nearest clips are nearest to a query; equal ones in the gallery's order.

    Args:
      query: a unit vector [E].
      gallery: where to look.
      count: the most products.
    """
    ((_, scores),) = similarities(query[None], gallery.vectors)
    clips: dict[str, list[int]] = {}
    for i in np.argsort(-scores[0], kind="stable").tolist():
        clips.setdefault(gallery.products[i], []).append(i)
    return [Found(p, float(scores[0, found[0]]), tuple(found)) for p, found in list(clips.items())[:count]]


def result_page(
    query: ProductClip, found: Sequence[Found], gallery: Sequence[ProductClip], about: str, shown: int = 2
) -> str:
    """The page.

    Args:
      query: what was asked for; an empty product is a query from outside the data.
      found: the answer, best first.
      gallery: the clips that `Found.clips` counts.
      about: a line that says which model and which gallery these are.
      shown: clips shown of each product.
    """
    cards = []
    for place, one in enumerate(found, 1):
        right = " · the query's product" if query.product and one.product == query.product else ""
        clips = "".join(_clip(gallery[i]) for i in one.clips[:shown])
        head = f"{place}. {one.product} · {one.similarity:.3f}{right}"
        cards.append(f'<article class="card"><h3>{escape(head)}</h3>{clips}</article>')
    asked = f'<article class="card"><h3>{escape(query.id)}</h3>{_clip(query)}</article>'
    sections = [("query", "Query", asked), ("products", "Nearest products", "".join(cards) or "<p>None.</p>")]
    return html.page("evads_jax · product search", f'<p class="soft">{escape(about)}</p>', sections)


def _clip(clip: ProductClip) -> str:
    frames = "".join(
        f'<div><img alt="frame {number}" src="{data_url(frame)}"/></div>' for number, frame in enumerate(clip.frames, 1)
    )
    pictures = f'<div class="frames">{frames}</div>' if frames else '<p class="soft">no picture</p>'
    return f"{pictures}<p>{escape(clip.text) or '–'} <span class='soft'>({escape(clip.domain)})</span></p>"
