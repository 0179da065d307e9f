"""The numbers of a run as they are written down."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from clu import parameter_overview

from evads_jax.events import is_wall_clock

Tree = Any


def on_host(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as Python numbers, in the order of their names."""
    values = jax.device_get(dict(metrics))
    return {name: value.item() if hasattr(value, "item") else value for name, value in sorted(values.items())}


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Clocks to a tenth of a millisecond; everything else in full, so that equal runs can be told from similar ones."""
    return {k: round(v, 4) if is_wall_clock(k) and isinstance(v, float) else v for k, v in values.items()}


def write_overview(workdir: Path, params: Tree) -> None:
    """Writes `W/parameters.txt`: every parameter's shape, size and, where one process has all of them, statistics."""
    if jax.process_index() == 0:
        whole = all(x.is_fully_addressable for x in jax.tree.leaves(params))
        leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(params) if whole else params)
        shown = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
        overview = parameter_overview.get_parameter_overview(shown, include_stats=whole)
        (workdir / "parameters.txt").write_text(overview + "\n")
