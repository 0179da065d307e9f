"""What the commands of this folder share: their options, the fastest of some rounds, tables, blocks of a page."""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from evads_jax.density.measure_released import replace_block

FASTEST = "the fastest round counts"


def options_parser(
    about: str, page: str, rounds: int | None = None, counts: str | None = None
) -> argparse.ArgumentParser:
    """The options of a command.

    Args:
      about: its module's docstring, whose first line is shown.
      page: what `--page` does.
      rounds: the default of `--rounds`; None: it has no rounds and keeps no numbers (`--out`).
      counts: which round counts, where that is to be said.
    """
    made = argparse.ArgumentParser(description=about.split("\n")[0])
    if rounds is not None:
        made.add_argument("--rounds", type=int, default=rounds, help=counts)
        made.add_argument("--out", type=Path, help="keep the numbers here, as JSON")
    made.add_argument("--page", type=Path, help=page)
    return made


def fastest(work: Callable[[], object], rounds: int) -> float:
    """Seconds of the fastest of some rounds."""
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def in_turn(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side's rounds, taken in turn; each has worked once before."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(fastest(work, 1))
    return taken


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))


def put(page: Path, blocks: Mapping[str, str]) -> None:
    """Puts texts into the blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for name, block in blocks.items():
        text = replace_block(text, name, block)
    page.write_text(text, encoding="utf-8")
