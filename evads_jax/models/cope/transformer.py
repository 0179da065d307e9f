"""The parts that COPE's transformers are made of; activations are [n, T, D], parameters from `parameters.Block`."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from evads_jax.models.attention.prefix import masked_attention
from evads_jax.models.cope.config import CopeConfig
from evads_jax.models.cope.parameters import Params
from evads_jax.models.norms import layer_norm
from evads_jax.models.stacked import unstack

Tree = Any
Activation = Callable[[Array], Array]

gelu: Activation = partial(jax.nn.gelu, approximate=False)
ACTIVATIONS: Mapping[str, Activation] = {"gelu": gelu, "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x)}


def linear(layer: Params, x: Float[Array, "*n inputs"]) -> Float[Array, "*n outputs"]:
    """Weight and, where there is one, bias, in the type of `x`; as one large product of two matrices."""
    out = x.reshape(-1, x.shape[-1]) @ layer["weight"].astype(x.dtype)
    out = out + layer["bias"].astype(x.dtype) if "bias" in layer else out
    return out.reshape(*x.shape[:-1], -1)


def attention(
    layer: Params, x: Float[Array, "n T D"], seen: Float[Array, "n S D"], heads: int, mask: Bool[Array, "#n S"]
) -> Float[Array, "n T D"]:
    """Attention of the tokens `x` to those of `seen` that the mask shows, at least one."""

    def split(name: str, x: Array) -> Array:
        return linear(layer[name], x).reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    q, k, v = split("q", x), split("k", seen), split("v", seen)
    mixed = masked_attention(q * q.shape[-1] ** -0.5, k, v, mask[:, None, None, :])
    return linear(layer["out"], mixed.transpose(0, 2, 1, 3).reshape(x.shape))


def mlp(layer: Params, x: Float[Array, "n T D"], activation: Activation) -> Float[Array, "n T D"]:
    """The MLP of a block."""
    return linear(layer["down"], activation(linear(layer["up"], x)))


def pre_norm_block(
    layer: Params,
    x: Float[Array, "n T D"],
    heads: int,
    mask: Bool[Array, "#n S"],
    activation: Activation,
    appended: Float[Array, "n U D"] | None = None,
) -> Float[Array, "n T D"]:
    """A block of CLIP: x + attention(norm(x)), then x + mlp(norm(x)).

    Args:
      layer: the block's parameters.
      x: tokens.
      heads: attention heads.
      mask: which of the S = T + U tokens are real.
      activation: the MLP's.
      appended: tokens that `x` sees and that are dropped after attention, so that nothing else is computed of them.
    """
    h = layer_norm(layer["norm1"], x)
    seen = h if appended is None else jnp.concatenate([h, layer_norm(layer["norm1"], appended)], axis=1)
    x = x + attention(layer["attention"], h, seen, heads, mask)
    return x + mlp(layer, layer_norm(layer["norm2"], x), activation)


def post_norm_block(
    layer: Params, x: Float[Array, "n T D"], heads: int, mask: Bool[Array, "#n T"], epsilon: float
) -> Float[Array, "n T D"]:
    """A block of BERT: norm(x + attention(x)), then norm(x + mlp(x))."""
    x = layer_norm(layer["norm1"], x + attention(layer["attention"], x, x, heads, mask), epsilon)
    return layer_norm(layer["norm2"], x + mlp(layer, x, gelu), epsilon)


def run_layers(block: Callable[[Tree, Array], Array], layers: Tree, x: Array, config: CopeConfig) -> Array:
    """`x` through a stack of layers, scanned or unrolled, with or without rematerialisation.

    Args:
      block: (a layer's parameters, x) → x.
      layers: parameters with a leading axis of layers.
      x: the input.
      config: says how.
    """
    step = jax.checkpoint(block) if config.remat else block
    if config.scan_layers:
        return jax.lax.scan(lambda x, layer: (step(layer, x), None), x, layers)[0]
    for layer in unstack(layers, jax.tree.leaves(layers)[0].shape[0]):
        x = step(layer, x)
    return x
