"""Few-shot episodes a second beside PyTorch, from cached features and with the features computed by both sides.

    .venv-peers/bin/python -m benchmarks.fewshot [--out=fewshot.json] [--page=docs/flor.md]

Run it from the root of the repository, in the environment that `make test-peers` makes. Both sides see the same
images, weights (a ResNet10 with mixed norms, drawn) and episodes, take turns in one process with all its cores, and
must agree on the accuracy. PyTorch is written twice, as the usual loop over episodes and over chunks of 16 of them, and
computes its features in the layout of memory that is faster here.
With `--page` the table also goes into the block `speed` of that page. Three minutes on two cores.
"""

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from benchmarks.command import FASTEST, fastest, in_turn, options_parser, put
from benchmarks.record import Record
from evads_jax.benchmark.fewshot import Episodes, accuracy, embed, sample
from evads_jax.models.flor import FlorConfig, init
from tests.models.flor.make_golden import drawn_resnet, named

CONFIG = FlorConfig(norm="fixed", beta=(0.01, 0.01), image_size=64)
CLASSES, PER_CLASS, CHUNK, BATCH = 20, 32, 16, 128


def main() -> None:
    """The command."""
    parser = options_parser(__doc__, "also put the table into the block `speed` of this page", 15, FASTEST)
    parser.add_argument("--episodes", type=int, default=2000)
    options = parser.parse_args()
    record = Record(options.out, rounds=options.rounds, episodes=options.episodes)
    found = record.once("sides in turn", lambda: measure(options.episodes, options.rounds))
    about = f"{described(options, found[0]['layout'])} {record.described('python -m benchmarks.fewshot')}"
    text = "\n".join([*table(found), "", about])
    print(text)
    if options.page:
        put(options.page, {"speed": text})


def measure(count: int, rounds: int) -> list[dict[str, Any]]:
    """Episodes a second of each side, for one and five shots, both ways."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    colours = rng.integers(0, 160, (CLASSES, 1, 1, 3))
    images = (colours[labels] + rng.integers(0, 96, (len(labels), 64, 64, 3))).astype(np.uint8)
    network = torch_network(images, rounds)
    params = {**init(CONFIG, jax.random.key(0)), **nested(named(network.model.state_dict().items()))}
    cached = np.array(embed(params, CONFIG, images, BATCH))  # a copy: torch wants arrays that it could write to
    theirs = torch.from_numpy(cached)
    assert np.abs(torch_features(network, images).numpy() - cached).max() <= 1e-4 * np.abs(cached).max()
    rows = []
    for shots in (1, 5):
        episodes = sample(labels, [str(c) for c in range(CLASSES)], shots=shots, count=count, seed=0)
        for form, ours, torchs in (
            ("cached features", lambda: cached, lambda: theirs),
            (
                f"features of {len(images)} images computed",
                lambda: embed(params, CONFIG, images, BATCH),
                lambda: torch_features(network, images),
            ),
        ):
            sides: dict[str, Callable[[], np.ndarray]] = {
                "evads_jax": lambda f=ours, e=episodes: accuracy(f(), e, chunk=CHUNK),
                "PyTorch, a loop": lambda f=torchs, e=episodes: torch_accuracy(f(), e, 1),
                "PyTorch, in chunks": lambda f=torchs, e=episodes: torch_accuracy(f(), e, CHUNK),
            }
            seconds = best_in_turn(sides, rounds)
            rows.append(
                {"shots": shots, "form": form, "layout": network.name}
                | {name: count / s for name, s in seconds.items()}
            )
    return rows


def best_in_turn(sides: dict[str, Callable[[], np.ndarray]], rounds: int) -> dict[str, float]:
    """Seconds of each side's fastest round, after one that does not count.

    The accuracies must agree, but for one query in a thousand: those that lie between two prototypes fall to either
    side by the rounding of their features.
    """
    first = {name: work() for name, work in sides.items()}
    for name, found in first.items():
        assert abs(found.mean() - first["evads_jax"].mean()) < 1e-3, name
    return {name: min(seconds) for name, seconds in in_turn(sides, rounds).items()}


@dataclasses.dataclass(frozen=True)
class TorchNetwork:
    """PyTorch's network in a layout of memory; its input is to have the same, or the convolutions change it.

    Attributes:
      model: the network.
      layout: the layout.
      name: how the layout is called.
    """

    model: torch.nn.Module
    layout: torch.memory_format
    name: str


def torch_network(images: np.ndarray, rounds: int) -> TorchNetwork:
    """The network in the layout in which it is faster."""
    networks = [
        TorchNetwork(drawn_resnet(CONFIG.widths, CONFIG.mean_weight).eval().to(memory_format=layout), layout, name)
        for name, layout in {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}.items()
    ]
    for network in networks:
        torch_features(network, images[:BATCH])
    taken = [fastest(lambda network=network: torch_features(network, images), rounds) for network in networks]
    return networks[int(np.argmin(taken))]


@torch.inference_mode()
def torch_features(network: TorchNetwork, images: np.ndarray) -> torch.Tensor:
    """What `embed` computes."""
    found = []
    for start in range(0, len(images), BATCH):
        pixels = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2).float() / 255
        found.append(network.model(pixels.contiguous(memory_format=network.layout)))
    return torch.cat(found)


@torch.inference_mode()
def torch_accuracy(features: torch.Tensor, episodes: Episodes, chunk: int) -> np.ndarray:
    """What `accuracy` computes, `chunk` episodes at a time."""
    found, normalise = [], torch.nn.functional.normalize
    features = normalise(features, dim=-1)
    indices, k = torch.from_numpy(episodes.indices).long(), episodes.shots
    own = torch.arange(indices.shape[1])[:, None]
    for start in range(0, len(indices), chunk):
        chosen = features[indices[start : start + chunk]]  # [e, n, k + q, D]
        centred = normalise(chosen - chosen[:, :, :k].mean((1, 2), keepdim=True), dim=-1)
        prototypes, queries = centred[:, :, :k].mean(2), centred[:, :, k:]
        # Nearest: −‖q − p‖² without what is the same for all p.
        lengths = -prototypes.square().sum(-1)[:, None]
        scores = torch.baddbmm(lengths, queries.flatten(1, 2), prototypes.mT, alpha=2)
        found.append((scores.unflatten(1, queries.shape[1:3]).argmax(-1) == own).float().mean((1, 2)))
    return torch.cat(found).numpy()


def nested(flat: dict[str, np.ndarray]) -> dict[str, Any]:
    """Paths with slashes as a tree; a fixed mix has the same parameters as torch's two norms."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as lines of Markdown."""
    heads = [
        "shots",
        "form",
        "evads_jax",
        "PyTorch, a loop",
        "PyTorch, in chunks",
        "times the loop",
        "times the chunks",
    ]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        ours, loop, chunks = (row[name] for name in heads[2:5])
        speeds = [f"{speed:,.0f}" for speed in (ours, loop, chunks)]
        lines.append([str(row["shots"]), row["form"], *speeds, f"{ours / loop:.1f}", f"{ours / chunks:.1f}"])
    return [f"| {' | '.join(line)} |" for line in lines]


def described(options: argparse.Namespace, layout: str) -> str:
    """What was measured, with the layout of PyTorch's network."""
    return (
        f"Episodes a second, {options.episodes} episodes of 5 ways and 15 queries, 64 pixels, the fastest of "
        f"{options.rounds} rounds; PyTorch's network {layout}, {torch.get_num_threads()} threads."
    )


if __name__ == "__main__":
    main()
