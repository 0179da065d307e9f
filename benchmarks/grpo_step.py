"""A whole GRPO step beside TRL's GRPOTrainer: sample, reward, loss, gradients, AdamW update.

    .venv-peers/bin/python -m benchmarks.grpo_step --out=grpo_step.json [--page=docs/performance.md] [--longest=1024]
        [--json] [--quick]

Run it from the root of the repository, alone on the machine, in the environment that `make test-peers` makes; this
project's side runs in that of `make train`, which is to be there too. Both sides load the same drawn weights, must give
the same log-probabilities, see the same prompts, sample completions of the same length and take turns, each in a
process of its own that stays up. Each side runs at its fastest settings, found first and all listed. Takes an hour and
three quarters on two cores at 100 · 10⁹ operations a second, two thirds of it TRL's prompts of 4,096 tokens (an
estimate from the sizes); started again with the same `--out` and options it goes on where it stopped: every measurement
is kept as it comes. With `--longest` it leaves out prompts of more tokens, which a later call without it adds.
docs/performance.md says what is counted.
"""

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.command import options_parser, put, table
from benchmarks.decoder import Sizes, Work, write_checkpoints
from benchmarks.ours import PHASES, Settings
from benchmarks.record import Record
from benchmarks.sides import OUR_MODULE, in_turn, started

OURS, TRL = "evads_jax", "TRL"
MODULES = {OURS: OUR_MODULE, TRL: "benchmarks.theirs"}
LONG = 4096  # prompt tokens from which TRL is not warmed up (its step takes minutes) and one pair must do
WORKS = [Work(4, 8, tokens, 64, ragged) for tokens in (64, 1024, LONG) for ragged in (False, True)]
QUICK_SIZES = Sizes(vocabulary=64, width=32, layers=2, heads=2, mlp_width=48)
QUICK_WORKS = [Work(2, 2, 12, 4, ragged=True)]
BATCHES = (4, 8, 32)
CLOSE = 1e-3  # between log-probabilities of the two sides, whose weights are drawn so that whatever differs shows


def main() -> None:
    """The command."""
    counts = "pairs of steps; one at the longest prompts"
    parser = options_parser(__doc__, "also put the tables into the blocks of this page", 3, counts)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="a tiny model and prompts: whether it runs at all")
    parser.add_argument("--longest", type=int, default=LONG, help="tokens of the longest prompts that are worked on")
    options = parser.parse_args()
    record = Record(options.out, rounds=options.rounds, quick=options.quick)
    sizes = QUICK_SIZES if options.quick else Sizes()
    works = [work for work in (QUICK_WORKS if options.quick else WORKS) if work.tokens <= options.longest]
    if not works:
        parser.error(f"no prompts of at most {options.longest} tokens are worked on")
    peak = record.once("peaks of the machine", machine.peaks)
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoints(Path(folder), sizes)
        probes = {work.name: probe(work, folder, sizes, record, options.quick) for work in works}
        rows = {work.name: compare(work, folder, sizes, record, probes[work.name], options.rounds) for work in works}
    cut = f" --longest={options.longest}" if options.longest < LONG else ""
    command = record.described(f"python -m benchmarks.grpo_step{cut}")
    blocks = {
        "grpo_step": compared(rows) + f"\n\n{command}",
        "grpo_step_settings": listed(probes),
        "phases": phases(rows, works, sizes, peak),
    }
    print("\n\n".join(blocks.values()))
    if options.page:
        put(options.page, blocks)
    if options.json:
        print(json.dumps({"about": record.about, "settings": {name: as_json(row) for name, row in rows.items()}}))


def spec(side: str, work: Work, folder: str, sizes: Sizes, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A child's module and what it is told."""
    told = {"kind": "step", "folder": folder, "work": vars(work), "sizes": vars(sizes), "settings": settings}
    return MODULES[side], told


def candidates(work: Work, quick: bool) -> dict[str, dict[str, dict[str, Any]]]:
    """The settings that each side is tried with, by name."""
    total = work.prompts * work.group
    batches = sorted({max(1, total * batch // 32) for batch in BATCHES})
    theirs = {
        f"batch {batch}, checkpointing {'on' if checkpoint else 'off'}": {"batch": batch, "checkpoint": checkpoint}
        for batch, checkpoint in itertools.product(batches, (False, True))
    }
    ours = [Settings(), Settings(micro_groups=1)]
    every = {OURS: {settings.name: vars(settings) for settings in ours}, TRL: theirs}
    return {side: dict(list(found.items())[-1:]) if quick else found for side, found in every.items()}


def probe(work: Work, folder: str, sizes: Sizes, record: Record, quick: bool) -> dict[str, dict[str, Any]]:
    """One step of each side with each of its settings, each in a fresh process: side → settings → measurement.

    A process that does not live through its step (most likely it wanted more memory than there is) has the end of what
    it said as `failed`.

    Raises:
      RuntimeError: a process was never ready: it lacks something, and nothing is kept of it.
    """

    def measure(side: str, settings: dict[str, Any]) -> dict[str, Any]:
        with started({side: spec(side, work, folder, sizes, settings)}) as sides:
            try:
                return in_turn(sides, "step", 1, warmups(work))[side] | {"settings": settings}
            except RuntimeError as error:
                return {"failed": str(error).strip().splitlines()[-1]}

    return {
        side: {
            name: record.once(
                f"{work.name}, {side}, {name}", lambda side=side, settings=settings: measure(side, settings)
            )
            for name, settings in found.items()
        }
        for side, found in candidates(work, quick).items()
    }


def compare(
    work: Work, folder: str, sizes: Sizes, record: Record, probes: dict[str, dict[str, Any]], rounds: int
) -> dict[str, Any]:
    """Both sides at their fastest settings, in turn.

    Raises:
      RuntimeError: they do not give the same log-probabilities, or a side has no settings that work.
    """

    def measure() -> dict[str, Any]:
        best = {side: fastest(found) for side, found in probes.items()}
        specs = {side: spec(side, work, folder, sizes, probes[side][name]["settings"]) for side, name in best.items()}
        with started(specs) as sides:
            ours, theirs = (np.array(sides[side].ready["logprobs"]) for side in (OURS, TRL))
            if not np.abs(ours - theirs).max() <= CLOSE:
                raise RuntimeError(f"the sides differ in log-probabilities: {ours.tolist()} and {theirs.tolist()}")
            found = in_turn(sides, "step", 1 if work.tokens >= LONG else rounds, warmups(work))
        return {side: found[side] | {"settings": best[side]} for side in found}

    return dict(record.once(f"{work.name}, in turn", measure))


def warmups(work: Work) -> dict[str, int]:
    """Steps of each side that do not count; ours compiles in its first."""
    return {OURS: 1, TRL: 0 if work.tokens >= LONG else 1}


def fastest(found: dict[str, dict[str, Any]]) -> str:
    """The name of the settings that took the least time."""
    taken = {name: measured["seconds"] for name, measured in found.items() if "failed" not in measured}
    if not taken:
        raise RuntimeError(f"no settings work: {found}")
    return min(taken, key=taken.__getitem__)


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    """A setting's medians, ratio and peak memory."""
    ours, theirs = row[OURS], row[TRL]
    return {
        OURS: {name: ours[name] for name in ("seconds", "peak_bytes", "rounds")},
        TRL: {name: theirs[name] for name in ("seconds", "peak_bytes", "rounds")},
        "ratio": theirs["seconds"] / ours["seconds"],
        "peak_share": ours["peak_bytes"] / theirs["peak_bytes"],
    }


def compared(rows: dict[str, dict[str, Any]]) -> str:
    """The table of both sides."""
    heads = [
        "prompt + completion",
        f"{OURS}, s",
        "TRL, s",
        "times as fast",
        f"peak {OURS}, GB",
        "peak TRL, GB",
        "share",
    ]
    lines = []
    for name, row in rows.items():
        found = as_json(row)
        times = [f"{found[side]['seconds']:.3g}" for side in (OURS, TRL)]
        memory = [f"{found[side]['peak_bytes'] / 1e9:.2f}" for side in (OURS, TRL)]
        lines.append([name, *times, f"{found['ratio']:.1f}", *memory, f"{found['peak_share']:.2f}"])
    return table(heads, lines)


def listed(probes: dict[str, dict[str, Any]]) -> str:
    """Every setting of both sides."""
    lines = []
    for work, sides in probes.items():
        for side, found in sides.items():
            for name, measured in found.items():
                if "failed" in measured:
                    lines.append([work, side, name, "did not end", measured["failed"].replace("|", "/")[:80]])
                else:
                    gb = f"{measured['peak_bytes'] / 1e9:.2f}"
                    lines.append([work, side, name, f"{measured['seconds']:.3g}", gb])
    return table(["prompt + completion", "side", "settings", "s", "peak, GB"], lines)


def phases(rows: dict[str, dict[str, Any]], works: list[Work], sizes: Sizes, peak: dict[str, float]) -> str:
    """Where a step's time goes, and what it could be at best."""
    lines = []
    for work in works:
        costs = machine.floors(sizes.config(), work.lengths, work.group, work.new)
        for phase in PHASES:
            taken, cost = rows[work.name][OURS][phase], costs.get(phase)
            least = machine.seconds(cost, peak) if cost else 0.0
            floor = ["", "", "", ""]
            if cost:
                floor = [f"{cost.flops / 1e9:.3g}", f"{cost.bytes / 1e9:.3g}", f"{least:.2g}", f"{taken / least:.1f}"]
            lines.append([work.name, phase, f"{taken:.3g}", *floor])
    heads = ["prompt + completion", "phase", "s", "10⁹ operations", "GB", "floor, s", "times the floor"]
    peaks = f"Peaks: {peak['flops'] / 1e9:.0f} · 10⁹ operations and {peak['bytes'] / 1e9:.1f} GB a second."
    return f"{table(heads, lines)}\n\n{peaks}"


if __name__ == "__main__":
    main()
