"""The forward pass: one feature an image, from a ResNet10 or a ViT, with every norm in one of three modes.

ResNet10: 7 × 7 stem of stride 2, max pool, four blocks of one residual unit (the last three halve the map), mean over
the map. ViT: pre-norm blocks with exact gelu; the feature is the normalised class token, which the paper does not say.
Images are [B, H, W, 3] in 0…1. The ResNet takes them as they are, as the released code does. The ViT first normalises
them by ImageNet's mean and deviation, as DINO does: in 0…1 what all patches have in common outweighs what tells them
apart, and a ViT from fresh parameters does not leave the loss of guessing for a long time.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from evads_jax.models.dinov3.model import DEVIATION, MEAN
from evads_jax.models.flor import norms
from evads_jax.models.flor.config import FlorConfig
from evads_jax.models.flor.norms import Weights
from evads_jax.models.flor.parameters import STATISTICS

Params = dict[str, Any]


def features(
    params: Params,
    config: FlorConfig,
    images: Float[Array, "B H W 3"],
    mode: str,
    *,
    key: jax.Array | None = None,
    mix: Float[Array, " L"] | None = None,
    valid: Bool[Array, " B"] | None = None,
) -> tuple[Float[Array, "B D"], Params]:
    """One feature an image.

    Args:
      params: from `init`; those under "statistics" get no gradient.
      config: the network.
      images: values in 0…1.
      mode: "train": statistics of this batch, w drawn for each image and layer. "test": running statistics, the mean
        of w. "finetune": running statistics (whose they are while fine-tuning is not given in the paper), w = σ(mix).
      key: of the draws; needed by the norm "flor" in the mode "train".
      mix: θ of every layer; needed in the mode "finetune", which every norm has: a network of one norm applies its
        scale and bias on both sides, so that w = 0 … 1 leads from the norm of the batch to that of one image.
      valid: which images count in the batch's statistics; default all.

    Returns:
      The features, and the running statistics after this batch (unchanged unless the mode is "train").

    Raises:
      ValueError: what the mode needs is not given.
    """
    weights = norms.weights(config, mode, images.shape[0], key, mix)
    network, statistics = params["network"], jax.lax.stop_gradient(params[STATISTICS])
    run = _resnet10 if config.network == "resnet10" else _vit
    return run(network, statistics, config, images, weights, mode == "train", valid)


def logits(params: Params, features: Float[Array, "B D"]) -> Float[Array, "B C"]:
    """What the base training's head makes of features."""
    return features @ params["head"]["weight"]


def initial_mix(config: FlorConfig) -> Float[Array, " L"]:
    """θ at which fine-tuning starts: every layer at the mean weight."""
    return jnp.full(config.norm_layers, config.mean_mix, jnp.float32)


def _resnet10(
    params: Params, before: Params, config: FlorConfig, x: Array, weights: Weights, train: bool, valid: Array | None
) -> tuple[Array, Params]:
    after: Params = {f"block{i}": {} for i in range(1, 5)}
    counted = 0

    def norm(x: Array, block: str | None, name: str) -> Array:
        """The next norm in order of the forward pass."""
        nonlocal counted
        own, old, new = (t if block is None else t[block] for t in (params, before, after))
        x, new[name] = norms.normalise(own[name], old[name], config, x, norms.of_layer(weights, counted), train, valid)
        counted += 1
        return x

    x = jax.nn.relu(norm(_convolve(x, params["kernel"], 2), None, "norm"))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    for i in range(1, 5):
        block, stride = f"block{i}", 1 if i == 1 else 2
        own = params[block]
        h = jax.nn.relu(norm(_convolve(x, own["kernel1"], stride), block, "norm1"))
        h = norm(_convolve(h, own["kernel2"], 1), block, "norm2")
        short = norm(_convolve(x, own["kernel3"], stride), block, "norm3") if "kernel3" in own else x
        x = jax.nn.relu(h + short)
    return x.mean(axis=(1, 2)), after


def _convolve(x: Float[Array, "B H W C"], kernel: Float[Array, "K K C O"], stride: int) -> Array:
    """Padded by half the kernel on every side, as PyTorch pads; «SAME» would pad even maps on one side only."""
    direct, product = (functools.partial(f, stride=stride) for f in (_convolve_directly, _convolve_by_product))
    if min(x.shape[1:3]) > stride * (kernel.shape[0] - 1):  # then so many places come out as a kernel has, or more
        return direct(x, kernel)
    return jax.lax.platform_dependent(x, kernel, cpu=product, default=direct)


def _convolve_directly(x: Array, kernel: Array, *, stride: int) -> Array:
    edge = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), ((edge, edge), (edge, edge)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _convolve_by_product(x: Array, kernel: Array, *, stride: int) -> Array:
    """The same as one product of all windows with the kernel.

    For maps smaller than the kernel XLA's convolution on CPUs is up to 80 times slower than this, in the gradient too;
    for others it is the faster one.
    """
    K, _, C, O = kernel.shape
    edge, (H, W) = K // 2, (-(-n // stride) for n in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    shifted = [x[:, i : i + stride * H : stride, j : j + stride * W : stride] for i in range(K) for j in range(K)]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(K * K * C, O)


def _vit(
    params: Params, before: Params, config: FlorConfig, x: Array, weights: Weights, train: bool, valid: Array | None
) -> tuple[Array, Params]:
    B, p, D = x.shape[0], config.patch, config.width
    side = x.shape[1] // p
    pixels = ((x - MEAN) / DEVIATION).reshape(B, side, p, side, p, 3)
    patches = pixels.transpose(0, 1, 3, 2, 4, 5).reshape(B, side**2, p * p * 3)
    x = patches @ params["patch"]["weight"] + params["patch"]["bias"]
    x = jnp.concatenate([jnp.broadcast_to(params["class_token"], (B, 1, D)), x], axis=1) + params["positions"]
    of_layers = None if isinstance(weights, float) else weights[:-1].reshape(config.layers, 2, -1)

    def block(x: Array, layer: tuple[Params, Params, Array | None]) -> tuple[Array, Params]:
        own, old, two = layer
        w1, w2 = (weights, weights) if two is None else two
        h, norm1 = norms.normalise(own["norm1"], old["norm1"], config, x, w1, train, valid)
        x = x + _attention(own, config, h)
        h, norm2 = norms.normalise(own["norm2"], old["norm2"], config, x, w2, train, valid)
        h = jax.nn.gelu(h @ own["up"]["weight"] + own["up"]["bias"], approximate=False)
        return x + h @ own["down"]["weight"] + own["down"]["bias"], {"norm1": norm1, "norm2": norm2}

    stacked = {name: before[name] for name in ("norm1", "norm2")}
    x, after = jax.lax.scan(block, x, (params["layers"], stacked, of_layers))
    last = norms.of_layer(weights, -1)
    x, after["norm"] = norms.normalise(params["norm"], before["norm"], config, x, last, train, valid)
    return x[:, 0], after


def _attention(params: Params, config: FlorConfig, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    B, T, D = x.shape
    qkv = jnp.einsum("btd,dse->sbte", x, params["qkv"]["weight"]) + params["qkv"]["bias"][:, None, None]
    q, k, v = qkv.reshape(3, B, T, config.heads, D // config.heads)
    scores = jax.nn.softmax(jnp.einsum("btnh,bsnh->bnts", q * (D // config.heads) ** -0.5, k), axis=-1)
    mixed = jnp.einsum("bnts,bsnh->btnh", scores, v).reshape(B, T, D)
    return mixed @ params["out"]["weight"] + params["out"]["bias"]
