"""What one training step turns into the next: parameters, optimizer state, step number; and its guard."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

Tree = Any


@struct.dataclass
class TrainState:
    """Everything that a training step changes.

    Attributes:
      params: the parameters, float32.
      opt_state: the optimizer's state.
      step: steps done.
    """

    params: Tree
    opt_state: optax.OptState
    step: Int[Array, ""]


def create(params: Tree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step.

    The parameters are copied: steps donate their state, and the caller's arrays may be wanted again. The optimizer's
    moments take the sharding of the parameters they belong to.
    """
    params = jax.tree.map(jnp.copy, params)
    made = TrainState(params, jax.jit(optimizer.init)(params), jnp.int32(0))
    some = jax.tree.leaves(params)[0].sharding
    if isinstance(some, jax.sharding.NamedSharding) and some.mesh.size > 1:
        return jax.device_put(made, shardings(made, optimizer))
    return made


def released(tree: Tree) -> Tree:
    """Gives up a tree's arrays; returns their shapes and shardings.

    Args:
      tree: arrays, of which some may be gone already, or shapes.
    """

    def shape(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array):
            return leaf
        kept = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
        leaf.delete()
        return kept

    return jax.tree.map(shape, tree)


def shardings(state: TrainState, optimizer: optax.GradientTransformation) -> TrainState:
    """Where the arrays of a state live: moments with the parameters they belong to, numbers everywhere.

    Args:
      state: a state, or its shapes; only its parameters need to have shardings, on a mesh.
      optimizer: the optimizer that it belongs to.
    """
    of_params = jax.tree.map(lambda x: x.sharding, state.params)
    everywhere = jax.sharding.NamedSharding(jax.tree.leaves(of_params)[0].mesh, jax.sharding.PartitionSpec())
    of_moments = optax.tree_map_params(
        optimizer, lambda _, s: s, state.opt_state, of_params, transform_non_params=lambda _: everywhere
    )
    return TrainState(of_params, of_moments, everywhere)  # type: ignore[arg-type]  # where arrays are, not arrays


def apply_gradients(
    state: TrainState, optimizer: optax.GradientTransformation, loss: Float[Array, ""], gradients: Tree
) -> tuple[TrainState, dict[str, Array]]:
    """One optimizer step.

    Args:
      state: the state before.
      optimizer: the optimizer that `create` was called with.
      loss: the loss, looked at only to find where a number that is not finite comes from.
      gradients: the loss's gradients, like `state.params`.

    Returns:
      The state after, and `grad_norm` (before clipping) and `first_bad`: the index into `tensor_names` of the first
      tensor with a number that is not finite, −1 without one.
    """
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {"grad_norm": optax.global_norm(gradients), "first_bad": _first_bad([loss, *jax.tree.leaves(gradients)])}
    return TrainState(params, opt_state, state.step + 1), metrics


def tensor_names(params: Tree) -> list[str]:
    """The names that `first_bad` counts: the loss, then the gradient of each parameter."""
    paths = jax.tree_util.tree_leaves_with_path(params)
    return ["loss", *("gradient of " + jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in paths)]


def _first_bad(tensors: list[Array]) -> Int[Array, ""]:
    bad = jnp.stack([~jnp.all(jnp.isfinite(t)) for t in tensors])
    # The loss comes first, but says less than the gradient that is bad with it: look there first.
    return jnp.where(bad[1:].any(), 1 + jnp.argmax(bad[1:]), jnp.where(bad[0], 0, -1)).astype(jnp.int32)
