"""The architecture once more, for one unpadded sequence: no cache, no sharing, no batch.

Written from the definition and apart from `evads_jax`, so that both can only agree by being right.
"""

import jax
import jax.numpy as jnp
import numpy as np


def rms(x, scale, epsilon=1e-6):
    return x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + epsilon) * scale


def layer_norm(x, norm):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6) * norm["scale"] + norm["bias"]


def turn(x, angles):
    """Rotates [n, heads, width] by angles [n, width/2], pairs (i, i + width/2)."""
    half = x.shape[-1] // 2
    z = (x[..., :half] + 1j * x[..., half:]) * jnp.exp(1j * angles)[:, None, :]
    return jnp.concatenate([z.real, z.imag], -1)


def attend(q, k, v, mask):
    """[n, heads, width] each, keys repeated for their query heads; mask [n, n]."""
    k, v = (jnp.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    logits = jnp.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
    return jnp.einsum("hqk,khd->qhd", jax.nn.softmax(jnp.where(mask, logits, -jnp.inf)), v)


def unit_features(params, config, patches, grid):
    """Video tokens and DeepStack features of one temporal unit without padding; patches in merge-block order."""
    sizes, vision = config.vision, params["vision"]
    height, width = grid
    m, side = sizes.merge, sizes.position_grid
    places = [
        (block_row * m + i, block_column * m + j)
        for block_row in range(height // m)
        for block_column in range(width // m)
        for i in range(m)
        for j in range(m)
    ]
    share = np.zeros((len(places), side, side))
    for n, (row, column) in enumerate(places):
        y, x = row * (side - 1) / (height - 1), column * (side - 1) / (width - 1)
        y0, x0 = min(int(y), side - 2), min(int(x), side - 2)
        fy, fx = y - y0, x - x0
        share[n, y0 : y0 + 2, x0 : x0 + 2] = np.outer([1 - fy, fy], [1 - fx, fx])
    x = (jnp.asarray(patches, float) / 255 - 0.5) / 0.5 @ vision["patch"]["weight"] + vision["patch"]["bias"]
    x = x + share.reshape(len(places), -1) @ vision["position"]
    quarter = sizes.head_width // 4
    frequencies = sizes.rope_theta ** -(np.arange(quarter) / quarter)
    angles = jnp.asarray([[*(row * frequencies), *(column * frequencies)] for row, column in places])
    features = []
    for i in range(sizes.layers):
        layer = jax.tree.map(lambda w, i=i: w[i], vision["layers"])
        qkv = jnp.einsum("nd,dchw->cnhw", layer_norm(x, layer["norm1"]), layer["qkv"]["weight"])
        q, k, v = qkv + layer["qkv"]["bias"][:, None]
        mixed = attend(turn(q, angles), turn(k, angles), v, True)
        x = x + jnp.einsum("nhw,hwd->nd", mixed, layer["out"]["weight"]) + layer["out"]["bias"]
        hidden = layer_norm(x, layer["norm2"]) @ layer["up"]["weight"] + layer["up"]["bias"]
        x = x + jax.nn.gelu(hidden, approximate=True) @ layer["down"]["weight"] + layer["down"]["bias"]
        if i in sizes.deepstack:
            merger = jax.tree.map(lambda w: w[sizes.deepstack.index(i)], vision["deepstack"])  # noqa: B023
            features.append(mlp(merger, layer_norm(x.reshape(-1, sizes.merged_width), merger["norm"])))
    merged = layer_norm(x, vision["merger"]["norm"]).reshape(-1, sizes.merged_width)
    return [mlp(vision["merger"], merged), *features]


def mlp(merger, x):
    hidden = jax.nn.gelu(x @ merger["up"]["weight"] + merger["up"]["bias"], approximate=False)
    return hidden @ merger["down"]["weight"] + merger["down"]["bias"]


def logits(params, config, ids, positions, features=None, places=()):
    """Logits of every token of one sequence.

    Args:
      params: the model's parameters.
      config: the model's sizes.
      ids: token ids [n].
      positions: M-RoPE positions [n, 3].
      features: rows of video tokens, and of each DeepStack layer.
      places: where in the sequence these rows stand.
    """
    text = params["text"]
    x = text["embed"][np.asarray(ids)]
    places = np.asarray(places, int)
    if len(places):
        x = x.at[places].set(features[0])
    half = config.head_width // 2
    frequencies = config.rope_theta ** -(np.arange(half) / half)
    sections = config.mrope_sections
    axis = [i % 3 if i % 3 and i < 3 * sections[i % 3] else 0 for i in range(half)]
    angles = jnp.asarray(np.asarray(positions)[:, axis] * frequencies)
    causal = np.tri(len(x), dtype=bool)
    for i in range(config.layers):
        layer = jax.tree.map(lambda w, i=i: w[i], text["layers"])
        h = rms(x, layer["norm1"]["scale"])
        q, k, v = (jnp.einsum("nd,dhw->nhw", h, layer[name]) for name in "qkv")
        q, k = (turn(rms(y, layer[f"{name}_norm"]["scale"]), angles) for y, name in ((q, "q"), (k, "k")))
        x = x + jnp.einsum("nhw,hwd->nd", attend(q, k, v, causal), layer["out"])
        h = rms(x, layer["norm2"]["scale"])
        x = x + (jax.nn.silu(h @ layer["gate"]) * (h @ layer["up"])) @ layer["down"]
        if len(places) and i + 1 < len(features):
            x = x.at[places].add(features[i + 1])
    return rms(x, text["norm"]["scale"]) @ text["embed" if config.tie_embeddings else "head"].T
