"""Writes docs/density.md's measurements: A_den and O_den of the released annotations under each rule.

    python -m evads_jax.density.measure_released --annotations=DIR --out=docs/density.md

The page is text with marked blocks; each `<!-- begin NAME -->` … `<!-- end NAME -->` block is measured and replaced.
"""

import argparse
import re
from pathlib import Path

import numpy as np

from evads_jax.density.items import Item, from_annotations
from evads_jax.density.published import PUBLISHED
from evads_jax.density.statistics import summarise
from evads_jax.density.text import OCR_COUNTING, TextSettings, overlay_density, speech_density
from evads_jax.density.visual.kernel import visual_density
from evads_jax.density.visual.settings import VisualSettings
from evads_jax.density.words import DEFAULT_RULE, WORD_RULES
from evads_jax.errors import UserError

FILES = {"SFT": "EVAds_SFT.parquet", "RL": "EVAds_RL.parquet"}


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--annotations", required=True, type=Path, help="folder of the released parquets")
    parser.add_argument("--out", required=True, type=Path, help="the page whose marked blocks are replaced")
    options = parser.parse_args(arguments)
    text = options.out.read_text(encoding="utf-8")
    for name, block in (("released", released_table(options.annotations)), ("doubling", doubling_table())):
        text = replace_block(text, name, block)
    options.out.write_text(text, encoding="utf-8")


def replace_block(text: str, name: str, block: str) -> str:
    """Puts `block` between the marks of `name`.

    Raises:
        UserError: the text has no such marks.
    """
    marks = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    pattern = re.compile(re.escape(marks[0]) + ".*?" + re.escape(marks[1]), re.DOTALL)
    if not pattern.search(text):
        raise UserError(f"the page has no block {name!r}", "", f"put {marks[0]} and {marks[1]} where it belongs")
    return pattern.sub(lambda _: f"{marks[0]}\n{block}\n{marks[1]}", text)


def released_table(folder: Path) -> str:
    """Mean, 95 % interval and median of A_den and O_den per split and rule, and the published numbers."""
    items = {name: list(from_annotations(folder / file).items) for name, file in FILES.items()}
    items["both"] = items["SFT"] + items["RL"]
    heads = [f"{name} ({len(found)})" for name, found in items.items()]
    lines = ["| rule | overlays count | " + " | ".join(heads) + " | median, both |", "|---|---|---|---|---|---|"]
    for metric in ("A_den", "O_den"):
        for words in WORD_RULES:
            for counting in OCR_COUNTING if metric == "O_den" else ("–",):
                cells = [_cell(items[split], metric, words, counting) for split in items]
                default = words == DEFAULT_RULE and counting in ("–", "per_second")
                name = f"**{metric}** `{words}`" + (" (default)" if default else "")
                shown = f"`{counting}`" if metric == "O_den" else counting
                lines.append(f"| {name} | {shown} | " + " | ".join(c[0] for c in cells) + f" | {cells[-1][1]} |")
    ours = PUBLISHED[-1]
    lines.append(f"| published A_den, 3,961 videos | | | | {ours.a:.2f} | |")
    lines.append(f"| published O_den, 3,961 videos | | | | {ours.o:.2f} | |")
    return "\n".join(lines)


def _cell(items: list[Item], metric: str, words: str, counting: str) -> tuple[str, str]:
    settings = TextSettings(words, counting if metric == "O_den" else "per_second")
    measure = overlay_density if metric == "O_den" else speech_density
    found = summarise([measure(i.events or (), i.duration or 0, settings).value for i in items])
    low, high = found.ci95 or (float("nan"), float("nan"))
    return f"{found.mean:.2f} [{low:.2f}, {high:.2f}]", f"{found.median:.2f}"


def doubling_table(videos: int = 50) -> str:
    """How far each form of V_den moves when every frame is repeated at twice the rate: synthetic videos of cuts."""
    forms = [
        VisualSettings(),
        VisualSettings(per="seconds"),
        VisualSettings(unit="frames"),
        VisualSettings(unit="frames", radius=1, weights="uniform"),
        VisualSettings(weighting="integral"),
    ]
    lines = ["| form | mean V at 2 fps | every frame twice, 4 fps | change |", "|---|---|---|---|"]
    for form in forms:
        pairs = np.array([[_of_cuts(seed, repeat, form) for repeat in (1, 2)] for seed in range(videos)])
        once, twice = pairs.mean(axis=0)
        lines.append(f"| {form.rule} | {once:.2f} | {twice:.2f} | {round(100 * (twice / once - 1), 1) + 0.0:+.1f} % |")
    return "\n".join(lines)


def _of_cuts(seed: int, repeat: int, form: VisualSettings) -> float:
    """V of a 30 s video at 2 fps whose scenes last 0.5 to 4 s, each frame shown `repeat` times."""
    draw = np.random.default_rng(seed)
    scene = np.repeat(np.arange(60), draw.integers(1, 9, 60))[:60]
    features = draw.normal(size=(60, 64))[scene] + 0.2 * draw.normal(size=(60, 64))
    value = visual_density(
        np.repeat(features.astype(np.float32), repeat, axis=0), np.arange(60 * repeat) / (2 * repeat), 30.0, form
    ).value
    assert value is not None
    return value


if __name__ == "__main__":
    main()
