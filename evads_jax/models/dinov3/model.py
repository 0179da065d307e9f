"""The forward pass of DINOv3, on a plain tree of parameters whose layers are stacked on a leading axis.

Pre-norm blocks with LayerScale: `x + λ₁·attention(norm(x))`, `x + λ₂·mlp(norm(x))`; rotary positions on the patch
tokens only, from patch centres in [−1, 1]; exact (erf) gelu. The class token comes first, then registers, then patches
in row order. Norms and softmax are in float32.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from evads_jax.models.dinov3.config import DINOv3Config
from evads_jax.models.dinov3.parameters import Params
from evads_jax.models.norms import layer_norm

# ImageNet statistics, with which DINOv3 was trained.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def forward(params: Params, config: DINOv3Config, pixels: Float[Array, "B X Y 3"]) -> Float[Array, "B T D"]:
    """All normalised tokens of the last layer: class token, registers, patches.

    Args:
        params: from `parameters.init` or `weights.load`.
        config: their sizes.
        pixels: normalised images, height X and width Y multiples of the patch.
    """
    B, X, Y, _ = pixels.shape
    p, D = config.patch, config.width
    rows, columns = X // p, Y // p
    patches = pixels.reshape(B, rows, p, columns, p, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, p * p * 3)
    patches = (patches @ params["patch"]["weight"] + params["patch"]["bias"]).reshape(B, rows * columns, D)
    lead = jnp.concatenate([params["class_token"], params["registers"]])
    x = jnp.concatenate([jnp.broadcast_to(lead, (B, *lead.shape)), patches], axis=1)
    T = x.shape[1]
    rotation = rotary(config, rows, columns)
    # Products run on [B·T, D]: one large matrix is faster than B small ones.
    x = x.reshape(B * T, D)

    def block(x: Array, layer: Params) -> tuple[Array, None]:
        h = _attention(layer["attention"], config, layer_norm(layer["norm1"], x, config.norm_epsilon), rotation, B)
        x = x + layer["scale1"] * h
        h = layer_norm(layer["norm2"], x, config.norm_epsilon) @ layer["up"]["weight"] + layer["up"]["bias"]
        h = jax.nn.gelu(h, approximate=False) @ layer["down"]["weight"] + layer["down"]["bias"]
        return x + layer["scale2"] * h, None

    x, _ = jax.lax.scan(block, x, params["layers"])
    return layer_norm(params["norm"], x, config.norm_epsilon).reshape(B, T, D)


@partial(jax.jit, static_argnums=1, static_argnames="pool")
def image_features(
    params: Params, config: DINOv3Config, images: UInt8[Array, "B X Y 3"], pool: str = "cls"
) -> Float[Array, "B D"]:
    """One feature an image.

    Args:
        params: the parameters.
        config: their sizes.
        images: 8-bit RGB, already of the size the model is to see.
        pool: "cls" for the class token, "patches" for the mean of the patch tokens.
    """
    tokens = forward(params, config, (images.astype(jnp.float32) / 255 - MEAN) / DEVIATION)
    return tokens[:, 0] if pool == "cls" else tokens[:, 1 + config.registers :].mean(axis=1)


def rotary(config: DINOv3Config, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine [patches, head_width]: a quarter of the angles each for rows and columns, then both again."""
    period = config.rope_theta ** np.arange(0, 1, 4 / config.head_width, dtype=np.float32)
    y, x = (2 * (np.arange(n, dtype=np.float32) + 0.5) / n - 1 for n in (rows, columns))
    centres = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2, 1)
    angles = np.tile((2 * math.pi * centres / period).reshape(rows * columns, -1), 2)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _attention(
    params: Params, config: DINOv3Config, x: Array, rotation: tuple[np.ndarray, np.ndarray], B: int
) -> Array:
    N, H = config.heads, config.head_width
    q, k, v = (
        (x @ params[name]["weight"] + params[name]["bias"]).reshape(B, -1, N, H).transpose(0, 2, 1, 3)
        for name in ("q", "k", "v")
    )
    q, k = _rotate(q, rotation) * H**-0.5, _rotate(k, rotation)
    weights = jax.nn.softmax(jnp.einsum("bnth,bnsh->bnts", q, k), axis=-1)
    mixed = jnp.einsum("bnts,bnsh->bnth", weights, v).transpose(0, 2, 1, 3).reshape(x.shape)
    return mixed @ params["out"]["weight"] + params["out"]["bias"]


def _rotate(x: Float[Array, "B N T H"], rotation: tuple[np.ndarray, np.ndarray]) -> Float[Array, "B N T H"]:
    """Turns the patch tokens, the last ones; the class token and the registers have no position."""
    cosine, sine = rotation
    lead, patches = jnp.split(x, [x.shape[2] - len(cosine)], axis=2)
    first, second = jnp.split(patches, 2, axis=-1)
    turned = patches * cosine + jnp.concatenate([-second, first], axis=-1) * sine
    return jnp.concatenate([lead, turned], axis=2)
