"""COPE's losses, and a gradient of the whole model, on one device and on a mesh of eight; a program of its own.

    PYTHONPATH=tests XLA_FLAGS=--xla_force_host_platform_device_count=8 python eight_devices.py losses fsdp8

The first argument may also be `model`, the second any of `MESHES`. Prints the largest difference of each value and
gradient, relative to its largest number, and what the compiled classification sends between devices.
"""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from models.cope import tiny

from evads_jax.models import cope, partitioning

MESHES = {"fsdp8": (1, 8, 1), "data2_fsdp2_tp2": (2, 2, 2)}
B, E, C = 16, 6, 24
rng = np.random.default_rng(0)
left, right = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, B, E)).astype(np.float32))
weights = rng.normal(size=(C, E)).astype(np.float32)
valid = np.arange(B) % 5 != 3
products = rng.integers(0, C, B).astype(np.int32) // 2  # some of them twice

pair = jax.value_and_grad(
    lambda a, b, v, p: cope.pair_loss(a, b, v, p, temperature=0.05, smoothing=0.1, chunk=3), (0, 1)
)
classes = jax.value_and_grad(cope.cosface_loss, (0, 1))
CLIPS = {domain: tiny.clips(8, F=1 if domain == "page" else 3, seed=i, empty=(i,))
         for i, domain in enumerate(cope.DOMAINS)}  # fmt: skip
SETTINGS = cope.LossSettings.from_config({"chunk": 3}, tiny.CONFIG)


@jax.value_and_grad
def whole(params, clips, products):
    embeddings = {domain: cope.encode(params, tiny.CONFIG, given, domain) for domain, given in clips.items()}
    return cope.cope_loss(params, tiny.CONFIG, SETTINGS, clips, embeddings, products)[0]


def losses(mesh):
    """Values and gradients of both losses, and the compiled classification."""
    pairs, labels = (left, right, valid, products), (weights, right, products, valid)
    if mesh is not None:
        rows, columns = partitioning.batch_sharding(mesh), NamedSharding(mesh, P("tp"))
        pairs, labels = jax.device_put((pairs, labels), (rows, (columns, rows, rows, rows)))
    compiled = jax.jit(classes).lower(*labels).compile()
    return jax.device_get({"pair": jax.jit(pair)(*pairs), "cosface": compiled(*labels)}), compiled.as_text()


def model(mesh):
    """Value and gradients of the loss of a whole model."""
    params, batch = tiny.params(), (CLIPS, np.arange(8, dtype=np.int32) // 2)
    if mesh is not None:
        batch = jax.device_put(batch, partitioning.batch_sharding(mesh))
        params = jax.device_put(params, partitioning.shardings(cope.axes(tiny.CONFIG), mesh, params))
    return jax.device_get({"model": jax.jit(whole)(params, *batch)}), ""


def difference(one, other):
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(one[1]))
    gaps = [jnp.abs(a - b).max() / scale for a, b in zip(*map(jax.tree.leaves, (one[1], other[1])), strict=True)]
    return max(abs(float(one[0] - other[0])) / abs(float(one[0])), *map(float, gaps))


if __name__ == "__main__":
    assert jax.device_count() == 8
    outcome = {"losses": losses, "model": model}[sys.argv[1]]
    alone, _ = outcome(None)
    data, fsdp, tp = MESHES[sys.argv[2]]
    mesh = partitioning.make_mesh(data, fsdp, tp)
    with jax.set_mesh(mesh):
        split, text = outcome(mesh)
    logits = rf"f32\[({B}|{B // data // fsdp}),{C}\]"
    result = {what: difference(alone[what], split[what]) for what in split} | {
        "gathers": len(re.findall("all-gather", text)),
        "whole_logits": len(re.findall(logits, text)) if tp > 1 else 0,
    }
    print(json.dumps(result))
