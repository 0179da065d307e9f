"""Every parameter of a FLoR network, declared once: shape, logical axes, initializer.

The tree has three parts: "network", "head" (the bias-free linear head of the base training) and "statistics", the
running means and variances of the batch norms. These are no parameters: they get neither gradient nor decay, and the
learner puts the new ones there after each step. They live in the tree so that whatever keeps, loads or copies
parameters keeps them too. Every norm has them, also where the forward pass does not read them: the loss between two
norms (`configs/flor.py:landscape`) does.

Convolutions are [height, width, in, out] and stay whole on every device: a ResNet10 is 4.9 million parameters. The
layers of a ViT share arrays with a leading `layers` axis.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from evads_jax.models.declared import Params, metadata, values
from evads_jax.models.flor.config import FlorConfig

Axes = tuple[str | None, ...]
STATISTICS = "statistics"


def _weight(rngs: nnx.Rngs, shape: tuple[int, ...], axes: Axes, deviation: float, fan_in: int = 0) -> nnx.Param:
    """A normally drawn matrix, kernel or (without `fan_in`) table; subject to weight decay."""
    value = jax.random.normal(rngs.params(), shape, jnp.float32) * deviation
    return nnx.Param(value, axes=axes, decay=True, fan_in=fan_in)


def _constant(value: float, shape: tuple[int, ...], axes: Axes) -> nnx.Param:
    """A norm's scale, a bias or a running statistic; no weight decay."""
    return nnx.Param(jnp.full(shape, value, jnp.float32), axes=axes, decay=False, fan_in=0)


class Affine(nnx.Module):
    """A scale and a bias over channels."""

    def __init__(self, shape: tuple[int, ...], axes: Axes):
        self.scale, self.bias = _constant(1.0, shape, axes), _constant(0.0, shape, axes)


class Norm(nnx.Module):
    """The affines of the norms that a layer has: of one image, of the batch, or both."""

    def __init__(self, config: FlorConfig, shape: tuple[int, ...], axes: Axes):
        if config.norm != "batch":
            self.own = Affine(shape, axes)
        if config.norm not in ("instance", "layer"):
            self.batch = Affine(shape, axes)


class Running(nnx.Module):
    """The running statistics of one norm."""

    def __init__(self, shape: tuple[int, ...], axes: Axes):
        self.mean, self.variance = _constant(0.0, shape, axes), _constant(1.0, shape, axes)


def _kernel(rngs: nnx.Rngs, size: int, inputs: int, outputs: int) -> nnx.Param:
    """Normal with variance 2 / (size² · outputs), as the released code has it."""
    shape, deviation = (size, size, inputs, outputs), math.sqrt(2 / (size**2 * outputs))
    return _weight(rngs, shape, (None,) * 4, deviation, size**2 * inputs)


class Block(nnx.Module):
    """Two 3 × 3 convolutions, and a 1 × 1 one on the shortcut of all blocks but the first, which halve the map."""

    def __init__(self, rngs: nnx.Rngs, config: FlorConfig, inputs: int, outputs: int, shortcut: bool):
        self.kernel1 = _kernel(rngs, 3, inputs, outputs)
        self.norm1 = Norm(config, (outputs,), (None,))
        self.kernel2 = _kernel(rngs, 3, outputs, outputs)
        self.norm2 = Norm(config, (outputs,), (None,))
        if shortcut:
            self.kernel3 = _kernel(rngs, 1, inputs, outputs)
            self.norm3 = Norm(config, (outputs,), (None,))


class BlockStatistics(nnx.Module):
    """Of the norms of a block."""

    def __init__(self, width: int, shortcut: bool):
        for name in ("norm1", "norm2", *(["norm3"] if shortcut else [])):
            setattr(self, name, Running((width,), (None,)))


class ResNet10(nnx.Module):
    """A 7 × 7 stem and four blocks."""

    def __init__(self, rngs: nnx.Rngs, config: FlorConfig):
        self.kernel = _kernel(rngs, 7, 3, config.widths[0])
        self.norm = Norm(config, (config.widths[0],), (None,))
        inputs = config.widths[0]
        for i, outputs in enumerate(config.widths):
            setattr(self, f"block{i + 1}", Block(rngs, config, inputs, outputs, i > 0))
            inputs = outputs


class ResNet10Statistics(nnx.Module):
    """Of the norms of a ResNet10."""

    def __init__(self, config: FlorConfig):
        self.norm = Running((config.widths[0],), (None,))
        for i, width in enumerate(config.widths):
            setattr(self, f"block{i + 1}", BlockStatistics(width, i > 0))


class Linear(nnx.Module):
    """A matrix [in, out…] and a bias [out…], of each of `stack` layers."""

    def __init__(
        self, rngs: nnx.Rngs, stack: tuple[int, ...], inputs: int, outputs: tuple[int, ...], axes: Axes, scale=1.0
    ):
        layers = ("layers",) * len(stack)
        self.weight = _weight(rngs, (*stack, inputs, *outputs), (*layers, *axes), scale / math.sqrt(inputs), inputs)
        self.bias = _constant(0.0, (*stack, *outputs), (*layers, *axes[1:]))


class Layers(nnx.Module):
    """The stacked blocks of a ViT."""

    def __init__(self, rngs: nnx.Rngs, config: FlorConfig):
        stack, D, residual = (config.layers,), config.width, 1 / math.sqrt(2 * config.layers)
        self.norm1 = Norm(config, (*stack, D), ("layers", "vision_embed"))
        self.qkv = Linear(rngs, stack, D, (3, D), ("vision_embed", None, "vision_heads"))
        self.out = Linear(rngs, stack, D, (D,), ("vision_heads", "vision_embed"), residual)
        self.norm2 = Norm(config, (*stack, D), ("layers", "vision_embed"))
        self.up = Linear(rngs, stack, D, (config.mlp_width,), ("vision_embed", "vision_mlp"))
        self.down = Linear(rngs, stack, config.mlp_width, (D,), ("vision_mlp", "vision_embed"), residual)


class ViT(nnx.Module):
    """A plain ViT with a class token and a learned position for each token."""

    def __init__(self, rngs: nnx.Rngs, config: FlorConfig):
        D, tokens = config.width, (config.image_size // config.patch) ** 2 + 1
        self.patch = Linear(rngs, (), 3 * config.patch**2, (D,), (None, "vision_embed"))
        self.class_token = _weight(rngs, (1, D), (None, "vision_embed"), 0.02)
        self.positions = _weight(rngs, (tokens, D), (None, "vision_embed"), 0.02)
        self.layers = Layers(rngs, config)
        self.norm = Norm(config, (D,), ("vision_embed",))


class ViTStatistics(nnx.Module):
    """Of the norms of a ViT."""

    def __init__(self, config: FlorConfig):
        self.norm1 = Running((config.layers, config.width), ("layers", "vision_embed"))
        self.norm2 = Running((config.layers, config.width), ("layers", "vision_embed"))
        self.norm = Running((config.width,), ("vision_embed",))


class Head(nnx.Module):
    """One weight vector a class."""

    def __init__(self, rngs: nnx.Rngs, config: FlorConfig):
        D = config.feature_width
        self.weight = _weight(rngs, (D, config.classes), (None, None), 1 / math.sqrt(D))


class Flor(nnx.Module):
    """The whole tree."""

    def __init__(self, rngs: nnx.Rngs, config: FlorConfig):
        resnet = config.network == "resnet10"
        self.network = ResNet10(rngs, config) if resnet else ViT(rngs, config)
        self.head = Head(rngs, config)
        self.statistics = ResNet10Statistics(config) if resnet else ViTStatistics(config)


@functools.partial(jax.jit, static_argnums=0)
def init(config: FlorConfig, key: jax.Array) -> Params:
    """Draws all parameters.

    Args:
      config: the network.
      key: a PRNG key; the same key gives the same parameters.

    Returns:
      Nested dicts of float32 arrays.
    """
    return values(Flor(nnx.Rngs(params=key), config))


def abstract(config: FlorConfig) -> Params:
    """The tree of `init` with `jax.ShapeDtypeStruct` leaves; nothing is computed."""
    return jax.eval_shape(lambda: values(Flor(nnx.Rngs(0), config)))


def axes(config: FlorConfig) -> Params:
    """The tree of `init` with the tuple of logical axis names of each array as leaves."""
    return metadata(lambda: Flor(nnx.Rngs(0), config), "axes")


def decay_mask(config: FlorConfig) -> Params:
    """The tree of `init` with True where weight decay applies, False at norms, biases and statistics."""
    return metadata(lambda: Flor(nnx.Rngs(0), config), "decay")


def fan_in(config: FlorConfig) -> Params:
    """The tree of `init` with how many inputs each output of a matrix or kernel sums over; 0 for everything else."""
    return metadata(lambda: Flor(nnx.Rngs(0), config), "fan_in")


def parameter_count(config: FlorConfig) -> int:
    """Number of parameters, statistics not counted."""
    tree = abstract(config)
    return sum(math.prod(leaf.shape) for name in tree if name != STATISTICS for leaf in jax.tree.leaves(tree[name]))
