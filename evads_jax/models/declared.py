"""What is read off the parameters that an NNX module declares: their values, and what was said of each of them."""

from collections.abc import Callable
from typing import Any

from flax import nnx

Params = dict[str, Any]


def values(module: nnx.Module) -> Params:
    """The parameters of a module as nested dicts of arrays."""
    return nnx.to_pure_dict(nnx.state(module, nnx.Param))


def metadata(make: Callable[[], nnx.Module], name: str) -> Params:
    """The same tree with what each parameter was declared with, e.g. its "axes"; nothing is computed.

    Args:
      make: makes the module.
      name: of the keyword of `nnx.Param`.
    """
    tree: Params = {}
    for path, variable in nnx.to_flat_state(nnx.state(nnx.eval_shape(make), nnx.Param)):
        *parents, last = map(str, path)
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = variable.get_metadata(name)
    return tree
