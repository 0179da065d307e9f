"""COPE's loss: weighted contrastive pairs across domains, and classification of every domain's clips as products."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from evads_jax.errors import UserError
from evads_jax.models.cope.batch import ClipBatch, Embeddings
from evads_jax.models.cope.config import CopeConfig, pairs, standing
from evads_jax.models.cope.contrastive import pair_loss
from evads_jax.models.cope.cosface import cosface_loss


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """How the losses are weighed and shaped; the shapes' defaults are the released code's, weights are not published.

    Attributes:
      pairs: weight of each contrastive pair by its name (`config.pairs`), all 1 where none is given; a pair of weight
        0 is not computed. The paper's weights are not given in the paper.
      classification: weight of the classification's mean over the domains (the released code sums them); 0: it is not
        computed.
      temperature: τ of the contrastive softmax.
      smoothing: share of the target that is spread evenly over a row's candidates.
      scale, margin: s and m of CosFace.
      chunk: anchors of a device whose similarities exist at one time; None for all.
    """

    pairs: tuple[tuple[str, float], ...] = ()
    classification: float = 1.0
    temperature: float = 0.05
    smoothing: float = 0.1
    scale: float = 64.0
    margin: float = 0.4
    chunk: int | None = None

    @classmethod
    def from_config(cls, section: Mapping[str, Any], config: CopeConfig) -> "LossSettings":
        """Reads the `config.loss` section of a job.

        Args:
          section: fields of this class; `pairs` as a mapping from names to weights.
          config: the model, whose pairs these are.

        Raises:
          UserError: a field or a pair that there is not, a number that makes no sense, or nothing to minimise.
        """
        fields: dict[str, Any] = {**section}
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := [name for name in fields if name not in known]:
            raise UserError(f"unknown field {unknown[0]!r}", "config.loss", "one of " + ", ".join(known))
        weights = dict(fields.pop("pairs", {}))
        if unknown := [name for name in weights if name not in pairs(config)]:
            what = f"there is no pair {unknown[0]!r} in this model's form"
            raise UserError(what, "config.loss.pairs", "of " + ", ".join(pairs(config)))
        settings = cls(**fields, pairs=tuple((name, float(weights.get(name, 1.0))) for name in pairs(config)))
        checks = (
            ("pairs", all(weight >= 0 for _, weight in settings.pairs), "must not be negative"),
            ("classification", settings.classification >= 0, "must not be negative"),
            ("temperature", settings.temperature > 0, "must be above 0"),
            ("smoothing", 0 <= settings.smoothing < 1, "must be at least 0 and below 1"),
            ("scale", settings.scale > 0, "must be above 0"),
            ("chunk", settings.chunk is None or settings.chunk >= 1, "must be at least 1, or None"),
            ("pairs", any(w for _, w in settings.pairs) or settings.classification > 0, "leave nothing to minimise"),
        )
        for field, holds, rule in checks:
            if not holds:
                raise UserError(f"{field} {rule}", f"config.loss.{field}")
        return settings


def cope_loss(
    params: Any,
    config: CopeConfig,
    settings: LossSettings,
    clips: Mapping[str, ClipBatch],
    embeddings: Mapping[str, Embeddings],
    products: Int[Array, " B"],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Σ weight · pair loss + weight · classification, of B products with one clip in each domain.

    A row counts in a pair where both sides have what their embeddings are made of (`ClipBatch.has`), and in the
    classification in the domains where it has anything; a product without a clip in some domain comes with an empty
    one. The classification is the mean over the domains of CosFace on the embedding that stands for a clip.

    Args:
      params: the model's parameters; of these only the head of classes is used here.
      config: the model's sizes.
      settings: weights and shapes.
      clips: domain → the clips.
      embeddings: domain → what `encode` gave for them.
      products: which product a row is, 0 … C − 1 where there is a classification. Rows of the same product are not
        each other's negatives.

    Returns:
      The loss and, by name, every pair's loss that has a weight and `classification`.
    """
    metrics: dict[str, Array] = {}
    total = jnp.zeros(())
    weights = dict(settings.pairs)
    for name, ((left, left_kind), (right, right_kind)) in pairs(config).items():
        if not (weight := weights.get(name, 1.0)):
            continue
        metrics[name] = pair_loss(
            getattr(embeddings[left], left_kind),
            getattr(embeddings[right], right_kind),
            clips[left].has(left_kind) & clips[right].has(right_kind),
            products,
            temperature=settings.temperature,
            smoothing=settings.smoothing,
            chunk=settings.chunk,
        )
        total = total + weight * metrics[name]
    if settings.classification and config.classes:
        losses = [
            cosface_loss(
                params["classes"]["weight"],
                getattr(given, standing(config, domain)),
                products,
                clips[domain].has(standing(config, domain)),
                scale=settings.scale,
                margin=settings.margin,
            )
            for domain, given in embeddings.items()
        ]
        metrics["classification"] = jnp.stack(losses).mean()
        total = total + settings.classification * metrics["classification"]
    return total, metrics
