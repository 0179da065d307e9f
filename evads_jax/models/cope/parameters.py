"""Every parameter of COPE, declared once: shape, logical axes, initializer.

The modules below hold no forward pass; `init`, `abstract`, `axes`, `decay_mask` and `fan_in` derive from them, as in
`models.qwen_vl.parameters`. The tree: `encoders` and `heads` by whose they are (`CopeConfig.encoder`, `.head`), and
`classes`, the head of the classification, where there is one.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from evads_jax.models.cope.config import DOMAINS, CopeConfig
from evads_jax.models.declared import Params, metadata, values
from evads_jax.models.qwen_vl.parameters import LayerNorm, Linear

Axes = tuple[str | None, ...]


def _table(rngs: nnx.Rngs, rows: int, width: int, axes: Axes, deviation: float = 0.02) -> nnx.Param:
    """Rows with normal entries, one for each token, position or class."""
    value = jax.random.normal(rngs.params(), (rows, width), jnp.float32) * deviation
    return nnx.Param(value, axes=axes, decay=True, fan_in=0)


class Block(nnx.Module):
    """The stacked blocks of a transformer: two norms, attention, and an MLP with biases everywhere."""

    def __init__(self, rngs: nnx.Rngs, layers: int, width: int, mlp_width: int):
        stack, residual = (layers,), 1 / math.sqrt(2 * layers)
        self.norm1 = LayerNorm(stack, width, "embed")
        self.attention = Attention(rngs, stack, width, residual)
        self.norm2 = LayerNorm(stack, width, "embed")
        self.up = Linear(rngs, stack, (width,), (mlp_width,), ("embed", "mlp"))
        self.down = Linear(rngs, stack, (mlp_width,), (width,), ("mlp", "embed"), residual)


class Attention(nnx.Module):
    """Query, key, value and output of each layer."""

    def __init__(self, rngs: nnx.Rngs, stack: tuple[int, ...], width: int, scale: float):
        for name in ("q", "k", "v"):
            setattr(self, name, Linear(rngs, stack, (width,), (width,), ("embed", "heads")))
        self.out = Linear(rngs, stack, (width,), (width,), ("heads", "embed"), scale)


class Message(nnx.Module):
    """What makes the frames' message tokens in each layer: a map of the class token, a norm, attention over frames."""

    def __init__(self, rngs: nnx.Rngs, layers: int, width: int):
        self.linear = Linear(rngs, (layers,), (width,), (width,), ("embed", None))
        self.norm = LayerNorm((layers,), width, "embed")
        self.attention = Attention(rngs, (layers,), width, 1 / math.sqrt(2 * layers))


class Visual(nnx.Module):
    """The frames' encoder: patches, blocks with message tokens, projection, multi-frame integration transformer."""

    def __init__(self, rngs: nnx.Rngs, config: CopeConfig):
        width = config.visual_width
        self.patch = Linear(rngs, (), (3 * config.visual_patch**2,), (width,), (None, "embed"), bias=False)
        self.class_token = _table(rngs, 1, width, (None, "embed"))
        self.position = _table(rngs, config.positions, width, (None, "embed"))
        self.norm_in = LayerNorm((), width, "embed")
        self.layers = Block(rngs, config.visual_layers, width, config.visual_mlp_width)
        self.message = Message(rngs, config.visual_layers, width)
        self.norm_out = LayerNorm((), width, "embed")
        self.projection = Linear(rngs, (), (width,), (config.mit_width,), ("embed", None), bias=False)
        self.nothing = _table(rngs, 1, config.mit_width, (None, "embed"), 1.0)
        self.mit_position = _table(rngs, config.frames, config.mit_width, (None, "embed"))
        self.mit_layers = Block(rngs, config.mit_layers, config.mit_width, 4 * config.mit_width)


class Text(nnx.Module):
    """The text's encoder: tokens, positions, norm, blocks, and the pooler of the first token."""

    def __init__(self, rngs: nnx.Rngs, config: CopeConfig):
        width = config.text_width
        self.embed = _table(rngs, config.vocabulary, width, ("vocabulary", "embed"))
        self.nothing = _table(rngs, 1, width, (None, "embed"))
        self.position = _table(rngs, config.text_tokens, width, (None, "embed"))
        self.norm_in = LayerNorm((), width, "embed")
        self.layers = Block(rngs, config.text_layers, width, config.text_mlp_width)
        self.pooler = Linear(rngs, (), (width,), (width,), ("embed", None))


class Fusion(nnx.Module):
    """What joins frames and text: a transformer, or one matrix where there are no layers."""

    def __init__(self, rngs: nnx.Rngs, config: CopeConfig):
        width, E = config.fusion_width, config.embedding
        if not config.fusion_layers:
            self.out = Linear(rngs, (), (2 * E,), (E,), (None, None))
            return
        self.class_token = _table(rngs, 1, width, (None, "embed"))
        self.frames = Linear(rngs, (), (config.mit_width,), (width,), (None, "embed"))
        self.words = Linear(rngs, (), (config.text_width,), (width,), (None, "embed"))
        self.layers = Block(rngs, config.fusion_layers, width, 4 * width)
        self.norm = LayerNorm((), width, "embed")
        self.out = Linear(rngs, (), (width,), (E,), ("embed", None))


class Encoders(nnx.Module):
    """The encoders of all domains, or of one."""

    def __init__(self, rngs: nnx.Rngs, config: CopeConfig):
        self.visual = Visual(rngs, config)
        self.text = Text(rngs, config)


class Head(nnx.Module):
    """Projections to embeddings, and the fusion."""

    def __init__(self, rngs: nnx.Rngs, config: CopeConfig):
        self.visual = Linear(rngs, (), (config.mit_width,), (config.embedding,), ("embed", None))
        self.text = Linear(rngs, (), (config.text_width,), (config.embedding,), ("embed", None))
        self.fusion = Fusion(rngs, config)


class Classes(nnx.Module):
    """A direction for each product; rows are divided by their lengths before they are used."""

    def __init__(self, rngs: nnx.Rngs, config: CopeConfig):
        self.weight = _table(rngs, config.classes, config.embedding, ("classes", None), config.embedding**-0.5)


def _parts(config: CopeConfig) -> dict[str, Any]:
    """The modules of a model, by where their parameters stand."""
    parts: dict[str, Any] = {
        "encoders": {config.encoder(domain): Encoders for domain in DOMAINS},
        "heads": {config.head(domain): Head for domain in DOMAINS},
    }
    return parts | ({"classes": Classes} if config.classes else {})


def init(config: CopeConfig, key: jax.Array) -> Params:
    """Draws all parameters, one by one: compiled as a whole, so many draws would take long.

    Args:
      config: the model's sizes.
      key: a PRNG key; the same key gives the same parameters.

    Returns:
      Nested dicts of float32 arrays.
    """
    parts, tree = jax.tree.flatten(_parts(config))
    keys = jax.random.split(key, len(parts))
    drawn = [values(part(nnx.Rngs(params=k), config)) for part, k in zip(parts, keys, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def abstract(config: CopeConfig) -> Params:
    """The tree of `init` with `jax.ShapeDtypeStruct` leaves; nothing is computed."""
    return jax.tree.map(lambda part: jax.eval_shape(lambda: values(part(nnx.Rngs(0), config))), _parts(config))


def axes(config: CopeConfig) -> Params:
    """The tree of `init` with the tuple of logical axis names of each parameter as leaves."""
    return _metadata(config, "axes")


def decay_mask(config: CopeConfig) -> Params:
    """The tree of `init` with True where weight decay applies (matrices and tables), False at norms and biases."""
    return _metadata(config, "decay")


def fan_in(config: CopeConfig) -> Params:
    """The tree of `init` with the number of inputs that a matrix sums over, 0 at tables, norms and biases."""
    return _metadata(config, "fan_in")


def parameter_count(config: CopeConfig) -> int:
    """Number of parameters, the head of classes included."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract(config)))


def _metadata(config: CopeConfig, name: str) -> Params:
    return jax.tree.map(lambda part: metadata(lambda: part(nnx.Rngs(0), config), name), _parts(config))
