"""Attention of prompts, of the suffixes that share them, and of a video's patches by TPUs' fused kernel (splash).

The kernel works through the tiles of a mask that is known when the program is compiled, leaves out the empty ones, and
writes no logits to memory in either pass. The mask of suffixes, [G·S, T + G·S], shows each its prompt and, causally,
itself: one call, one softmax. What only the batch knows, how long each prompt is, goes in as segment ids, in which
padding is a segment of its own.

The compiler cannot split a kernel. On a mesh (`jax.set_mesh`) each device calls it for its own prompts and heads. Where
the tensor axis is larger than the number of key/value heads, each of these is repeated for the devices that share it.

Layouts are those of `prefix`, queries come scaled by 1/√H.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask_info as tiles
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from evads_jax.models.partitioning import BATCH_AXES, several

LANES = 128  # of the chip's registers: heads, rows and keys are padded to multiples of it
TILE = 512  # rows, and keys, of a tile at most


@dataclasses.dataclass(frozen=True)
class SuffixMask(masks.Mask):
    """What the tokens of G suffixes see of [their prompt | all suffixes].

    Attributes:
      rows: G·S and padding, whose rows see the prompt.
      prompt: tokens of the prompt, padding included.
      suffix: tokens of a suffix, S.
      keys: prompt, G·S and padding, which no row of a suffix sees.
    """

    rows: int
    prompt: int
    suffix: int
    keys: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and keys."""
        return self.rows, self.keys

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        """A part of the mask."""
        row, key = (np.arange(size)[part] for size, part in zip(self.shape, index, strict=True))
        row, own = row[:, None], key[None, :] - self.prompt
        return (own < 0) | ((own <= row) & (own >= row - row % self.suffix))


def prompt_attention(
    q: Float[Array, "B T N H"], k: Float[Array, "B K T H"], v: Float[Array, "B K T H"], interpret: bool = False
) -> Float[Array, "B T N H"]:
    """`prefix.prompt_attention`; `interpret` runs the kernel's program step by step on any device."""
    T, (_, tall) = q.shape[1], _tile(q.shape[1])
    return _attend(masks.CausalMask((tall, tall)), q, k, v, None, interpret)[:, :T]


def suffix_attention(
    q: Float[Array, "B G S N H"],
    prompt_k: Float[Array, "B K T H"],
    prompt_v: Float[Array, "B K T H"],
    lengths: Int[Array, " B"],
    own_k: Float[Array, "B K G S H"],
    own_v: Float[Array, "B K G S H"],
    interpret: bool = False,
) -> Float[Array, "B G S N H"]:
    """`prefix.suffix_attention` of whole suffixes, each causal; `interpret` as in `prompt_attention`."""
    B, G, S, N, H = q.shape
    K, T = prompt_k.shape[1:3]
    keys, values = (
        jnp.concatenate([prompt, own.reshape(B, K, G * S, H)], axis=2)
        for prompt, own in ((prompt_k, own_k), (prompt_v, own_v))
    )
    place = jnp.arange(_tile(T + G * S)[1])
    real = (place < lengths[:, None]) | (place >= T)
    mask = SuffixMask(_tile(G * S)[1], T, S, len(place))
    return _attend(mask, q.reshape(B, G * S, N, H), keys, values, real, interpret)[:, : G * S].reshape(q.shape)


def unit_attention(
    q: Float[Array, "U N P H"],
    k: Float[Array, "U N P H"],
    v: Float[Array, "U N P H"],
    real: Bool[Array, "U P"],
    interpret: bool = False,
) -> Float[Array, "U N P H"]:
    """`prefix.masked_attention` of all patches of a unit to its real ones; `interpret` as in `prompt_attention`."""
    P, (_, tall) = q.shape[2], _tile(q.shape[2])
    keys = jnp.pad(real, ((0, 0), (0, tall - P)))
    attended = _attend(masks.FullMask((tall, tall)), q.transpose(0, 2, 1, 3), k, v, keys, interpret)
    return attended[:, :P].transpose(0, 2, 1, 3)


def _attend(mask: masks.Mask, q: Array, k: Array, v: Array, real: Array | None, interpret: bool) -> Array:
    """The kernel on padded arrays, [B, rows of the mask, N, H]; `real` says which keys are no padding."""
    N, H = q.shape[2:]
    rows, keys = mask.shape
    q = _padded(q.transpose(0, 2, 1, 3), rows)
    k, v = (_padded(x, keys) for x in (k, v))
    segments = None
    if real is not None:
        segments = kernels.SegmentIds(jnp.ones((len(q), rows), jnp.int32), real.astype(jnp.int32))

    def run(q: Array, k: Array, v: Array, segments: Any) -> Any:
        kernel = _kernel(mask, q.shape[1], interpret)
        return jax.vmap(lambda q, k, v, segments: kernel(q, k, v, segments))(q, k, v, segments)

    return _on_mesh(run, N, q, k, v, segments).transpose(0, 2, 1, 3)[..., :H]


def _on_mesh(run: Callable[..., Array], N: int, q: Array, k: Array, v: Array, segments: Any) -> Array:
    """`run` of each device's share, as far as the mesh divides prompts and heads; whole, where it does not."""
    mesh = jax.sharding.get_abstract_mesh()
    if not several(mesh):
        return run(q, k, v, segments)
    tp, shards, K = mesh.shape["tp"], mesh.shape["data"] * mesh.shape["fsdp"], k.shape[1]
    if N % tp == 0 and tp % K == 0:
        k, v = (jnp.repeat(x, tp // K, axis=1) for x in (k, v))
    batch = BATCH_AXES if len(q) % shards == 0 else None
    heads = "tp" if N % tp == 0 and k.shape[1] % tp == 0 else None
    split = PartitionSpec(batch, heads)
    specs = (split, split, split, PartitionSpec(batch))
    return jax.shard_map(run, in_specs=specs, out_specs=split, check_vma=False)(q, k, v, segments)


@functools.cache
def _kernel(mask: masks.Mask, heads: int, interpret: bool) -> kernels.SplashAttentionKernel:
    """The kernel for a mask and a number of query heads; what it knows of the mask's tiles is computed here, once."""
    rows, keys = (_tile(size)[0] for size in mask.shape)
    sizes = kernels.BlockSizes(
        block_q=rows, block_kv=keys, block_q_dkv=rows, block_kv_dkv=keys, block_q_dq=rows, block_kv_dq=keys
    )
    # As `make_splash_mha` does, which would put them on a device: when compiling for a slice, there is none.
    every = masks.MultiHeadMask([mask] * heads)
    by_rows, function = tiles.process_mask(every, (rows, keys))
    by_keys, _ = tiles.process_mask_dkv(every, (rows, keys))
    return kernels.SplashAttentionKernel(
        by_rows,
        by_rows,
        by_keys,
        block_sizes=sizes,
        is_mqa=False,
        save_residuals=False,
        mask_value=kernels.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=None,
        residual_checkpoint_name=None,
        mask_function=function,
        interpret=interpret,
    )


def _tile(length: int) -> tuple[int, int]:
    """The size of equal tiles of at most `TILE`, multiples of `LANES`, and the length that they fill."""
    count = -(-length // TILE)
    size = -(-length // (count * LANES)) * LANES
    return size, count * size


def _padded(x: Array, length: int) -> Array:
    """Zeros behind the tokens and behind the heads' width."""
    return jnp.pad(x, ((0, 0), (0, 0), (0, length - x.shape[2]), (0, -x.shape[3] % LANES)))
