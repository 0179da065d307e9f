"""FLoR's base training: cross-entropy over the source classes, on the loop that all stages share.

Views of the images are drawn on the device from the step's key, and so are the weights of the norms. Which step is
best is chosen by episodes of validation classes, which share no class with the training and nothing with a target; the
released code chooses on the targets' test splits instead.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from evads_jax.benchmark import fewshot
from evads_jax.benchmark.fewshot import Episodes
from evads_jax.data.fewshot.sets import ImageSet
from evads_jax.errors import UserError
from evads_jax.models import flor
from evads_jax.models.flor import Augmentation, FlorConfig
from evads_jax.train import optimizer, state
from evads_jax.train.stage import Learner, StepBatches
from evads_jax.train.state import TrainState

Tree = Any


class FlorBatch(NamedTuple):
    """Labelled images, on the host or on the devices.

    Attributes:
      images: 8-bit RGB.
      labels: their classes.
    """

    images: UInt8[Any, "B H W 3"]
    labels: Int[Any, " B"]


class ImageBatches(StepBatches[FlorBatch]):
    """Endless batches of a set in a seeded order, anew in every epoch; what is left of an epoch is not used.

    Args:
      images: the set.
      batch: images a batch.
      seed: of the order.

    Raises:
      UserError: the set is smaller than a batch.
    """

    def __init__(self, images: ImageSet, batch: int, seed: int):
        if not 0 < batch <= len(images):
            raise UserError(f"batches of {batch} from {len(images)} images of {images.name}", "config: batch")
        self._images, self._batch, self._seed = images, batch, seed
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def batch(self, step: int) -> FlorBatch:
        """The batch of a step."""
        epoch, place = divmod(step, len(self._images) // self._batch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self._seed, epoch)).permutation(len(self._images))
        chosen = np.sort(self._order[place * self._batch : (place + 1) * self._batch])  # a mapped file is read in order
        return FlorBatch(np.asarray(self._images.images[chosen]), self._images.labels[chosen])


class FlorLearner(Learner[FlorBatch]):
    """Minimises the cross-entropy of the source classes.

    Args:
      params: where it starts; they are copied.
      model: the network.
      optimizer: from `optimizer.make`, with `flor.decay_mask`.
      augmentation: how views are drawn.
      validation: parameters → metrics, of which `loss` chooses the step (`EpisodeValidation`); None: no validation.
      place: puts a batch on the devices.
    """

    shown = ("loss", "accuracy", "grad_norm")

    def __init__(
        self,
        params: Tree,
        model: FlorConfig,
        optimizer: optimizer.Optimizer,
        augmentation: Augmentation,
        validation: Callable[[Tree], dict[str, Any]] | None = None,
        place: Callable[[Tree], Tree] = jax.device_put,
    ):
        self._params, self._model, self._optimizer, self._augmentation = params, model, optimizer, augmentation
        self._validation, self._place = validation, place
        self.update = jax.jit(self._update, donate_argnums=0)

    def initial(self) -> TrainState:
        """See `Learner`."""
        return state.create(self._params, self._optimizer.transformation)

    def step(self, before: TrainState, batch: FlorBatch, key: jax.Array) -> tuple[TrainState, dict[str, Any]]:
        """See `Learner`; the key draws the views and the norms' weights."""
        return self.update(before, self._place(batch), key)

    def validate(self, now: TrainState) -> dict[str, Any]:
        """See `Learner`."""
        return {} if self._validation is None else self._validation(now.params)

    def _update(self, before: TrainState, batch: FlorBatch, key: jax.Array) -> tuple[TrainState, dict[str, Any]]:
        view_key, weight_key = jax.random.split(key)
        views = flor.augment(batch.images, view_key, self._model.image_size, self._augmentation)

        def mean_loss(params: Tree) -> tuple[Float[Array, ""], tuple[Array, Tree]]:
            found, statistics = flor.features(params, self._model, views, "train", key=weight_key)
            logits = flor.logits(params, found)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()
            return loss, ((logits.argmax(axis=-1) == batch.labels).mean(), statistics)

        (loss, (accuracy, statistics)), gradients = jax.value_and_grad(mean_loss, has_aux=True)(before.params)
        after, metrics = state.apply_gradients(before, self._optimizer.transformation, loss, gradients)
        after = dataclasses.replace(after, params={**after.params, flor.STATISTICS: statistics})
        rate = self._optimizer.schedule(before.step)
        return after, {"loss": loss, "accuracy": accuracy, "learning_rate": rate, **metrics}


class EpisodeValidation:
    """The accuracy of nearest prototypes on episodes of the validation classes; its `loss` is the share of errors.

    Args:
      model: the network.
      images: of the validation classes, of the network's size.
      episodes: drawn from them.
      batch: images computed at one time.
    """

    def __init__(self, model: FlorConfig, images: ImageSet, episodes: Episodes, batch: int = 128):
        self._model, self._images, self._episodes, self._batch = model, images, episodes, batch

    def __call__(self, params: Tree) -> dict[str, float]:
        """Metrics of these parameters."""
        features = fewshot.embed(params, self._model, self._images.images, self._batch)
        accuracy = float(fewshot.accuracy(features, self._episodes).mean())
        return {"loss": 1.0 - accuracy, "accuracy": accuracy}
