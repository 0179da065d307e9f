"""Parameters for tests that do not ask how parameters start."""

import math

import jax
import numpy as np

from evads_jax.models import flor


def params(config, seed=0):
    """Parameters that all matter, affines and statistics too; by NumPy, so that nothing is compiled."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name, x = path[-1].key, rng.normal(size=leaf.shape)
        if name in ("scale", "variance"):
            return (1 + 0.2 * np.abs(x)).astype(np.float32)
        inputs = math.prod(leaf.shape[:-1]) if name.startswith("kernel") else 12
        return (x * inputs**-0.5).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, flor.abstract(config))
