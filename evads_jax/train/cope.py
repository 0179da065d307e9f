"""Training of COPE: batches of products with one clip of each domain, and the learner on the shared loop.

A batch holds B products. Of each, a page, a short video and a live clip are drawn anew in every epoch; a product that
has none in some domain comes with an empty clip there, which no loss counts. Products of a batch are different ones as
long as the batch is smaller than the split; where one comes twice, its rows are not each other's negatives.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Int

from evads_jax.data.loader import make_loader
from evads_jax.data.products.records import DOMAINS, ProductClip, ProductRecord
from evads_jax.errors import UserError
from evads_jax.models import cope
from evads_jax.models.cope import ClipBatch, CopeConfig, LossSettings
from evads_jax.models.cope.inputs import ClipInputs, ClipItem
from evads_jax.processes import gather
from evads_jax.train import optimizer, state
from evads_jax.train.stage import Learner
from evads_jax.train.state import TrainState

Tree = Any


class ProductItem(NamedTuple):
    """A product's number among the training products, and one clip of each domain."""

    product: int
    clips: Mapping[str, ClipItem]


@struct.dataclass
class CopeBatch:
    """B products with one clip of each domain.

    Attributes:
      products: which product a row is, 0 … C − 1.
      clips: domain → its clips, row by row.
    """

    products: Int[Array, " B"]
    clips: dict[str, ClipBatch]


class ProductInputs:
    """Builds training items and batches; picklable where its tokenizer is.

    Args:
      clips: builds what the model reads.
      classes: product → its number.
    """

    def __init__(self, clips: ClipInputs, classes: Mapping[str, int]):
        self._clips, self._classes = clips, classes

    def item(self, record: ProductRecord, unit: int | None, rng: np.random.Generator) -> ProductItem:
        """One clip of each domain, drawn uniformly."""
        drawn = {}
        for domain in DOMAINS:
            clips = record.of(domain)
            drawn[domain] = self._clips.item(clips[rng.integers(len(clips))]) if clips else self._clips.nothing
        return ProductItem(self._classes[record.product], drawn)

    def collate(self, items: Sequence[ProductItem]) -> CopeBatch:
        """Items as a batch."""
        clips = {domain: self._clips.collate([item.clips[domain] for item in items], domain) for domain in DOMAINS}
        products: Any = np.array([item.product for item in items], np.int32)
        return CopeBatch(products, clips)

    def loader(self, source: Any, batch: int, seed: int, workers: int) -> Any:
        """An endless iterator over batches of a split.

        Raises:
          UserError: the split has fewer products than a batch.
        """
        if batch > len(source):
            raise UserError(f"batches of {batch} from {len(source)} products", "config.cope.batch_products", "lower it")
        return make_loader(source, self.item, self.collate, batch=batch, seed=seed, workers=workers, random=True)


class CopeLearner(Learner[CopeBatch]):
    """Minimises `cope_loss`.

    Args:
      params: where it starts; they are copied.
      model: the model's sizes.
      settings: the loss.
      optimizer: from `make_optimizer`.
      validation: parameters → metrics, of which `loss` may stop the stage; None: no validation.
      place: puts a batch on the devices.
    """

    shown = ("loss", "grad_norm", "learning_rate")

    def __init__(
        self,
        params: Tree,
        model: CopeConfig,
        settings: LossSettings,
        optimizer: optimizer.Optimizer,
        validation: Callable[[Tree], dict[str, Any]] | None = None,
        place: Callable[[Tree], Tree] = jax.device_put,
    ):
        self._params, self._model, self._settings, self._optimizer = params, model, settings, optimizer
        self._validation, self._place = validation, place
        self.update = jax.jit(self._update, donate_argnums=0)

    def initial(self) -> TrainState:
        """See `Learner`."""
        return state.create(self._params, self._optimizer.transformation)

    def step(self, before: TrainState, batch: CopeBatch, key: jax.Array) -> tuple[TrainState, dict[str, Any]]:
        """See `Learner`; nothing is random here but which products and clips come."""
        return self.update(before, self._place(batch))

    def validate(self, now: TrainState) -> dict[str, Any]:
        """See `Learner`."""
        return {} if self._validation is None else self._validation(now.params)

    def _update(self, before: TrainState, batch: CopeBatch) -> tuple[TrainState, dict[str, Any]]:
        def total(params: Tree) -> tuple[Array, dict[str, Array]]:
            embeddings = {d: cope.encode(params, self._model, clips, d) for d, clips in batch.clips.items()}
            return cope.cope_loss(params, self._model, self._settings, batch.clips, embeddings, batch.products)

        (loss, parts), gradients = jax.value_and_grad(total, has_aux=True)(before.params)
        after, metrics = state.apply_gradients(before, self._optimizer.transformation, loss, gradients)
        rate = self._optimizer.schedule(before.step)
        return after, {"loss": loss, "learning_rate": rate, **parts, **metrics}


def make_optimizer(section: Any, model: CopeConfig) -> optimizer.Optimizer:
    """The stage's optimizer, with the learning rate of the encoders multiplied by `visual_rate` and `text_rate`.

    The released code trains downloaded encoders with a small share of the rate of what is new.

    Args:
      section: `config.cope`; see `optimizer.make`.
      model: the model's sizes.
    """
    axes, shapes = cope.axes(model), cope.abstract(model)
    matrices = optimizer.matrices(shapes, axes, cope.fan_in(model))
    made = optimizer.make(section, cope.decay_mask(model), section.max_steps, matrices)
    rates = {"visual": section.visual_rate, "text": section.text_rate}
    if all(rate == 1 for rate in rates.values()):
        return made

    def rate(path: tuple[Any, ...], _: Any) -> float:
        names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        return rates[names[2]] if names[0] == "encoders" else 1.0

    multipliers = jax.tree_util.tree_map_with_path(rate, shapes)
    scale = optax.stateless(lambda updates, params: jax.tree.map(lambda u, r: u * r, updates, multipliers))
    return made._replace(transformation=optax.chain(made.transformation, scale))


class Encoder:
    """Embeds clips of a model in batches of one shape, each domain compiled once.

    Args:
      model: the model's sizes.
      inputs: builds what it reads.
      batch: clips at one time.
      place: puts a batch on the devices.
    """

    def __init__(
        self, model: CopeConfig, inputs: ClipInputs, batch: int, place: Callable[[Tree], Tree] = jax.device_put
    ):
        self._inputs, self._batch, self._place = inputs, batch, place
        self.encode = jax.jit(functools.partial(_stand_for, model), static_argnames="domain")

    def __call__(self, params: Tree, clips: Iterable[ProductClip], domain: str) -> np.ndarray:
        """The embeddings that stand for clips of one domain in retrieval, float32 [N, E].

        Args:
          params: the model's parameters.
          clips: one or more; their pictures are decoded a batch at a time.
          domain: theirs.
        """
        vectors, left = [], iter(clips)
        while part := [self._inputs.item(clip) for clip in itertools.islice(left, self._batch)]:
            full = part + [self._inputs.nothing] * (self._batch - len(part))
            batch = self._place(self._inputs.collate(full, domain))
            vectors.append(gather(self.encode(params, batch, domain=domain))[: len(part)])
        return np.concatenate(vectors)


def _stand_for(model: CopeConfig, params: Tree, clips: ClipBatch, domain: str) -> Array:
    return cope.embedding(cope.encode(params, model, clips, domain), model, domain)
