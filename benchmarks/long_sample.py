"""What one long sample costs the others of its batch: decoding as wide as it began, and with `rl.compact`.

    python -m benchmarks.long_sample [--out=long_sample.json] [--page=docs/performance.md] [--quick]

Run it from the root of the repository, alone on the machine. 4 prompts with 8 completions each; one completion has its
full length, the others end after an eighth of it, at stop tokens chosen for that. Decoding is timed as the whole batch
to the end, with the samples that are left going on by themselves, and for the long sample alone; the long one's tokens
must be the same in all three. Takes two minutes on two cores (an estimate).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.command import in_turn, options_parser, put, table
from benchmarks.decoder import Sizes, Work
from benchmarks.grpo_step import QUICK_SIZES
from benchmarks.record import Record
from evads_jax.models import qwen_vl
from evads_jax.models.qwen_vl import QwenVLConfig
from evads_jax.sampling.config import SamplingConfig
from evads_jax.train import sampler

WORKS = [Work(4, 8, 64, 512), Work(4, 8, 1024, 512)]
QUICK_WORKS = [Work(2, 2, 12, 16)]
COMPACT = (4, 1)
WIDE, APART, ALONE = "as wide as it began", f"compact {COMPACT}", "the long sample alone"
SHORT = 8  # the others end after so great a part of the longest


def main() -> None:
    """The command."""
    parser = options_parser(__doc__, "also put the table into the block `long_sample` of this page", 5)
    parser.add_argument("--quick", action="store_true", help="a tiny model and prompts: whether it runs at all")
    options = parser.parse_args()
    record = Record(options.out, rounds=options.rounds, quick=options.quick)
    config = (QUICK_SIZES if options.quick else Sizes()).config()
    rows = {
        work.name: record.once(work.name, lambda work=work: measure(work, config, options.rounds))
        for work in (QUICK_WORKS if options.quick else WORKS)
    }
    heads = ["prompt + longest completion", *(f"{name}, s" for name in (WIDE, APART, ALONE)), "compact / alone"]
    lines = [
        [name, *(f"{row[form]:.2f}" for form in (WIDE, APART, ALONE)), f"{row[APART] / row[ALONE]:.2f}"]
        for name, row in rows.items()
    ]
    block = table(heads, lines) + "\n\n" + record.described("python -m benchmarks.long_sample")
    print(block)
    if options.page:
        put(options.page, {"long_sample": block})


def measure(work: Work, config: QwenVLConfig, rounds: int) -> dict[str, float]:
    """Median seconds of decoding in each of the three ways, taken in turn.

    Raises:
      RuntimeError: the long sample is not the same in all of them.
    """
    params = jax.jit(lambda: qwen_vl.init(config, jax.random.key(0)))()
    prompt = jax.device_put(work.batch(work.drawn(config), config))
    prefix = jax.block_until_ready(sampler.prefill(params, config, prompt))
    first = jax.tree.map(lambda x: x[:1], prefix)
    ids, key = jnp.arange(work.prompts), jax.random.key(0)

    def decode(prefix: qwen_vl.Prefix, ids: jax.Array, G: int, sampling: SamplingConfig) -> np.ndarray:
        return np.asarray(sampler.decode(params, config, prefix, ids, G, sampling, key).tokens)

    free = SamplingConfig(work.new)
    stop_ids = ending(decode(prefix, ids, work.group, free), work.new // SHORT)
    wide = SamplingConfig(work.new, stop_ids=stop_ids)
    apart = SamplingConfig(work.new, stop_ids=stop_ids, compact=COMPACT)
    forms: dict[str, Callable[[], np.ndarray]] = {
        WIDE: lambda: decode(prefix, ids, work.group, wide),
        APART: lambda: decode(prefix, ids, work.group, apart),
        ALONE: lambda: decode(first, ids[:1], 1, wide),
    }
    found = {name: form() for name, form in forms.items()}  # compiles
    if not all(np.array_equal(tokens[0, 0], found[ALONE][0, 0]) for tokens in found.values()):
        raise RuntimeError("the long sample is not the same in all forms")
    if not np.array_equal(found[WIDE], found[APART]):
        raise RuntimeError("the samples differ where they go on by themselves")
    return {name: float(np.median(seconds)) for name, seconds in in_turn(forms, rounds).items()}


def ending(tokens: np.ndarray, length: int) -> tuple[int, ...]:
    """Ids at which every sample but the first ends by `length` tokens, and the first never.

    Raises:
      RuntimeError: a sample has no token by then that the first has not.
    """
    long, *others = tokens.reshape(-1, tokens.shape[-1]).tolist()
    found = set[int]()
    for sample in others:
        own = [token for token in sample[:length] if token not in long]
        if not own:
            raise RuntimeError(f"a sample has no token of its own among the first {length}")
        found.add(own[-1])
    return tuple(sorted(found))


if __name__ == "__main__":
    main()
