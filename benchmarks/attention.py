"""Attention alone: the forms that a prompt's causal attention can take, forward and backward, by length and tile.

    python -m benchmarks.attention [--out=attention.json] [--page=docs/performance.md] [--quick]

Run it from the root of the repository, alone on the machine; with torch installed its attention stands beside ours.
The constants of `evads_jax/models/attention/tiled.py` are to be set by it: the tile that is fastest at long prompts,
and the lengths up to which the plain form is faster than that. Takes five minutes on two cores (an estimate: 53 · 10⁹
operations for a plain round of 4,160 tokens, seven forms, six rounds, and as much again for softmax and compilation);
started again with the same `--out` and options it goes on where it stopped.
"""

import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.command import FASTEST, options_parser, put, table
from benchmarks.record import Record
from evads_jax.models.attention import prefix, tiled

HEADS, WIDTH, BATCH = 4, 64, 1
LENGTHS, TILES = (256, 512, 1088, 2112, 4160), (128, 256, 512, 1024)
QUICK_LENGTHS, QUICK_TILES = (12,), (4,)
GROUP, NEW = 8, 64  # completions and their tokens, over a prompt
IN_TURN = 1024  # rows at one time in the form that computes all blocks


def main() -> None:
    """The command."""
    page = "also put the tables into the block `attention` of this page"
    parser = options_parser(__doc__, page, 5, FASTEST)
    parser.add_argument("--quick", action="store_true", help="tiny: whether it runs at all")
    options = parser.parse_args()
    record = Record(options.out, rounds=options.rounds, quick=options.quick)
    lengths, tiles = (QUICK_LENGTHS, QUICK_TILES) if options.quick else (LENGTHS, TILES)
    rows = {
        kind: {
            T: record.once(f"{kind}, {T}", lambda T=T, of=of: measure(*of(T, tiles), options.rounds)) for T in lengths
        }
        for kind, of in (("causal", prompt_forms), ("suffixes", suffix_forms))
    }
    shape = (
        f"{BATCH} sequence, {HEADS} heads of {WIDTH}, forward and backward, ms, the fastest of {options.rounds} rounds."
    )
    block = (
        f"A prompt, causal. {shape}\n\n{shown(rows['causal'])}\n\n"
        f"{GROUP} suffixes of {NEW} tokens over a prompt. {shape}\n\n{shown(rows['suffixes'])}\n\n"
        + record.described("python -m benchmarks.attention")
    )
    print(block)
    if options.page:
        put(options.page, {"attention": block})


def prompt_forms(T: int, tiles: tuple[int, ...]) -> tuple[dict[str, Callable], list[np.ndarray]]:
    """The forms of a prompt's attention, and their inputs: q [B, T, N, H], k and v [B, N, T, H]."""
    forms = {"plain": with_tile(None, prefix.prompt_attention), "all blocks in turn": all_blocks}
    forms |= {f"tile {tile}": with_tile(tile, prefix.prompt_attention) for tile in tiles if tile < T}
    if importlib.util.find_spec("torch"):
        forms["torch"] = torch_causal
    return forms, drawn((BATCH, T, HEADS, WIDTH), *((BATCH, HEADS, T, WIDTH),) * 2)


def suffix_forms(T: int, tiles: tuple[int, ...]) -> tuple[dict[str, Callable], list[np.ndarray]]:
    """The forms of suffixes' attention to a prompt and to themselves, and their inputs."""

    def attend(*inputs: jax.Array) -> jax.Array:
        q, prompt_k, prompt_v, k, v = inputs
        return prefix.suffix_attention(q, prompt_k, prompt_v, jnp.full(BATCH, T), k, v, jnp.tri(NEW, dtype=bool))

    forms = {"plain": with_tile(None, attend)} | {f"tile {t}": with_tile(t, attend) for t in tiles if t < T}
    own, shared = (BATCH, HEADS, GROUP, NEW, WIDTH), (BATCH, HEADS, T, WIDTH)
    return forms, drawn((BATCH, GROUP, NEW, HEADS, WIDTH), shared, shared, own, own)


def drawn(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Random arrays, the first of them queries, which come scaled as in the model."""
    draw = np.random.default_rng(0)
    queries, *others = (draw.normal(size=shape).astype(np.float32) for shape in shapes)
    return [queries * np.float32(WIDTH**-0.5), *others]


def with_tile(tile: int | None, form: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A form, traced with another `TILE`; None: not cut at all."""
    constants = {"TILE": tile, "PLAIN_PROMPT": 0, "PLAIN_SUFFIXES": 0}
    if tile is None:
        constants = dict.fromkeys(("PLAIN_PROMPT", "PLAIN_SUFFIXES"), sys.maxsize)

    def traced(*inputs: jax.Array) -> jax.Array:
        with mock.patch.multiple(tiled, **constants):
            return form(*inputs)

    return traced


def all_blocks(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Some rows at a time over all keys, those that the mask hides too, and once more for the backward pass."""
    T = q.shape[1]
    size = -(-T // -(-T // IN_TURN))
    rows = jnp.pad(q.swapaxes(1, 2), ((0, 0), (0, 0), (0, -T % size), (0, 0)))
    rows = rows.reshape(*rows.shape[:2], -1, size, WIDTH)

    @jax.checkpoint
    def some(rows: jax.Array, start: jax.Array) -> jax.Array:
        mask = start + jnp.arange(size)[:, None] >= jnp.arange(T)
        return prefix.masked_attention(rows, k, v, mask[None, None])

    out = jax.lax.map(lambda inputs: some(*inputs), (rows.transpose(2, 0, 1, 3, 4), size * jnp.arange(rows.shape[2])))
    return out.transpose(1, 2, 0, 3, 4).reshape(*rows.shape[:2], -1, WIDTH)[:, :, :T].swapaxes(1, 2)


def torch_causal(q: np.ndarray, k: np.ndarray, v: np.ndarray, above: np.ndarray) -> list[np.ndarray]:
    """The gradients through torch's attention; queries come scaled."""
    import torch

    leaves = [torch.from_numpy(x).requires_grad_() for x in (q, k, v)]
    attend = torch.nn.functional.scaled_dot_product_attention
    out = attend(leaves[0].transpose(1, 2), *leaves[1:], is_causal=True, scale=1.0)
    out.transpose(1, 2).backward(torch.from_numpy(above))
    return [leaf.grad.numpy() for leaf in leaves]


def gradients(form: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, ...]]:
    """The gradients through a form, of its inputs and the gradient of what it gives, which has the queries' shape."""

    @jax.jit
    def run(*inputs: jax.Array) -> tuple[jax.Array, ...]:
        *inputs, above = inputs
        return jax.vjp(form, *inputs)[1](above)

    return run


def measure(forms: dict[str, Callable[..., Any]], inputs: list[np.ndarray], rounds: int) -> dict[str, float]:
    """Milliseconds of the fastest round of each form with its gradients, taken in turn; they must agree."""
    # What comes from above is drawn: of a plain sum it would be a constant, by which a compiler may save products.
    inputs = [*inputs, np.random.default_rng(1).normal(size=inputs[0].shape).astype(np.float32)]
    arrays, works = [jnp.asarray(x) for x in inputs], {}
    first: Any = None
    for name, form in forms.items():
        if form is torch_causal:
            works[name] = lambda: torch_causal(*inputs)
        else:
            run = gradients(form)
            works[name] = lambda run=run: jax.block_until_ready(run(*arrays))
        found = works[name]()
        first = first or found
        for x, y in zip(found, first, strict=True):
            assert np.abs(x - y).max() <= 1e-4 * np.abs(y).max(), name
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            begin = time.perf_counter()
            work()
            taken[name].append(1e3 * (time.perf_counter() - begin))
    return {name: min(times) for name, times in taken.items()}


def shown(rows: dict[int, dict[str, float]]) -> str:
    """The table of all forms and lengths."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [[f"{T:,}", *(f"{row[name]:.3g}" if name in row else "" for name in names)] for T, row in rows.items()]
    return table(["prompt tokens", *names], lines)


if __name__ == "__main__":
    main()
