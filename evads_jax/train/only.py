"""Which runs of a study a process makes.

`config.only` names some of them, so that several processes, or machines with one disk, share a study. A call without
it makes what is left and writes the tables.
"""

from collections.abc import Iterable, Sequence

from evads_jax.errors import UserError


def chosen(runs: Iterable[str], only: Sequence[str]) -> list[str]:
    """The runs that are made, in the study's order.

    Args:
      runs: all runs of the study, by the names of their folders.
      only: `config.only`; empty: all.

    Raises:
      UserError: the study has no such run.
    """
    known = list(runs)
    if unknown := sorted(set(only) - set(known)):
        raise UserError(f"the study has no run {unknown[0]!r}", "config.only", "of " + ", ".join(known))
    return [name for name in known if not only or name in only]
