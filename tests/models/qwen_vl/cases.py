"""The inputs on which both families are compared with transformers, and what this model makes of them.

Every input goes through the same batch: five prompts of unlike length, with none to two videos and images on odd
grids, padded. Nothing here needs torch.
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from evads_jax.models import qwen_vl
from evads_jax.models.qwen_vl import checkpoint_names, mrope, text
from evads_jax.models.qwen_vl.inputs import Prompt, collate_prompts, collate_suffixes
from evads_jax.sampling import SamplingConfig, sample

GOLDEN = Path(__file__).parent / "golden"
FAMILIES = ("qwen3_vl", "qwen2_5_vl")
IMAGE, VIDEO, START, END = 1, 2, 3, 4  # other ids are text
VOCABULARY, PATCH, NEW_TOKENS = 64, 4, 64
PATCH_VALUES = 3 * 2 * PATCH**2
ROOM = {"T": 80, "units": 6, "patches": 64}  # every input leaves some of it empty
# Each image or video: (units, (height, width) in patches, seconds per unit); images have no seconds. The seconds are
# such that every reading of them gives other positions (`QwenVLConfig.video_layout`).
CASES = {
    "text": (),
    "image": ((1, (4, 6), None),),
    "video": ((3, (6, 10), 2.6),),
    "two videos": ((2, (10, 6), 3.5), (3, (2, 6), 1.25)),
    "video and image": ((2, (4, 6), 2.6), (1, (6, 6), None)),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One input; `split` is where the part of it begins whose tokens are scored."""

    ids: np.ndarray
    spans: tuple[tuple[int, int], ...]
    units: tuple[np.ndarray, ...]
    grids: tuple[tuple[int, int], ...]
    shown: tuple[tuple[int, tuple[int, int], float | None], ...]
    split: int


def draw(name: str, timestamps: bool, seed: int = 0) -> Case:
    """The input of a name, in a family's layout, with random text and pixels."""
    rng = np.random.default_rng([seed, list(CASES).index(name)])
    ids, spans, units, grids = words(rng, 4), [], [], []
    for count, (height, width), seconds in CASES[name]:
        pad, room = (IMAGE if seconds is None else VIDEO), height * width // 4
        apart = timestamps or seconds is None
        ids += [] if apart else [START]
        for _ in range(count):
            ids += [*([] if seconds is None else words(rng, 2)), START] if apart else []
            spans.append((len(ids), room))
            ids += [pad] * room + [END] * apart
            units.append(rng.integers(0, 256, (height * width, PATCH_VALUES)).astype(np.uint8))
            grids.append((height, width))
        ids += [] if apart else [END]
    split = len(ids)
    ids += words(rng, 9 + len(CASES[name]))
    return Case(np.asarray(ids), tuple(spans), tuple(units), tuple(grids), CASES[name], split)


def words(rng: np.random.Generator, count: int) -> list[int]:
    return rng.integers(END + 1, VOCABULARY, count).tolist()


def prompt(case: Case, config: qwen_vl.QwenVLConfig, length: int) -> Prompt:
    """The first `length` tokens of an input as this model takes it."""
    offsets: list[tuple[int, ...]] = []
    for count, _, seconds in case.shown:
        together = not config.traits.timestamps and seconds is not None
        offsets += [mrope.unit_offsets(count, seconds, config)] if together else [(0,)] * count
    merged = [(height // 2, width // 2) for height, width in case.grids]
    positions, after = mrope.token_positions(length, case.spans, merged, offsets, config.video_layout)
    return Prompt(case.ids[:length].astype(np.int32), positions, after, case.spans, case.units, case.grids)


def batch(cases, config, lengths):
    """The prompts of several inputs in one batch."""
    prompts = [prompt(case, config, length) for case, length in zip(cases, lengths, strict=True)]
    return collate_prompts(prompts, config=config, **ROOM)


def continued(cases, config):
    """Prompts up to `split`, and as suffixes the rest."""
    suffixes = [[(case.ids[case.split :].tolist(), 0)] for case in cases]
    return batch(cases, config, [case.split for case in cases]), collate_suffixes(suffixes, 1, 13)


# Compiled once and run once or twice, so compiled without optimisation.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
_jit = functools.partial(quick, static_argnums=1)
encode, score = _jit(qwen_vl.encode_video), _jit(qwen_vl.score)


@_jit
def _logits(params, config, prompts, suffix, features):
    prefix = qwen_vl.prefill(params, config, prompts, features)
    hidden = qwen_vl.extend(params, config, prefix, suffix.tokens)[:, 0]
    hidden = jnp.concatenate([prefix.last[:, None], hidden], axis=1)
    return text.head(params, config, hidden.reshape(-1, config.width)).reshape(*hidden.shape[:2], -1)


def logits(params, config, cases, prompts=None, features=None):
    """Logits from token `split` − 1 of each input on; given prompts or features stand in for those of the inputs."""
    own, suffix = continued(cases, config)
    prompts = own if prompts is None else prompts
    features = encode(params, config, prompts.video) if features is None else features
    found = np.asarray(_logits(params, config, prompts, suffix, features))
    return [row[: len(case.ids) - case.split + 1] for row, case in zip(found, cases, strict=True)]


@_jit
def _gradient(params, config, prompts, suffix):
    return jax.grad(lambda p: -qwen_vl.score(p, config, prompts, suffix).logprob.sum() / suffix.mask.sum())(params)


def gradient(params, config, cases):
    """Gradient of the mean negative log-probability of all scored tokens of all inputs."""
    return jax.device_get(_gradient(params, config, *continued(cases, config)))


def greedy(params, config, cases):
    """The `NEW_TOKENS` likeliest tokens after each whole input and their log-probabilities, by the sampler and by
    scoring the same tokens as a given suffix."""
    prompts = batch(cases, config, [len(case.ids) for case in cases])
    sampling = SamplingConfig(max_new_tokens=NEW_TOKENS, temperature=0.0)
    drawn = sample(params, config, prompts, jnp.arange(len(cases)), 1, sampling, jax.random.key(0))
    suffix = collate_suffixes([[(row[0].tolist(), 0)] for row in np.asarray(drawn.tokens)], 1, NEW_TOKENS)
    scored = score(params, config, prompts, suffix)
    return np.asarray(drawn.tokens)[:, 0], np.asarray(drawn.logprobs)[:, 0], np.asarray(scored.logprob)[:, 0]


def tree_of(tensors, config):
    """Tensors under a checkpoint's names as the tree of the model's parameters."""
    named = {checkpoint_names.canonical(name): np.asarray(tensor) for name, tensor in tensors.items()}
    tree: dict = {}
    for place in checkpoint_names.places(config):
        layers = [place.ours(named[name]) for name in place.names]
        *parents, last = place.path
        functools.reduce(lambda node, key: node.setdefault(key, {}), parents, tree)[last] = (
            np.stack(layers) if place.stacked else layers[0]
        )
    return tree


def difference(ours, theirs) -> float:
    """max |Δ| / max |theirs|."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def gradient_differences(ours, theirs) -> dict[str, tuple[float, float]]:
    """Per parameter ‖Δ‖₂ / ‖theirs‖₂ and max |Δ| / max |theirs|; what the inputs do not reach is left out."""
    found = {}
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not b.any():
            assert not a.any(), f"{name} has a gradient, in transformers it has none"
            continue
        found[name] = (float(np.linalg.norm(a - b) / np.linalg.norm(b)), difference(a, b))
    return found
