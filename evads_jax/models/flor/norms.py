"""The norm of Zou et al. (CVPR 2024), arXiv 2403.00567: `w · own(x) + (1 − w) · batch(x)`, each with its own affine.

`own` is a norm of one image: for feature maps the instance norm, for tokens the layer norm. That a ViT mixes layer and
batch norm is this project's reading; the paper has a ViT but does not give its formula. A network with only one of the
two is the same function with w fixed at 0 or 1.

`batch` has PyTorch's meaning: the biased variance normalises, the unbiased one enters the running statistics, which
move by `momentum` towards each batch. Its sums run over the whole batch: under `jax.jit` on a mesh they are those of
all devices, so that nothing has to be synchronised by hand. They are pooled from the moments of each image,
`var = mean(varᵢ + (meanᵢ − mean)²)`, which the instance norm needs anyway and which cancels no digits.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from evads_jax.models.flor.config import FlorConfig

Params = dict[str, Any]
# One for all layers and images, or one for each layer and image (or layer).
Weights = float | Float[Array, "L B"]


def weights(
    config: FlorConfig, mode: str, images: int, key: jax.Array | None, mix: Float[Array, " L"] | None
) -> Weights:
    """The weight w of the norm of one image, in every layer.

    Args:
      config: which norm.
      mode: "train", "test" or "finetune".
      images: B.
      key: of the draws; read where the norm is "flor" and the mode "train".
      mix: θ of every layer; read in the mode "finetune".

    Raises:
      ValueError: what the mode reads is not given, or there is no such mode.
    """
    if mode not in ("train", "test", "finetune"):
        raise ValueError(f"no mode {mode!r}")
    if mode == "finetune":
        if mix is None:
            raise ValueError("fine-tuning needs mix")
        return jax.nn.sigmoid(mix)[:, None]
    if config.norm in ("batch", "instance", "layer"):
        return 0.0 if config.norm == "batch" else 1.0
    if config.norm == "fixed" or mode == "test":
        return config.mean_weight
    if key is None:
        raise ValueError("training draws weights: it needs a key")
    return jax.lax.stop_gradient(jax.random.beta(key, *config.beta, (config.norm_layers, images)))


def of_layer(weights: Weights, index: int) -> float | Float[Array, " B"]:
    """The weights in one layer."""
    return weights if isinstance(weights, float) else weights[index]


def normalise(
    params: Params,
    statistics: Params,
    config: FlorConfig,
    x: Float[Array, "B ... C"],
    weight: float | Float[Array, " B"],
    train: bool,
    valid: Bool[Array, " B"] | None = None,
) -> tuple[Float[Array, "B ... C"], Params]:
    """One norm layer.

    Args:
      params: `scale` and `bias` under "own" and "batch"; where one of these is missing, the other serves both.
      statistics: the running `mean` and `variance`.
      config: which norm, ε, momentum.
      x: feature maps [B, H, W, C] or tokens [B, T, C].
      weight: w, one or one an image. A plain 0.0 or 1.0 leaves the other norm out.
      train: whether the batch norm is by this batch; else by the running statistics.
      valid: which images count in the statistics; default all. The others are padding.

    Returns:
      The normalised input and the new running statistics (those given, unless `train`).
    """
    of_image = _moments(x, tuple(range(1, x.ndim - 1)))
    own = _moments(x, (x.ndim - 1,)) if config.network == "vit" and config.norm != "instance" else of_image
    if train:
        of_batch, statistics = _pool(of_image, statistics, config.momentum, x, valid)
    else:
        of_batch = statistics["mean"], statistics["variance"]
    affine = {name: params.get(name) or params[other] for name, other in (("own", "batch"), ("batch", "own"))}
    if isinstance(weight, float) and weight in (0.0, 1.0):
        name, moments = ("own", own) if weight else ("batch", of_batch)
        return _standardise(x, moments, affine[name], config.norm_epsilon), statistics
    weight = jnp.reshape(weight, (-1,) + (1,) * (x.ndim - 1))
    own_part = _standardise(x, own, affine["own"], config.norm_epsilon)
    batch_part = _standardise(x, of_batch, affine["batch"], config.norm_epsilon)
    return weight * own_part + (1 - weight) * batch_part, statistics


def _moments(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Mean and biased variance, the reduced axes kept."""
    mean = x.mean(axis=axes, keepdims=True)
    return mean, jnp.square(x - mean).mean(axis=axes, keepdims=True)


def _standardise(x: Array, moments: tuple[Array, Array], affine: Params, epsilon: float) -> Array:
    mean, variance = moments
    return (x - mean) * jax.lax.rsqrt(variance + epsilon) * affine["scale"] + affine["bias"]


def _pool(
    of_image: tuple[Array, Array], running: Params, momentum: float, x: Array, valid: Array | None
) -> tuple[tuple[Array, Array], Params]:
    """The batch's moments [C] from those of its images, and the running statistics after it."""
    means, variances = (m.reshape(x.shape[0], -1) for m in of_image)
    counted = jnp.ones(x.shape[0]) if valid is None else valid.astype(jnp.float32)
    images = jnp.maximum(counted.sum(), 1.0)
    share = (counted / images)[:, None]
    mean = (share * means).sum(axis=0)
    variance = (share * (variances + jnp.square(means - mean))).sum(axis=0)
    n = images * (x.size / (x.shape[0] * x.shape[-1]))
    newest = {"mean": mean, "variance": variance * n / jnp.maximum(n - 1, 1.0)}
    after = jax.tree.map(lambda old, new: (1 - momentum) * old + momentum * jax.lax.stop_gradient(new), running, newest)
    return (mean, variance), after
