"""How far this project's Qwen2.5-VL and Qwen3-VL are from transformers': docs/parity.md, written by one command.

    .venv-peers/bin/python -m benchmarks.parity --page=docs/parity.md

Run it from the root of the repository, in the environment that `make test-peers` makes. Weights are drawn, written by
transformers as a checkpoint and read by `evads_jax.models.qwen_vl.checkpoint`; models and inputs are those of
tests/models/qwen_vl/oracle.py. Takes two minutes on two cores.
"""

import dataclasses
import datetime
import importlib.metadata
import tempfile

import jax
import numpy as np

from benchmarks.command import options_parser, put
from evads_jax.models.qwen_vl.checkpoint import load_parameters, read_config
from tests.models.qwen_vl import cases
from tests.models.qwen_vl.oracle import Oracle

HEADS = (
    "family",
    "input",
    "logits",
    "gradient, ‖Δ‖₂",
    "gradient, max",
    "greedy tokens equal",
    "sampled − scored",
)
NAMES = {"qwen3_vl": "Qwen3-VL", "qwen2_5_vl": "Qwen2.5-VL"}


def main() -> None:
    """The command."""
    parser = options_parser(__doc__, "also put the table into the block `parity` of this page")
    options = parser.parse_args()
    rows = [row for family in cases.FAMILIES for tied in (False, True) for row in compare(family, tied)]
    block = "\n".join([*table(rows), "", *described()])
    print(block)
    if options.page:
        put(options.page, {"parity": block})


def compare(family: str, tied: bool) -> list[tuple[str, ...]]:
    """The rows of one model: every input alone, then all of them in one padded batch, then the other layouts."""
    oracle = Oracle(family, tied=tied)
    with tempfile.TemporaryDirectory() as folder:
        oracle.save(folder)
        config = read_config(folder)
        params = load_parameters(folder, config)
    name = f"{NAMES[family]}, {'tied' if tied else 'untied'} head"
    theirs = [oracle.logits(case).detach().numpy() for case in oracle.cases]
    greedy = [oracle.greedy(case).numpy() for case in oracle.cases]
    groups = {label: [i] for i, label in enumerate(cases.CASES)}
    groups["these five in one ragged batch"] = list(range(len(cases.CASES)))
    rows = []
    for label, chosen in groups.items():
        inputs = [oracle.cases[i] for i in chosen]
        logits = worst(cases.logits(params, config, inputs), [theirs[i] for i in chosen])
        reference = cases.tree_of(oracle.gradient(inputs), config)
        errors = cases.gradient_differences(cases.gradient(params, config, inputs), reference).values()
        tokens, sampled, scored = cases.greedy(params, config, inputs)
        equal = sum(int((row == greedy[i]).sum()) for row, i in zip(tokens, chosen, strict=True))
        rows.append(
            (
                name,
                label,
                f"{logits:.1e}",
                *(f"{max(column):.1e}" for column in zip(*errors, strict=True)),
                f"{equal} of {tokens.size}",
                f"{np.abs(sampled - scored).max():.1e}",
            )
        )
    if family == "qwen2_5_vl" and not tied:
        config = dataclasses.replace(config, video_layout="transformers_5")
        for label, i in groups.items():
            if "video" in label and len(i) == 1:
                case = oracle.cases[i[0]]
                reference = oracle.logits(case, "transformers_5").detach().numpy()
                logits = worst(cases.logits(params, config, [case]), [reference])
                rows.append((name, f"{label}, layout `transformers_5`", f"{logits:.1e}", *("",) * 4))
    return rows


def worst(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """The largest difference of any input."""
    return max(map(cases.difference, ours, theirs))


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """The rows as lines of Markdown."""
    return [f"| {' | '.join(row)} |" for row in (HEADS, ("---",) * len(HEADS), *rows)]


def described() -> list[str]:
    """Command, date and versions."""
    packages = ("transformers", "torch", "jax", "jaxlib", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return [
        f"`python -m benchmarks.parity --page=docs/parity.md`, {today}, {versions}, float32 on {jax.default_backend()}."
    ]


if __name__ == "__main__":
    main()
