"""The functions that MG-GRPO calls, with the shapes and shardings of their arguments and no array behind them.

They are the jitted functions of the learner and of its sampler, not copies: what is lowered here is what a run would
run. `rollout` is that of an evaluation, prefill and decode in one program.
"""

import math
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from evads_jax.models import lora, partitioning, qwen_vl
from evads_jax.models.qwen_vl import Prefix, PromptBatch, QwenVLConfig, SuffixBatch, VideoInputs
from evads_jax.sampling.rollout import sample
from evads_jax.train import grpo, optimizer, sampler, state, trainable
from evads_jax.train.state import TrainState

Tree = Any
FUNCTIONS = ("update", "logprobs", "prefill", "decode", "rollout")


class Functions:
    """The functions of one job on one mesh.

    Args:
      config: see configs/compile.py.
      mesh: the devices; they need not exist, and to count, a `jax.sharding.AbstractMesh` is enough.

    Attributes:
      model: the model's sizes.
      frozen: shapes of what is not trained; None where everything is.
      state: shapes of what is trained and of its optimizer.
      reference: shapes of what the reference holds beside `frozen`; None where there is no KL term.
      prompt: shapes of the prompts.
    """

    def __init__(self, config: ConfigDict, mesh: Any):
        self._config, self._mesh = config, mesh
        self.model = QwenVLConfig.from_config(config.model, config.model.vocabulary)
        part = self._divided()
        start, self.frozen = part.start, part.frozen
        made = optimizer.make(config.rl, part.decay_mask, config.rl.max_steps, part.matrices)
        self.state = self._state(start, made.transformation)
        self.reference = None
        if config.rl.kl != "none":
            held = jax.eval_shape(lambda params: trainable.kept(self.model, params), start)
            self.reference = jax.tree.map(lambda x, like: _at(x, like.sharding), held, start)
        sampling = grpo.sampling_config(config.rl, (0,), 0)
        # Rewards are not asked for, and nothing is written, before a step is taken.
        self._learner = grpo.GRPOLearner(
            start, self.model, config.rl, made, cast(Any, None), sampling, Path(), frozen=self.frozen
        )
        self._sampling = sampling
        self.prompt = self._placed(self._prompt())

    def lower(self, name: str) -> jax.stages.Lowered:
        """One of `FUNCTIONS`, lowered for the mesh."""
        B, G, S = self._sizes()
        policy, key = lora.combine(self.frozen, self.state.params), jax.eval_shape(lambda: jax.random.key(0))
        ids = self._placed(_struct(B))
        suffix = SuffixBatch(_struct(B, G, S), _struct(B, G), _struct(B, G, S, dtype=jnp.bool_))
        with jax.set_mesh(self._mesh):
            if name == "update":
                scores = _struct(B, G, S, dtype=jnp.float32)
                reference = None if self._config.rl.kl == "none" else scores
                advantages = _struct(B, G, dtype=jnp.float32)
                samples = self._placed(grpo.Samples(suffix, scores, None, reference, advantages, None))
                return self._learner.update.lower(self.state, self.prompt, samples, self.frozen)
            if name == "logprobs":
                return self._learner.logprobs.lower(policy, self.prompt, self._placed(suffix))
            if name == "rollout":
                return sample.lower(policy, self.model, self.prompt, ids, G, self._sampling, key)
            if name == "prefill":
                return sampler.prefill.lower(policy, self.model, self.prompt)
            return sampler.decode.lower(policy, self.model, self.prefix(), ids, G, self._sampling, key)

    def prefix(self) -> Prefix:
        """Shapes of what prefill leaves to decode: keys and values split by groups and, where they divide, by heads."""
        policy = lora.combine(self.frozen, self.state.params)
        shapes = jax.eval_shape(lambda params, prompt: sampler.prefill(params, self.model, prompt), policy, self.prompt)
        heads = "tp" if self.model.kv_heads % self._mesh.shape["tp"] == 0 else None
        spec = PartitionSpec(partitioning.BATCH_AXES, heads)

        def cache(x: Any) -> jax.ShapeDtypeStruct:
            return _at(x, NamedSharding(self._mesh, spec))

        keys, values = (jax.tree.map(cache, x) for x in (shapes.keys, shapes.values))
        rest = (self._placed(x) for x in (shapes.lengths, shapes.next_position, shapes.last))
        return Prefix(keys, values, *rest)

    def _divided(self) -> trainable.Trainable:
        """`trainable.divide` of shapes; with LoRA, over the frozen adapter that SFT left."""
        config, model, mesh = self._config, self.model, self._mesh
        held = jax.eval_shape(lambda p: trainable.prepare(config, model, p), qwen_vl.abstract(model))
        held = jax.tree.map(_at, held, partitioning.shardings(qwen_vl.axes(model), mesh, held))
        if not config.lora.rank:
            return trainable.divide(config, model, held, grpo.STAGE)
        trees = qwen_vl.abstract(model), qwen_vl.axes(model), qwen_vl.fan_in(model)
        declared = lora.declare(*trees, config.lora.rank, config.lora.alpha, tuple(config.lora.groups))
        factors = jax.eval_shape(lambda: lora.init(declared, jax.random.key(0)))
        axes = jax.tree.map(lambda factor: factor.axes, declared)
        adapter = jax.tree.map(_at, factors, partitioning.shardings(axes, mesh, factors))
        return trainable.Trainable(adapter, lora.combine(held, adapter), jax.tree.map(lambda _: True, adapter))

    def _state(self, start: Tree, transformation: Any) -> TrainState:
        bare = TrainState(start, jax.eval_shape(transformation.init, start), _struct())
        return jax.tree.map(_at, bare, state.shardings(bare, transformation))

    def _prompt(self) -> PromptBatch:
        B, T, data = self._sizes()[0], self._config.data.prompt_tokens, self._config.data
        units, values = B * data.units, self.model.vision.patch_values
        video = VideoInputs(_struct(units, data.patches, values, dtype=jnp.uint8), _struct(units, 2))
        return PromptBatch(_struct(B, T), _struct(B), _struct(B, T, 3), _struct(B, T), _struct(B), video)

    def _sizes(self) -> tuple[int, int, int]:
        rl, mesh = self._config.rl, self._mesh.shape
        return self._config.data.groups_per_shard * mesh["data"] * mesh["fsdp"], rl.group, rl.max_new_tokens

    def _placed(self, batch: Tree) -> Tree:
        return jax.tree.map(_at, batch, partitioning.batch_shardings(batch, self._mesh))


def bytes_per_device(tree: Tree) -> int:
    """Bytes of a tree of shapes with shardings on the device that holds most; what has none is whole everywhere."""

    def held(x: Any) -> int:
        shape = x.shape if x.sharding is None else x.sharding.shard_shape(x.shape)
        return math.prod(shape) * x.dtype.itemsize

    return sum(held(x) for x in jax.tree.leaves(tree))


def _struct(*shape: int, dtype: Any = jnp.int32) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def _at(x: Any, sharding: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
