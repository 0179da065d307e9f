"""What sharing a prompt is worth: steps on video beside the naive form, and how a step grows with its parts.

    python -m benchmarks.sharing --out=sharing.json [--page=docs/performance.md] [--json] [--quick]

Run it from the root of the repository, alone on the machine. The naive form is this project's own step with a copy of
the prompt, and its video, for each completion: what is compared is sharing and nothing else. With `--page` the plot
is written beside the page. Takes 45 minutes on two cores at 100 · 10⁹ operations a second, ten of them for the steps
on video, the rest for thirty points of growth, each in a process that compiles (an estimate from the sizes); started
again with the same `--out` and options it goes on where it stopped.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from benchmarks.command import options_parser, put, table
from benchmarks.decoder import Sizes, Work
from benchmarks.grpo_step import CLOSE, QUICK_SIZES, fastest
from benchmarks.ours import Settings
from benchmarks.record import Record
from benchmarks.sides import OUR_MODULE, in_turn, started

matplotlib.use("Agg")
from matplotlib import pyplot

SHARED, NAIVE = "shared", "naive"
PLOT = "performance_growth.png"
VIDEO = Work(4, 8, 2112, 128, video=(16, 16, 32))  # 16 units of 8 · 16 tokens, and 64 of text
QUICK_VIDEO = Work(2, 2, 24, 4, video=(2, 4, 4))
GROWTH = {
    "completions per prompt": ("group", (1, 2, 4, 8, 16), (Work(4, 0, 64, 64), Work(4, 0, 1024, 64))),
    "prompt tokens": ("tokens", (256, 512, 1024, 2048, 4096), (Work(4, 1, 0, 64), Work(4, 8, 0, 64))),
    "completion tokens": ("new", (16, 32, 64, 128, 256), (Work(4, 8, 64, 0), Work(4, 8, 1024, 0))),
}
QUICK_GROWTH = {
    "completions per prompt": ("group", (1, 2), (Work(2, 0, 6, 4),)),
    "prompt tokens": ("tokens", (6, 8), (Work(2, 2, 0, 4),)),
}
Growth = dict[str, tuple[str, tuple[int, ...], tuple[Work, ...]]]


def main() -> None:
    """The command."""
    parser = options_parser(__doc__, "also put the tables into this page's blocks, the plot beside it", 3)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="a tiny model and prompts: whether it runs at all")
    options = parser.parse_args()
    record = Record(options.out, rounds=options.rounds, quick=options.quick)
    sizes = QUICK_SIZES if options.quick else Sizes()
    work, growth = (QUICK_VIDEO, QUICK_GROWTH) if options.quick else (VIDEO, GROWTH)
    video = compare(work, sizes, record, options.rounds)
    lines = grow(growth, sizes, record, options.rounds)
    command = record.described("python -m benchmarks.sharing")
    blocks = {"video": f"{compared(work, video)}\n\n{command}", "growth": f"{slopes(lines)}\n\n{command}"}
    print("\n\n".join(blocks.values()))
    if options.page:
        plot(lines, options.page.with_name(PLOT))
        put(options.page, blocks)
    if options.json:
        print(json.dumps({"about": record.about, "video": video, "growth": lines}))


def spec(work: Work, sizes: Sizes, settings: Settings) -> tuple[str, dict[str, Any]]:
    """A child's module and what it is told."""
    return OUR_MODULE, {"kind": "step", "work": vars(work), "sizes": vars(sizes), "settings": vars(settings)}


def compare(work: Work, sizes: Sizes, record: Record, rounds: int) -> dict[str, Any]:
    """Both forms, each at the faster of two splits, in turn.

    Raises:
      RuntimeError: they do not give the same log-probabilities.
    """
    splits = {
        SHARED: [Settings(), Settings(micro_groups=1)],
        NAIVE: [Settings(work.group, naive=True), Settings(work.prompts * work.group // 2, naive=True)],
    }

    def alone(settings: Settings) -> dict[str, Any]:
        with started({"one": spec(work, sizes, settings)}) as sides:
            return in_turn(sides, "step", 1, {"one": 1})["one"]

    def together() -> dict[str, Any]:
        chosen = {}
        for form, settings in splits.items():
            found = {
                one.name: record.once(f"video, {form}, {one.name}", lambda one=one: alone(one)) for one in settings
            }
            chosen[form] = next(one for one in settings if one.name == fastest(found))
        with started({form: spec(work, sizes, settings) for form, settings in chosen.items()}) as sides:
            first, second = (np.array(side.ready["logprobs"]) for side in sides.values())
            if not np.abs(first - second).max() <= CLOSE:
                raise RuntimeError(f"the forms differ in log-probabilities: {first.tolist()} and {second.tolist()}")
            taken = in_turn(sides, "step", rounds, dict.fromkeys(sides, 1))
        return {form: taken[form] | {"settings": chosen[form].name} for form in taken}

    found = record.once("video, in turn", together)
    return found | {"ratio": found[NAIVE]["seconds"] / found[SHARED]["seconds"]}


def compared(work: Work, found: dict[str, Any]) -> str:
    """The table of both forms."""
    lines = []
    for form in (SHARED, NAIVE):
        one = found[form]
        taken = [f"{one[name]:.3g}" for name in ("seconds", "prefill", "decode", "update")]
        lines.append([form, one["settings"], *taken, f"{one['peak_bytes'] / 1e9:.2f}"])
    units, height, width = work.video or (0, 0, 0)
    said = (
        f"{work.prompts} prompts of {work.tokens:,} tokens, {units * height * width // 4:,} of them video, "
        f"{work.group} completions of {work.new} tokens each: shared is {found['ratio']:.1f} times as fast."
    )
    heads = ["prompts", "prompts in the update", "s", "prefill, s", "decode, s", "update, s", "peak, GB"]
    return f"{table(heads, lines)}\n\n{said}"


def grow(growth: Growth, sizes: Sizes, record: Record, rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds of a step while one number grows: axis → the other numbers → places, seconds, and a line through them."""
    found: dict[str, dict[str, Any]] = {}
    for axis, (field, values, works) in growth.items():
        found[axis] = {}
        for work in works:
            fixed = ", ".join(f"{name} {getattr(work, field)}" for name, field in NAMES.items() if getattr(work, field))
            points = [dataclasses.replace(work, **{field: value}) for value in values]
            taken = [
                record.once(f"growth, {fixed}, {axis} {value}", lambda point=point: step(point, sizes, rounds))
                for value, point in zip(values, points, strict=True)
            ]
            slope, start = np.polyfit(values, taken, 1)
            found[axis][fixed] = {"at": list(values), "seconds": taken, "slope": float(slope), "start": float(start)}
    return found


NAMES = {"prompt": "tokens", "completion": "new", "G": "group"}


def step(work: Work, sizes: Sizes, rounds: int) -> float:
    """Median seconds of a step, one prompt at a time in the update, so that all points are computed alike."""
    with started({"one": spec(work, sizes, Settings(micro_groups=1))}) as sides:
        return float(in_turn(sides, "step", rounds, {"one": 1})["one"]["seconds"])


def slopes(found: dict[str, dict[str, Any]]) -> str:
    """The fitted lines."""
    lines = []
    for axis, curves in found.items():
        for fixed, line in curves.items():
            measured = ", ".join(f"{at:,}: {taken:.3g}" for at, taken in zip(line["at"], line["seconds"], strict=True))
            lines.append([axis, fixed, measured, f"{1e3 * line['slope']:.3g}", f"{line['start']:.3g}"])
    return table(["what grows", "the rest", "seconds at", "slope, ms for one more", "line at 0, s"], lines)


def plot(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Points and lines, a panel for each axis."""
    figure, panels = pyplot.subplots(1, len(found), figsize=(4 * len(found), 3), squeeze=False)
    for panel, (axis, curves) in zip(panels[0], found.items(), strict=True):
        for fixed, line in curves.items():
            (drawn,) = panel.plot(line["at"], line["seconds"], "o", markersize=4, label=fixed)
            ends = np.array([0, line["at"][-1]])
            panel.plot(ends, line["start"] + line["slope"] * ends, color=drawn.get_color(), linewidth=1)
        panel.set(xlabel=axis, ylabel="seconds a step", xlim=(0, None), ylim=(0, None))
        panel.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
