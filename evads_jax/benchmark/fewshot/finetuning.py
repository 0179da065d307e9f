"""Fine-tuning on an episode's support before its queries are classified: the mix of each norm layer, or everything.

The paper fine-tunes θ, one scalar a layer, from the mean weight. What it minimises there, with which optimizer and for
how long is not given. Here: the cross-entropy of augmented views of the support images against prototypes of the plain
ones (two views of an image are a task also where there is one shot), by Adam.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt8

from evads_jax.benchmark.fewshot import prototypes
from evads_jax.benchmark.fewshot.episodes import Episodes
from evads_jax.benchmark.fewshot.prototypes import Transduction
from evads_jax.errors import UserError
from evads_jax.models import flor
from evads_jax.models.flor import Augmentation, FlorConfig

Params = dict[str, Any]
WHAT = ("mix", "all")


@dataclasses.dataclass(frozen=True)
class Finetuning:
    """How an episode's support is learned. None of these numbers is given in the paper.

    Attributes:
      what: "mix" moves θ only, "all" also the network (its running statistics stay).
      steps: updates.
      learning_rate: of θ.
      network_learning_rate: of the network, where it moves.
      temperature: what scores are multiplied by.
      augmentation: of the views.
      chunk: episodes computed at one time. On the CPU leave it at 1 for "all": kernels that differ between episodes
        make grouped convolutions, which are slow there.
      seed: of the views.
    """

    what: str = "mix"
    steps: int = 20
    learning_rate: float = 0.1
    network_learning_rate: float = 1e-4
    temperature: float = 10.0
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    chunk: int = 1
    seed: int = 0

    def __post_init__(self):
        """Refuses what cannot be done.

        Raises:
          UserError: naming the field.
        """
        if self.what not in WHAT:
            raise UserError(f"cannot fine-tune {self.what!r}", "config: what", "one of " + ", ".join(WHAT))
        if self.steps < 0 or self.chunk < 1:
            raise UserError(f"{self.steps} steps, {self.chunk} episodes at a time", "config: steps, chunk")


def finetuned_accuracy(
    params: Params,
    config: FlorConfig,
    images: UInt8[np.ndarray, "M H W 3"],
    episodes: Episodes,
    settings: Finetuning,
    transduction: Transduction | None = None,
) -> Float[np.ndarray, " E"]:
    """Each episode's share of right queries after fine-tuning on its support, every episode from the same start.

    Args:
      params: the network after base training.
      config: its sizes.
      images: all images; those that are in an episode are put on the device.
      episodes: which of them are support and queries.
      settings: how it is learned.
      transduction: the transductive form of the classification; None for the inductive one.

    Raises:
      UserError: the network has no mix, and nothing else is to move.
    """
    if settings.what == "mix" and not _mixes(config):
        what = f"a network with the norm {config.norm!r} has no mix to fine-tune"
        raise UserError(what, "config: what", "take all, or a network with the norm fixed or flor")
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(settings.seed), jnp.arange(len(episodes)))
    used, places = np.unique(episodes.indices, return_inverse=True)
    inputs = jnp.asarray(images[used]), jnp.asarray(places.reshape(episodes.indices.shape)), keys
    return np.asarray(_accuracies(params, config, *inputs, episodes.shots, settings, transduction))


@functools.partial(jax.jit, static_argnames=("config", "shots", "settings", "transduction"))
def _accuracies(
    params: Params,
    config: FlorConfig,
    images: Array,
    indices: Array,
    keys: Array,
    shots: int,
    settings: Finetuning,
    transduction: Transduction | None,
) -> Array:
    def one(episode: tuple[Array, Array]) -> Array:
        chosen, key = episode
        tuned = _tune(params, config, images[chosen[:, :shots]], key, settings)
        found = _unit_features(tuned, params, config, images[chosen])
        return prototypes.share_right(prototypes.scores(found[:, :shots], found[:, shots:], transduction))

    return jax.lax.map(one, (indices, keys), batch_size=settings.chunk)


def _tune(params: Params, config: FlorConfig, support: Array, key: Array, settings: Finetuning) -> Params:
    """What moved, after the last step: "mix", "network" or both."""
    tuned: Params = {"mix": flor.initial_mix(config)} if _mixes(config) else {}
    if settings.what == "all":
        tuned["network"] = params["network"]
    rates = {"mix": settings.learning_rate, "network": settings.network_learning_rate}
    optimizer = optax.multi_transform({name: optax.adam(rates[name]) for name in tuned}, {name: name for name in tuned})
    ways, shots = support.shape[:2]

    def loss(tuned: Params, key: Array) -> Array:
        flat = support.reshape(-1, *support.shape[2:])
        views = flor.augment(flat, key, config.image_size, settings.augmentation)
        found = _unit_features(tuned, params, config, jnp.concatenate([flat.astype(jnp.float32) / 255, views]))
        plain, seen = found.reshape(2, ways, shots, -1)
        logprobs = jax.nn.log_softmax(settings.temperature * prototypes.scores(plain, seen), axis=-1)
        return -jnp.einsum("cqc->", logprobs) / (ways * shots)

    def step(carry: tuple[Params, Any], key: Array) -> tuple[tuple[Params, Any], None]:
        tuned, state = carry
        updates, state = optimizer.update(jax.grad(loss)(tuned, key), state, tuned)
        return (optax.apply_updates(tuned, updates), state), None

    keys = jax.random.split(key, settings.steps)
    return jax.lax.scan(step, (tuned, optimizer.init(tuned)), keys)[0][0]


def _unit_features(tuned: Params, params: Params, config: FlorConfig, images: Array) -> Array:
    """Unit features [..., D] of images [..., H, W, 3], 8-bit or in 0…1, by the parameters that moved and the rest."""
    flat = images.reshape(-1, *images.shape[-3:])
    values = flat if flat.dtype == jnp.float32 else flat.astype(jnp.float32) / 255
    mode, mix = ("finetune", tuned["mix"]) if "mix" in tuned else ("test", None)
    network = {**params, "network": tuned.get("network", params["network"])}
    found, _ = flor.features(network, config, values, mode, mix=mix)
    return prototypes.unit_length(found).reshape(*images.shape[:-3], -1)


def _mixes(config: FlorConfig) -> bool:
    return config.norm in ("fixed", "flor")
