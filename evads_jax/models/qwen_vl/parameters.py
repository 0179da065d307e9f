"""Every parameter of the model, declared once: shape, logical axes, initializer.

The modules below hold no forward pass. They give names and shapes to a tree; `init`, `abstract`, `axes`,
`decay_mask` and `parameter_count` all derive from that one declaration. Parameters of the layers of a stack share
one array with a leading `layers` axis, ready for `jax.lax.scan`.

Logical axes (mapped to mesh axes in `evads_jax.models.partitioning`): layers, vocabulary, embed, heads, kv_heads,
head_width, mlp, vision_embed, vision_heads, vision_mlp, merged, and None for what is never split.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from evads_jax.models.declared import Params, metadata, values
from evads_jax.models.qwen_vl.config import QwenVLConfig, VisionConfig

Axes = tuple[str | None, ...]


def _weight(rngs: nnx.Rngs, shape: tuple[int, ...], axes: Axes, fan_in: int, scale: float = 1.0) -> nnx.Param:
    """A matrix with normal entries of deviation `scale / sqrt(fan_in)`; subject to weight decay."""
    value = jax.random.normal(rngs.params(), shape, jnp.float32) * (scale / math.sqrt(fan_in))
    return nnx.Param(value, axes=axes, decay=True, fan_in=fan_in)


def _constant(value: float, shape: tuple[int, ...], axes: Axes) -> nnx.Param:
    """A norm's scale or a bias; no weight decay."""
    return nnx.Param(jnp.full(shape, value, jnp.float32), axes=axes, decay=False, fan_in=0)


class RMSNorm(nnx.Module):
    """A scale over the last axis."""

    def __init__(self, stack: tuple[int, ...], width: int, axis: str | None):
        self.scale = _constant(1.0, (*stack, width), (*("layers",) * len(stack), axis))


class LayerNorm(nnx.Module):
    """A scale and a bias over the last axis."""

    def __init__(self, stack: tuple[int, ...], width: int, axis: str | None):
        axes = (*("layers",) * len(stack), axis)
        self.scale = _constant(1.0, (*stack, width), axes)
        self.bias = _constant(0.0, (*stack, width), axes)


class Linear(nnx.Module):
    """A matrix [in, out…] and, unless `bias` is false, a bias [out…], of each of `stack` layers."""

    def __init__(
        self,
        rngs: nnx.Rngs,
        stack: tuple[int, ...],
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        axes: Axes,
        scale: float = 1.0,
        bias: bool = True,
    ):
        layers = ("layers",) * len(stack)
        self.weight = _weight(rngs, (*stack, *inputs, *outputs), (*layers, *axes), math.prod(inputs), scale)
        if bias:
            self.bias = _constant(0.0, (*stack, *outputs), (*layers, *axes[len(inputs) :]))


class VisionLayers(nnx.Module):
    """The stacked blocks of the vision tower; gated ones have RMSNorms and a SwiGLU."""

    def __init__(self, rngs: nnx.Rngs, config: VisionConfig, gated: bool):
        norm = RMSNorm if gated else LayerNorm
        stack, width, heads = (config.layers,), config.width, (config.heads, config.head_width)
        residual = 1 / math.sqrt(2 * config.layers)
        self.norm1 = norm(stack, width, "vision_embed")
        self.qkv = Linear(rngs, stack, (width,), (3, *heads), ("vision_embed", None, "vision_heads", None))
        self.out = Linear(rngs, stack, heads, (width,), ("vision_heads", None, "vision_embed"), residual)
        self.norm2 = norm(stack, width, "vision_embed")
        if gated:
            self.gate = Linear(rngs, stack, (width,), (config.mlp_width,), ("vision_embed", "vision_mlp"))
        self.up = Linear(rngs, stack, (width,), (config.mlp_width,), ("vision_embed", "vision_mlp"))
        self.down = Linear(rngs, stack, (config.mlp_width,), (width,), ("vision_mlp", "vision_embed"), residual)


class Merger(nnx.Module):
    """Maps merge² patches to one video token of the decoder's width.

    The main merger normalises patches before they are laid side by side, a DeepStack merger after; `norm_width`
    says which.
    """

    def __init__(
        self,
        rngs: nnx.Rngs,
        stack: tuple[int, ...],
        config: VisionConfig,
        norm_width: int,
        width: int,
        norm: type[RMSNorm] | type[LayerNorm] = LayerNorm,
    ):
        merged = config.merged_width
        self.norm = norm(stack, norm_width, None)
        self.up = Linear(rngs, stack, (merged,), (merged,), ("vision_embed", "merged"))
        self.down = Linear(rngs, stack, (merged,), (width,), ("merged", "embed"))


class Vision(nnx.Module):
    """The vision tower: patch embedding, position table, blocks, merger, DeepStack mergers."""

    def __init__(self, rngs: nnx.Rngs, config: VisionConfig, width: int, gated: bool):
        patch = (config.patch_values,), (config.width,), (None, "vision_embed")
        self.patch = Linear(rngs, (), *patch, bias=not gated)
        if not gated:
            self.position = _weight(rngs, (config.position_grid**2, config.width), (None, "vision_embed"), 2500)
        self.layers = VisionLayers(rngs, config, gated)
        self.merger = Merger(rngs, (), config, config.width, width, RMSNorm if gated else LayerNorm)
        if config.deepstack:
            self.deepstack = Merger(rngs, (len(config.deepstack),), config, config.merged_width, width)


class TextLayers(nnx.Module):
    """The stacked layers of the decoder; which biases and head norms there are, the family says."""

    def __init__(self, rngs: nnx.Rngs, config: QwenVLConfig):
        L, D, H, F = config.layers, config.width, config.head_width, config.mlp_width
        N, K, family = config.heads, config.kv_heads, config.traits
        residual = 1 / math.sqrt(2 * L)
        self.norm1 = RMSNorm((L,), D, "embed")
        self.q = _weight(rngs, (L, D, N, H), ("layers", "embed", "heads", "head_width"), D)
        self.k = _weight(rngs, (L, D, K, H), ("layers", "embed", "kv_heads", "head_width"), D)
        self.v = _weight(rngs, (L, D, K, H), ("layers", "embed", "kv_heads", "head_width"), D)
        if family.qkv_bias:
            self.q_bias = _constant(0.0, (L, N, H), ("layers", "heads", "head_width"))
            self.k_bias = _constant(0.0, (L, K, H), ("layers", "kv_heads", "head_width"))
            self.v_bias = _constant(0.0, (L, K, H), ("layers", "kv_heads", "head_width"))
        if family.qk_norm:
            self.q_norm = RMSNorm((L,), H, None)
            self.k_norm = RMSNorm((L,), H, None)
        self.out = _weight(rngs, (L, N, H, D), ("layers", "heads", "head_width", "embed"), N * H, residual)
        self.norm2 = RMSNorm((L,), D, "embed")
        self.gate = _weight(rngs, (L, D, F), ("layers", "embed", "mlp"), D)
        self.up = _weight(rngs, (L, D, F), ("layers", "embed", "mlp"), D)
        self.down = _weight(rngs, (L, F, D), ("layers", "mlp", "embed"), F, residual)


class Text(nnx.Module):
    """The decoder: token table, layers, final norm and, where it is not tied, the output head."""

    def __init__(self, rngs: nnx.Rngs, config: QwenVLConfig):
        V, D = config.vocabulary, config.width
        # As a tied head the table must give logits of order 1 from normalised hidden states: fan-in D.
        self.embed = _weight(rngs, (V, D), ("vocabulary", "embed"), D)
        self.layers = TextLayers(rngs, config)
        self.norm = RMSNorm((), D, "embed")
        if not config.tie_embeddings:
            self.head = _weight(rngs, (V, D), ("vocabulary", "embed"), D)


class QwenVL(nnx.Module):
    """The whole model as a tree of parameters."""

    def __init__(self, rngs: nnx.Rngs, config: QwenVLConfig):
        self.text = Text(rngs, config)
        self.vision = Vision(rngs, config.vision, config.width, config.traits.vision_gated)


@functools.partial(jax.jit, static_argnums=0)
def init(config: QwenVLConfig, key: jax.Array) -> Params:
    """Draws all parameters.

    Args:
      config: the model's sizes.
      key: a PRNG key; the same key gives the same parameters.

    Returns:
      Nested dicts of float32 arrays.
    """
    return values(QwenVL(nnx.Rngs(params=key), config))


def abstract(config: QwenVLConfig) -> Params:
    """The tree of `init` with `jax.ShapeDtypeStruct` leaves; nothing is computed."""
    return jax.eval_shape(lambda: values(QwenVL(nnx.Rngs(0), config)))


def axes(config: QwenVLConfig) -> Params:
    """The tree of `init` with the tuple of logical axis names of each parameter as leaves."""
    return metadata(lambda: QwenVL(nnx.Rngs(0), config), "axes")


def decay_mask(config: QwenVLConfig) -> Params:
    """The tree of `init` with True where weight decay applies (matrices and tables), False at norms and biases."""
    return metadata(lambda: QwenVL(nnx.Rngs(0), config), "decay")


def fan_in(config: QwenVLConfig) -> Params:
    """The tree of `init` with the number of inputs that a matrix sums over, 0 at norms and biases."""
    return metadata(lambda: QwenVL(nnx.Rngs(0), config), "fan_in")


def parameter_count(config: QwenVLConfig) -> int:
    """Number of parameters; a tied head counts once."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract(config)))
