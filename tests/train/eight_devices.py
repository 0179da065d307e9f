"""A GRPO update and a rollout on one device and on meshes of eight; a program, since the devices are forced.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python eight_devices.py

Prints, for every mesh, once with all parameters trained and once with adapters, the largest difference of loss,
gradients, and the sampler's log-probabilities (relative to the largest value where that is above 1), and how many
samples differ in a token.
"""

import contextlib
import dataclasses
import json
import runpy
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import optax

from evads_jax.models import lora, partitioning, qwen_vl
from evads_jax.models.division import Division, place
from evads_jax.models.qwen_vl import PromptBatch, SuffixBatch, VideoInputs, VisionConfig
from evads_jax.sampling.config import SamplingConfig
from evads_jax.sampling.rollout import sample
from evads_jax.train import grpo, state
from evads_jax.train.optimizer import Optimizer
from evads_jax.train.trainable import divide

MESHES = {"fsdp8": (1, 8, 1), "tp4_fsdp2": (1, 2, 4), "data2_fsdp4": (2, 4, 1)}
B, T, G, S = 8, 6, 2, 5
MODEL = qwen_vl.QwenVLConfig(
    vocabulary=40, width=16, layers=2, heads=4, kv_heads=2, head_width=12, mlp_width=20, mrope_sections=(2, 2, 2),
    vision=VisionConfig(width=16, layers=1, heads=4, mlp_width=8, patch=2, merge=2, position_grid=3, deepstack=(0,)),
)  # fmt: skip


def batch(seed=0):
    rng = np.random.default_rng(seed)
    index = np.where(np.arange(T) == 2, np.arange(B)[:, None], -1)
    video = VideoInputs(rng.integers(0, 256, (B, 4, 24)).astype(np.uint8), np.full((B, 2), 2, np.int32))
    positions = np.tile(np.arange(T, dtype=np.int32)[:, None], (B, 1, 3))
    lengths = np.asarray([6, 6, 5, 6, 4, 6, 3, 6], np.int32)
    tokens = rng.integers(0, 40, (B, T)).astype(np.int32)
    prompt = PromptBatch(tokens, lengths, positions, index.astype(np.int32), lengths, video)
    tokens = rng.integers(0, 40, (B, G, S)).astype(np.int32)
    lengths = rng.integers(1, S + 1, (B, G)).astype(np.int32)
    suffix = SuffixBatch(tokens, lengths, np.arange(S) < lengths[..., None])
    old, reference = (rng.normal(-3.5, 0.2, (B, G, S)).astype(np.float32) for _ in range(2))
    advantages = rng.normal(size=(B, G)).astype(np.float32)
    return prompt, grpo.Samples(suffix, old, None, reference, advantages, None)


def divided(config, params, mesh):
    """The parts of the policy; all factors of an adapter are drawn, the second ones are not zero as at its start."""
    part = divide(config, MODEL, params, "mg_grpo", mesh)
    if not config.lora.rank:
        return part

    def drawn(factor):
        draw = np.random.default_rng(factor.size)
        return jax.device_put(0.05 * draw.normal(size=factor.shape).astype(np.float32), factor.sharding)

    return part._replace(start=jax.tree.map(drawn, part.start))


def outcome(sizes, rank=0):
    """Loss, gradients and rollout.

    Args:
      sizes: of the mesh; None for one device.
      rank: of the adapters that are trained; 0: all parameters are.
    """
    mesh = None if sizes is None else partitioning.make_mesh(*sizes)
    params = jax.tree.map(lambda x: 1.5 * x, qwen_vl.init(MODEL, jax.random.key(0)))
    if mesh is not None:
        where = partitioning.shardings(qwen_vl.axes(MODEL), mesh, params)
        params = jax.device_put(params, where)
    # On a mesh as configs for slices have it: one program for all layers, activations made again.
    model = MODEL if mesh is None else dataclasses.replace(MODEL, scan_layers=True, remat=True)
    config = runpy.run_path(str(Path(__file__).parents[2] / "configs" / "mg_grpo.py"))["get_config"]()
    rl, config.lora.rank, config.lora.groups = config.rl, rank, tuple(lora.GROUPS)
    rl.update(batch_prompts=B, group=G, max_new_tokens=S)
    part = divided(config, params, mesh)
    # An optimizer that keeps the gradient and changes nothing.
    keeps = Optimizer(optax.chain(optax.trace(0.0), optax.scale(0.0)), optax.constant_schedule(0.0))
    sampling = SamplingConfig(S, 1.0, 1.0, (3,), 0)
    learner = grpo.GRPOLearner(
        part.start, model, rl, keeps, cast(Any, None), sampling, Path(), Division(mesh), part.frozen
    )
    prompt, samples = place(batch(), mesh)
    with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
        after, metrics = learner.update(state.create(part.start, keeps.transformation), prompt, samples, part.frozen)
        ids = place(np.arange(B, dtype=np.int32), mesh)
        policy = lora.combine(part.frozen, part.start)
        rollout = sample(policy, model, prompt, ids, G, sampling, jax.random.key(1))
    return jax.device_get((metrics["loss"], after.opt_state[0].trace, rollout))


def difference(one, other):
    def worst(a, b):
        return float(np.abs(a - b).max() / max(1.0, np.abs(a).max()))

    return max(worst(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def compare(alone, split):
    loss, gradients, rollout = split
    same = (rollout.tokens == alone[2].tokens).all(axis=-1)
    logprobs = [dataclasses.replace(r, logprobs=r.logprobs * same[..., None]).logprobs for r in (alone[2], rollout)]
    scale = max(float(np.abs(x).max()) for x in jax.tree.leaves(alone[1]))
    return {
        "loss": difference(alone[0], loss),
        "gradients": difference(
            jax.tree.map(lambda x: x / scale, alone[1]), jax.tree.map(lambda x: x / scale, gradients)
        ),
        "logprobs": difference(*logprobs),
        "samples_that_differ": int((~same).sum()),
        "samples": same.size,
    }


if __name__ == "__main__":
    assert jax.device_count() == 8
    found = {}
    for trained, rank in (("", 0), ("_lora", 3)):
        single = outcome(None, rank)
        found |= {f"{name}{trained}": compare(single, outcome(sizes, rank)) for name, sizes in MESHES.items()}
    print(json.dumps(found))
