"""COPE's training beside PyTorch: the whole step, and the contrastive loss of a large batch alone.

    .venv-peers/bin/python -m benchmarks.cope --out=cope.json [--quick] [--page=docs/cope.md]

Run it from the root of the repository, in the environment that `make test-peers` makes. Both sides have the same
weights (drawn) and inputs and take turns in one process with all its cores.

The step is that of the released form: clips of three domains → the embeddings that the seven pairs take → gradients →
clipping → AdamW. Ours is the learner of the job `cope`; theirs is written from transformers' X-CLIP and BERT, with the
loss as open_clip has it, the whole matrix of similarities at once, and PyTorch's fused AdamW. Loss and gradients must
agree before anything is timed. The loss alone is that of given embeddings, with gradients: ours in chunks and whole.

With `--page` the tables also go into the block `speed` of that page. `--quick` shows that the parts fit; the whole
takes five minutes and 5.5 GB on two quiet cores; started again with the same `--out` and options it goes on
where it stopped.
"""

import ctypes
import functools
import gc
import re
import runpy
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from benchmarks.command import in_turn, options_parser, put
from benchmarks.record import Record
from evads_jax.models import cope
from evads_jax.models.cope import DOMAINS, PAIRS, ClipBatch, CopeConfig
from evads_jax.models.cope.visual import DEVIATION, MEAN
from evads_jax.models.cope.weights import load_text, load_visual
from evads_jax.train.cope import CopeBatch, CopeLearner, make_optimizer
from evads_jax.train.cope_run import loss_settings
from tests.models.cope import make_golden

ROOT = Path(__file__).parents[1]
WIDE = {
    "visual_width": 256, "visual_mlp_width": 1024, "mit_width": 256, "text_width": 256, "text_mlp_width": 1024,
}  # fmt: skip
TINY = {
    "frame_size": 16, "frames": 2, "text_tokens": 8, "visual_width": 16, "visual_layers": 1, "visual_mlp_width": 32,
    "mit_width": 16, "text_width": 16, "text_layers": 1, "text_mlp_width": 32,
}  # fmt: skip
# What a step is of → products a batch, and what differs from configs/cope.py:released.
STEPS: Mapping[str, tuple[int, Mapping[str, int]]] = {"width 64": (64, {}), "width 256": (16, WIDE)}
BATCHES = (1024, 4096, 8192)
SIDES = tuple(dict.fromkeys(side for pair in PAIRS for side in pair))
OURS, OURS_WHOLE, THEIRS = "evads_jax", "evads_jax, whole", "PyTorch"
Work = Callable[[], Any]


def main() -> None:
    """The command."""
    page, counts = "also put the tables into the block `speed` of this page", "turns of each side; their median counts"
    parser = options_parser(__doc__, page, 7, counts)
    parser.add_argument("--chunk", type=int, default=128, help="our anchors whose similarities exist at one time")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, two rounds")
    options = parser.parse_args()
    steps, batches = ({"tiny": (4, TINY)}, (64,)) if options.quick else (STEPS, BATCHES)
    rounds, chunk = (2, 16) if options.quick else (options.rounds, options.chunk)
    record = Record(options.out, rounds=rounds, chunk=chunk, quick=options.quick)
    trained = {name: record.once(f"step, {name}", lambda of=of: step(*of, rounds)) for name, of in steps.items()}
    losses = {
        batch: record.once(f"loss of {batch}", lambda batch=batch: loss(batch, chunk, rounds)) for batch in batches
    }
    about = [described(rounds, chunk), record.described("python -m benchmarks.cope")]
    text = "\n".join([*step_table(trained), "", *loss_table(losses), "", " ".join(about)])
    print(text)
    if options.page:
        put(options.page, {"speed": text})


def step(products: int, sizes: Mapping[str, int], rounds: int) -> dict[str, Any]:
    """Seconds a training step of each side, and how far their first losses and gradients lie apart."""
    config = runpy.run_path(str(ROOT / "configs" / "cope.py"))["get_config"]("released")
    config.model.update(sizes)
    config.loss.classification = 0.0
    config.cope.optimizer, config.cope.learning_rate = "adamw", 1e-4
    model = CopeConfig.from_config(config.model, config.tokenizer.vocabulary)
    torch.manual_seed(0)
    peer = Peer(model, config)
    learner = CopeLearner(peer.ours, model, loss_settings(config, model), make_optimizer(config.cope, model))
    state, batch = learner.initial(), batch_of(model, products)

    def ours() -> tuple[float, float]:
        nonlocal state
        state, metrics = jax.block_until_ready(learner.step(state, batch, jax.random.key(0)))
        return float(metrics["loss"]), float(metrics["grad_norm"])

    works = {OURS: ours, THEIRS: lambda: peer.step(batch)}
    (one, norm), (other, other_norm) = (work() for work in works.values())
    apart = abs(one - other) / other, abs(norm - other_norm) / other_norm
    assert apart[0] <= 1e-4, f"losses {one} and {other}"
    assert apart[1] <= 1e-3, f"norms of the gradient {norm} and {other_norm}"
    seconds = medians(works, rounds)
    return {"products": products, "seconds": seconds, "apart": apart, "parameters": cope.parameter_count(model)}


def batch_of(model: CopeConfig, products: int) -> CopeBatch:
    """Different products with a clip of each domain: all frames real, texts of any length."""
    rng, side = np.random.default_rng(0), model.frame_size
    clips = {}
    for domain in DOMAINS:
        F = 1 if domain == "page" else model.frames
        clips[domain] = ClipBatch(
            rng.integers(0, 256, (products, F, side, side, 3), np.uint8),
            np.full(products, F, np.int32),
            rng.integers(0, model.vocabulary, (products, model.text_tokens)).astype(np.int32),
            rng.integers(1, model.text_tokens + 1, products).astype(np.int32),
        )
    return CopeBatch(np.arange(products, dtype=np.int32), clips)


class Peer(torch.nn.Module):
    """The released form in PyTorch, with its optimizer.

    Args:
      model: its sizes.
      config: of the job: sections `loss` and `cope`.

    Attributes:
      ours: its weights as our parameters.
    """

    def __init__(self, model: CopeConfig, config: Any):
        super().__init__()
        self._loss, self._clip = config.loss, config.cope.clip_norm
        video = make_golden.xclip(
            model.frames,
            mit={
                "mit_hidden_size": model.mit_width, "mit_intermediate_size": 4 * model.mit_width,
                "mit_num_hidden_layers": model.mit_layers, "mit_num_attention_heads": model.mit_heads,
            },
            hidden_size=model.visual_width, intermediate_size=model.visual_mlp_width,
            num_hidden_layers=model.visual_layers, num_attention_heads=model.visual_heads,
            image_size=model.frame_size, patch_size=model.visual_patch,
        )  # fmt: skip
        text = make_golden.bert(
            hidden_size=model.text_width, intermediate_size=model.text_mlp_width,
            num_hidden_layers=model.text_layers, num_attention_heads=model.text_heads,
            vocab_size=model.vocabulary, max_position_embeddings=model.text_tokens,
        )  # fmt: skip
        text.embeddings.token_type_embeddings.requires_grad_(False)  # ours has it in the positions
        self.vision, self.projection, self.mit, self.text = (
            video.vision_model, video.visual_projection, video.mit, text
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            video.save_pretrained(f"{folder}/video")
            text.save_pretrained(f"{folder}/text")
            params = load_visual(cope.init(model, jax.random.key(0)), model, f"{folder}/video")
            self.ours = load_text(params, model, f"{folder}/text")
        self.heads = torch.nn.ModuleDict()
        for domain, head in self.ours["heads"].items():
            layers = {"visual": head["visual"], "text": head["text"], "fused": head["fusion"]["out"]}
            self.heads[domain] = torch.nn.ModuleDict({name: linear(layer) for name, layer in layers.items()})
        weights = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in weights if p.ndim > 1], "weight_decay": config.cope.weight_decay},
            {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.cope.learning_rate, fused=True)

    def embed(self, clips: ClipBatch, domain: str, kinds: set[str]) -> dict[str, torch.Tensor]:
        """Embeddings of these kinds of clips of one domain; what they do not need is not run, as in a compiled step."""
        B, F = clips.frames.shape[:2]
        for layer in self.vision.encoder.layers:
            layer.num_frames = F
        pixels = torch.from_numpy(clips.frames).flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        pixels = (pixels - torch.from_numpy(MEAN)[:, None, None]) / torch.from_numpy(DEVIATION)[:, None, None]
        frames = self.projection(self.vision(pixels).pooler_output).unflatten(0, (B, F))
        placed = frames + self.mit.position_embedding[:, :F]
        frames = frames + self.mit.encoder(inputs_embeds=placed).last_hidden_state
        head = self.heads[domain]
        found = {"visual": head["visual"](frames.mean(1))}
        if kinds != {"visual"}:
            said = torch.arange(clips.tokens.shape[1]) < torch.from_numpy(clips.token_count)[:, None]
            words = self.text(torch.from_numpy(clips.tokens), attention_mask=said.long()).pooler_output
            found["text"] = head["text"](words)
            found["fused"] = head["fused"](torch.cat([found["visual"], found["text"]], dim=-1))
        return {kind: normalize(found[kind], dim=-1) for kind in kinds}

    def step(self, batch: CopeBatch) -> tuple[float, float]:
        """One training step: its loss, and the norm of the gradient."""
        kinds = {domain: {kind for side, kind in SIDES if side == domain} for domain in batch.clips}
        embedded = {domain: self.embed(clips, domain, kinds[domain]) for domain, clips in batch.clips.items()}
        total = seven_pairs({(d, k): embedded[d][k] for d, k in SIDES}, self._loss.temperature, self._loss.smoothing)
        self.optimizer.zero_grad()
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_((p for p in self.parameters() if p.requires_grad), self._clip)
        self.optimizer.step()
        return total.item(), norm.item()


def linear(layer: Mapping[str, jax.Array]) -> torch.nn.Linear:
    """One of our layers in PyTorch."""
    made = torch.nn.Linear(*layer["weight"].shape)
    with torch.no_grad():
        made.weight.copy_(torch.from_numpy(np.array(layer["weight"]).T.copy()))
        made.bias.copy_(torch.from_numpy(np.array(layer["bias"])))
    return made


def seven_pairs(sides: Mapping[Any, torch.Tensor], temperature: float, smoothing: float) -> torch.Tensor:
    """The sum of the seven symmetric pairs, each of the whole matrix of similarities."""
    total = torch.zeros(())
    for left, right in PAIRS:
        logits = sides[left] @ sides[right].T / temperature
        targets = torch.arange(len(logits))
        ways = (cross_entropy(x, targets, label_smoothing=smoothing) for x in (logits, logits.T))
        total = total + sum(ways) / 2
    return total


@functools.partial(jax.jit, static_argnames=("temperature", "smoothing", "chunk"))
def our_pairs(sides: Mapping[Any, jax.Array], temperature: float, smoothing: float, chunk: int | None) -> Any:
    """Our seven pairs: value and gradients."""

    def total(sides: Mapping[Any, jax.Array]) -> jax.Array:
        valid, how = jnp.ones(len(sides[SIDES[0]]), bool), {"temperature": temperature, "smoothing": smoothing}
        return sum(cope.pair_loss(sides[left], sides[right], valid, **how, chunk=chunk) for left, right in PAIRS)

    return jax.value_and_grad(total)(sides)


def loss(batch: int, chunk: int, rounds: int) -> dict[str, Any]:
    """Seconds and peak memory of the loss with its gradients, of a batch's embeddings."""
    rng = np.random.default_rng(0)
    drawn = {side: rng.normal(size=(batch, 128)) for side in SIDES}
    sides = {side: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for side, x in drawn.items()}
    placed, how = jax.device_put(sides), {"temperature": 0.05, "smoothing": 0.1}
    leaves = {side: torch.from_numpy(x).requires_grad_() for side, x in sides.items()}

    def theirs() -> float:
        total = seven_pairs(leaves, **how)
        torch.autograd.grad(total, list(leaves.values()))
        return total.item()

    def ours(chunk: int | None) -> float:
        return float(jax.block_until_ready(our_pairs(placed, **how, chunk=chunk))[0])

    works = {OURS: lambda: ours(chunk), OURS_WHOLE: lambda: ours(None), THEIRS: theirs}
    values = [work() for work in works.values()]
    assert max(values) - min(values) <= 1e-4 * min(values), values
    peaks = {name: peak_memory(work) for name, work in works.items()}
    return {"seconds": medians(works, rounds), "bytes": peaks}


def medians(works: Mapping[str, Work], rounds: int) -> dict[str, float]:
    """The median of each side's seconds; it has worked once before."""
    return {name: statistics.median(seconds) for name, seconds in in_turn(works, rounds).items()}


def peak_memory(work: Work) -> int:
    """Bytes that a call needs at most, beyond what the process holds before it; Linux tells."""

    def held(field: str) -> int:
        (kilobytes,) = re.findall(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return 1024 * int(kilobytes)

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back, or it would count as held
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    before = held("VmRSS")
    work()
    return held("VmHWM") - before


def step_table(steps: Mapping[str, Any]) -> list[str]:
    """Training pairs a second as lines of Markdown; a pair is a row of one of the seven."""
    lines = [
        "| training step | parameters | products | evads_jax, pairs/s | PyTorch, pairs/s | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in steps.items():
        ours, theirs = (len(PAIRS) * row["products"] / row["seconds"][side] for side in (OURS, THEIRS))
        size = f"{row['parameters'] / 1e6:.1f} M"
        lines.append(f"| {name} | {size} | {row['products']} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.2f} |")
    return lines


def loss_table(losses: Mapping[int, Any]) -> list[str]:
    """Seconds and memory of the loss alone as lines of Markdown."""
    lines = [
        "| loss of a batch of | evads_jax, in chunks | evads_jax, whole | PyTorch | ratio, in chunks | ratio, whole |",
        "|---|---|---|---|---|---|",
    ]
    for batch, row in losses.items():
        seconds = row["seconds"]
        cells = [f"{seconds[n]:.3f} s, {row['bytes'][n] / 2**20:,.0f} MiB" for n in (OURS, OURS_WHOLE, THEIRS)]
        ratios = [f"{seconds[THEIRS] / seconds[n]:.2f}" for n in (OURS, OURS_WHOLE)]
        lines.append(f"| {batch:,} | {' | '.join([*cells, *ratios])} |")
    return lines


def described(rounds: int, chunk: int) -> str:
    """What was measured, where."""
    return (
        "A pair is a row of one of the seven pairs; a step has seven a product. The loss alone: seven pairs of 128 "
        f"numbers with gradients, in chunks of {chunk} anchors; memory is what a call needs at most beside what is "
        f"held. Ratios are times faster than PyTorch, which is not compiled; medians of {rounds} rounds, "
        f"{torch.get_num_threads()} threads."
    )


if __name__ == "__main__":
    main()
