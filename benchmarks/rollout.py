"""Sampling beside transformers' `generate`: tokens a second of a batch of 32, prompt 64, 128 new tokens.

    .venv-peers/bin/python -m benchmarks.rollout [--out=rollout.json] [--page=docs/performance.md] [--json] [--quick]

Run it from the root of the repository, alone on the machine, in the environments of `benchmarks.grpo_step`. Once
every completion has a prompt of its own, so that nothing is shared, and once 8 share each of 4; `generate` does the
same in both. Takes three minutes on two cores, one of them to start and to compile (an estimate); what was measured
with the same `--out` and options is not measured again.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import options_parser, put, table
from benchmarks.decoder import Sizes, Work, write_checkpoints
from benchmarks.grpo_step import CLOSE, MODULES, OURS, QUICK_SIZES, TRL
from benchmarks.record import Record
from benchmarks.sides import in_turn, started

GENERATE = "generate"
WORKS = [Work(32, 1, 64, 128), Work(4, 8, 64, 128)]
QUICK_WORKS = [Work(2, 2, 12, 4)]


def main() -> None:
    """The command."""
    parser = options_parser(__doc__, "also put the table into the block `rollout` of this page", 5)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="a tiny model and prompts: whether it runs at all")
    options = parser.parse_args()
    record = Record(options.out, rounds=options.rounds, quick=options.quick)
    sizes = QUICK_SIZES if options.quick else Sizes()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoints(Path(folder), sizes)
        for work in QUICK_WORKS if options.quick else WORKS:
            name = f"{work.prompts} prompts × {work.group}, {work.name}"
            found = record.once(name, lambda work=work: compare(work, folder, sizes, options.rounds))
            rows[name] = rates(work, found)
    block = compared(rows) + "\n\n" + record.described("python -m benchmarks.rollout")
    print(block)
    if options.page:
        put(options.page, {"rollout": block})
    if options.json:
        print(json.dumps({"about": record.about, "settings": rows}))


def compare(work: Work, folder: str, sizes: Sizes, rounds: int) -> dict[str, Any]:
    """Both sides in turn.

    Raises:
      RuntimeError: they do not give the same log-probabilities.
    """
    told = {"kind": "rollout", "folder": folder, "work": vars(work), "sizes": vars(sizes)}
    with started({OURS: (MODULES[OURS], told), GENERATE: (MODULES[TRL], told)}) as sides:
        ours, theirs = (np.array(side.ready["logprobs"]) for side in sides.values())
        if not np.abs(ours - theirs).max() <= CLOSE:
            raise RuntimeError(f"the sides differ in log-probabilities: {ours.tolist()} and {theirs.tolist()}")
        return in_turn(sides, "rollout", rounds, dict.fromkeys(sides, 1))


def rates(work: Work, found: dict[str, Any]) -> dict[str, Any]:
    """Seconds, new tokens a second and peak memory of both sides, and how often ours is as fast."""
    tokens = work.prompts * work.group * work.new
    sides = {
        name: {
            "seconds": side["seconds"],
            "tokens_per_second": tokens / side["seconds"],
            "peak_bytes": side["peak_bytes"],
        }
        for name, side in found.items()
    }
    return sides | {"ratio": found[GENERATE]["seconds"] / found[OURS]["seconds"]}


def compared(rows: dict[str, dict[str, Any]]) -> str:
    """The table of both sides."""
    heads = ["prompts × completions, tokens", f"{OURS}, tokens/s", "generate, tokens/s", "times as fast"]
    heads += [f"peak {OURS}, GB", "peak generate, GB"]
    lines = []
    for name, row in rows.items():
        speeds = [f"{row[side]['tokens_per_second']:,.0f}" for side in (OURS, GENERATE)]
        memory = [f"{row[side]['peak_bytes'] / 1e9:.2f}" for side in (OURS, GENERATE)]
        lines.append([name, *speeds, f"{row['ratio']:.1f}", *memory])
    return table(heads, lines)


if __name__ == "__main__":
    main()
