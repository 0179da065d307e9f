"""Every parameter of DINOv3, declared once: shape, logical axes, initializer."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from evads_jax.models.declared import Params, metadata, values
from evads_jax.models.dinov3.config import DINOv3Config

Axes = tuple[str | None, ...]


def _matrix(rngs: nnx.Rngs, shape: tuple[int, ...], axes: Axes, deviation: float) -> nnx.Param:
    return nnx.Param(jax.random.normal(rngs.params(), shape, jnp.float32) * deviation, axes=axes)


def _constant(value: float, shape: tuple[int, ...], axes: Axes) -> nnx.Param:
    return nnx.Param(jnp.full(shape, value, jnp.float32), axes=axes)


class Linear(nnx.Module):
    """A matrix [in, out] and a bias [out], of each of `stack` layers."""

    def __init__(self, rngs: nnx.Rngs, stack: tuple[int, ...], shape: tuple[int, int], axes: Axes):
        layers = ("layers",) * len(stack)
        self.weight = _matrix(rngs, (*stack, *shape), (*layers, *axes), 1 / math.sqrt(shape[0]))
        self.bias = _constant(0.0, (*stack, shape[1]), (*layers, axes[1]))


class LayerNorm(nnx.Module):
    """A scale and a bias over the last axis."""

    def __init__(self, stack: tuple[int, ...], width: int):
        axes = (*("layers",) * len(stack), "vision_embed")
        self.scale = _constant(1.0, (*stack, width), axes)
        self.bias = _constant(0.0, (*stack, width), axes)


class Attention(nnx.Module):
    """Query, key, value and output; the key's bias is there and zero, though the checkpoints have none."""

    def __init__(self, rngs: nnx.Rngs, stack: tuple[int, ...], width: int):
        for name in ("q", "k", "v"):
            setattr(self, name, Linear(rngs, stack, (width, width), ("vision_embed", "vision_heads")))
        self.out = Linear(rngs, stack, (width, width), ("vision_heads", "vision_embed"))


class Layers(nnx.Module):
    """The stacked blocks."""

    def __init__(self, rngs: nnx.Rngs, config: DINOv3Config):
        stack, width = (config.layers,), config.width
        self.norm1 = LayerNorm(stack, width)
        self.attention = Attention(rngs, stack, width)
        self.scale1 = _constant(1.0, (*stack, width), ("layers", "vision_embed"))
        self.norm2 = LayerNorm(stack, width)
        self.up = Linear(rngs, stack, (width, config.mlp_width), ("vision_embed", "vision_mlp"))
        self.down = Linear(rngs, stack, (config.mlp_width, width), ("vision_mlp", "vision_embed"))
        self.scale2 = _constant(1.0, (*stack, width), ("layers", "vision_embed"))


class DINOv3(nnx.Module):
    """The whole model."""

    def __init__(self, config: DINOv3Config, rngs: nnx.Rngs):
        width = config.width
        self.patch = Linear(rngs, (), (config.patch**2 * 3, width), (None, "vision_embed"))
        self.class_token = _matrix(rngs, (1, width), (None, "vision_embed"), 1.0)
        self.registers = _matrix(rngs, (config.registers, width), (None, "vision_embed"), 1.0)
        self.layers = Layers(rngs, config)
        self.norm = LayerNorm((), width)


def init(config: DINOv3Config, key: jax.Array) -> Params:
    """Draws all parameters.

    Args:
        config: the sizes.
        key: a JAX random key; the same key gives the same parameters.
    """

    @jax.jit
    def draw(key: jax.Array) -> Params:
        return values(DINOv3(config, nnx.Rngs(params=key)))

    return draw(key)


def abstract(config: DINOv3Config) -> Params:
    """The tree of `init` with `jax.ShapeDtypeStruct` leaves; nothing is computed."""
    return jax.eval_shape(lambda: values(DINOv3(config, nnx.Rngs(0))))


def axes(config: DINOv3Config) -> Params:
    """The tree of `init` with the tuple of logical axis names of each parameter as leaves."""
    return metadata(lambda: DINOv3(config, nnx.Rngs(0)), "axes")


def parameter_count(config: DINOv3Config) -> int:
    """Number of parameters, the zero key biases included."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract(config)))
