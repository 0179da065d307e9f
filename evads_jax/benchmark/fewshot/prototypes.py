"""Classification by the nearest prototype, thousands of episodes in one jitted call.

Features are normalised; the mean of the episode's support is subtracted (in the transductive form that of its
queries); what is left is normalised again. A prototype is the mean of its class's support, and a query q scores
`−‖q − p‖²`. Queries are never centred one by one: with u the query of norm 1, m the mean and p a prototype,

    ‖u − m‖² = 1 − 2 u·m + m·m      and      −‖q − p‖² = −1 − p·p + 2 (u·p − m·p) / ‖u − m‖,

so that a product of the queries with n + 1 vectors is all there is. What is near the mean cancels, and so do errors: no
product is taken in the accelerators' short floats.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from evads_jax.benchmark.fewshot.episodes import Episodes
from evads_jax.errors import UserError

_TINY = 1e-12  # keeps a feature of zero, or one that is the mean, from becoming NaN


@dataclasses.dataclass(frozen=True)
class Transduction:
    """The transductive form: prototypes are made anew from the support and the queries that seem to belong to them.

    A query counts, with weight 1, for every class whose softmax(temperature · score) is above the threshold. The
    released code's remarks name temperature 40, threshold .225, and 6 rounds for one shot, 1 round for five.

    Attributes:
      rounds: how often prototypes are made anew.
      temperature: what scores are multiplied by.
      threshold: smallest probability of a pseudo-label.
    """

    rounds: int
    temperature: float = 40.0
    threshold: float = 0.225

    def __post_init__(self):
        """Refuses numbers that make no sense.

        Raises:
          UserError: naming the field.
        """
        if self.rounds < 1:
            raise UserError(f"transduction in {self.rounds} rounds", "config: rounds", "take at least one")


def accuracy(
    features: Float[Array, "M D"], episodes: Episodes, transduction: Transduction | None = None, chunk: int = 16
) -> Float[np.ndarray, " E"]:
    """Each episode's share of queries whose nearest prototype is that of their class.

    Args:
      features: one an image, as the network gives them.
      episodes: which images are support and queries.
      transduction: the transductive form; None for the inductive one.
      chunk: episodes computed at one time; memory is about 4 · chunk · n · (k + q) · D bytes.
    """
    return np.asarray(_accuracies(features, jnp.asarray(episodes.indices), episodes.shots, transduction, chunk))


@functools.partial(jax.jit, static_argnames=("shots", "transduction", "chunk"))
def _accuracies(
    features: Array, indices: Int[Array, "E n k+q"], shots: int, transduction: Transduction | None, chunk: int
) -> Float[Array, " E"]:
    unit = unit_length(features)

    def one(chosen: Int[Array, "n k+q"]) -> Float[Array, ""]:
        support, queries = unit[chosen[:, :shots]], unit[chosen[:, shots:]]
        return share_right(scores(support, queries, transduction))

    return jax.lax.map(one, indices, batch_size=chunk)


def unit_length(x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """Vectors divided by their norm."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(axis=-1, keepdims=True), _TINY))


def share_right(scores: Float[Array, "n q n"]) -> Float[Array, ""]:
    """The share of queries whose highest score is that of their own class; the first of equal scores counts."""
    return (scores.argmax(axis=-1) == jnp.arange(scores.shape[0])[:, None]).mean()


def scores(
    support: Float[Array, "n k D"], queries: Float[Array, "n q D"], transduction: Transduction | None = None
) -> Float[Array, "n q n"]:
    """−‖q − p‖² of every query to every prototype of one episode.

    Args:
      support: unit features of the support, by class.
      queries: unit features of the queries, by class.
      transduction: the transductive form; None for the inductive one.
    """
    centre = (support if transduction is None else queries).mean(axis=(0, 1))
    centred = unit_length(support - centre)
    prototypes = centred.mean(axis=1)
    if transduction is None:
        return _distances(queries, centre, prototypes)
    moved = unit_length(queries - centre).reshape(-1, queries.shape[-1])
    total, shots = centred.sum(axis=1), support.shape[1]
    for _ in range(transduction.rounds):
        chances = jax.nn.softmax(transduction.temperature * _distances(queries, centre, prototypes), axis=-1)
        labelled = (chances > transduction.threshold).reshape(-1, len(prototypes)).astype(moved.dtype)
        joined = jnp.matmul(labelled.T, moved, precision="highest")
        prototypes = (total + joined) / (shots + labelled.sum(axis=0))[:, None]
    return _distances(queries, centre, prototypes)


def _distances(queries: Float[Array, "n q D"], centre: Float[Array, " D"], prototypes: Float[Array, "n D"]) -> Array:
    """−‖q − p‖² of unit queries, centred and normalised on the way; see the module."""
    vectors = jnp.concatenate([prototypes, centre[None]])
    products = jnp.matmul(queries, vectors.T, precision="highest")
    with_centre = jnp.matmul(vectors, centre, precision="highest")
    length = jnp.sqrt(jnp.maximum(1 - 2 * products[..., -1:] + with_centre[-1], _TINY))
    return 2 * (products[..., :-1] - with_centre[:-1]) / length - 1 - jnp.square(prototypes).sum(axis=-1)
