"""Speed of the density job, split by what it does, beside transformers and NumPy on the same machine.

    python benchmarks/density.py [--videos=8] [--out=density.json]

Renders videos, then times on one core's worth of work each: decode, DINOv3 ViT-B (drawn weights of the true size),
RapidOCR and faster-whisper where their extras (and a model) are there, and the kernel beside NumPy. DINOv3 stands
beside transformers where torch is installed (`make test-peers` makes such an environment). What is not there is said
to be not there.
"""

import importlib.util
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from benchmarks.command import FASTEST, fastest, options_parser, put
from evads_jax.data import media
from evads_jax.data.render.script import draw_script
from evads_jax.data.render.video import draw_video
from evads_jax.density.extract import ocr
from evads_jax.density.extract.features import BlockFeatures, FeatureSettings, make_features, resized
from evads_jax.density.visual.kernel import visual_densities
from evads_jax.density.visual.settings import VisualSettings
from evads_jax.models.dinov3.config import SIZES
from evads_jax.models.dinov3.model import forward
from evads_jax.models.dinov3.parameters import init
from evads_jax.workdir import environment

RATE, SIDE, BATCH = 2.0, 224, 8


def main() -> None:
    """The command."""
    parser = options_parser(__doc__, "also put the table into the block `speed` of docs/density.md", 3, FASTEST)
    parser.add_argument("--videos", type=int, default=8, help="rendered videos of six seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = stages(Path(folder), options.videos, options.rounds)
    found |= dinov3_beside_transformers(options.rounds) | kernel_beside_numpy(options.rounds)
    print(table(found))
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if options.page:
        put(options.page, {"speed": table(found)})


def stages(folder: Path, videos: int, rounds: int) -> dict[str, float | str]:
    """Seconds a video for each stage of the job, and what a million such videos cost."""
    paths = []
    for seed in range(videos):
        paths.append(folder / f"{seed}.mp4")
        draw_video(draw_script(seed, "en"), paths[-1])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: dict[str, float | str] = {"processor": str(environment()["processor"]), "cores": cores, "videos": videos}
    found["decode"] = fastest(lambda: [media.decode(p, RATE, 2400, SIDE) for p in paths], rounds) / videos
    played = [m for m in (media.decode(p, RATE, 2400, SIDE) for p in paths) if isinstance(m, media.Media)]
    found["frames a video"] = len(played[0].frames)
    blocks = BlockFeatures()
    found["features, blocks"] = fastest(lambda: [blocks(m.frames) for m in played], rounds) / videos
    dinov3 = make_features(FeatureSettings(features="dinov3_random", batch=len(played[0].frames)))
    assert dinov3 is not None
    dinov3(played[0].frames)
    # All cores work on the features: in core seconds, as the other stages are.
    found["features, DINOv3 ViT-B"] = cores * fastest(lambda: [dinov3(m.frames) for m in played], rounds) / videos
    features = [dinov3(m.frames) for m in played]
    arguments = features, [np.array(m.times) for m in played], [m.duration for m in played], VisualSettings()
    visual_densities(*arguments)
    found["kernel"] = fastest(lambda: visual_densities(*arguments), rounds) / videos
    if ocr.installed():
        reader = ocr.RapidOCRReader()
        large = [f for m in played[:2] for f in (np.asarray(resized(x, 640)) for x in m.frames[::2])]
        found["OCR"] = cores * fastest(lambda: [reader(f) for f in large], 1) / 2
    else:
        found["OCR"] = "not here: the extra ocr"
    found["ASR"] = "not here: it needs a faster-whisper model"
    total = sum(v for k, v in found.items() if k in STAGES and isinstance(v, float))
    found["videos a second and core"] = 1 / total
    found["core hours for a million videos"] = total * 1e6 / 3600
    return found


STAGES = ("decode", "features, DINOv3 ViT-B", "OCR", "ASR", "kernel")


def dinov3_beside_transformers(rounds: int) -> dict[str, float | str]:
    """Frames a second of ViT-B at 224 pixels, ours and that of transformers, taken in turn in one process."""
    config = SIZES["vit_b"]
    params = jax.jit(lambda: init(config, jax.random.key(0)))()
    images = np.random.default_rng(0).normal(size=(BATCH, SIDE, SIDE, 3)).astype(np.float32)
    compiled = jax.jit(lambda p, x: forward(p, config, x)[:, 0])
    compiled(params, images).block_until_ready()
    ours: list[float] = []
    theirs: list[float] = []
    model = _transformers_model()
    for _ in range(rounds):
        ours.append(fastest(lambda: compiled(params, images).block_until_ready(), 1))
        if model is not None:
            theirs.append(fastest(lambda: model(images), 1))
    found: dict[str, float | str] = {"DINOv3 frames/s, evads_jax": BATCH / min(ours)}
    if model is None:
        return found | {"DINOv3 frames/s, transformers": "not here: torch and transformers"}
    return found | {
        "DINOv3 frames/s, transformers": BATCH / min(theirs),
        "DINOv3, times transformers": min(theirs) / min(ours),
    }


def _transformers_model() -> Callable[[np.ndarray], object] | None:
    if not (importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")):
        return None
    import torch
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    sizes = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    model = DINOv3ViTModel(DINOv3ViTConfig(num_register_tokens=4, **sizes)).eval()

    def call(images: np.ndarray) -> object:
        with torch.inference_mode():
            return model(torch.from_numpy(images.transpose(0, 3, 1, 2))).pooler_output

    call(np.zeros((BATCH, SIDE, SIDE, 3), np.float32))
    return call


def kernel_beside_numpy(rounds: int) -> dict[str, float | str]:
    """Milliseconds for one hour of video at 2 fps, width 768: the kernel, and the same sums in NumPy float64."""
    frames = 7200
    features = np.random.default_rng(0).standard_normal((frames, 768), dtype=np.float32)
    times, duration = np.arange(frames) / 2, frames / 2
    settings = VisualSettings()
    value = visual_densities([features], [times], [duration], settings)[0].value
    ours = fastest(lambda: visual_densities([features], [times], [duration], settings), rounds)
    theirs = fastest(lambda: banded(features), rounds)
    assert value is not None
    assert abs(banded(features) / value - 1) < 1e-6
    return {
        "kernel, 7,200 frames, ms": 1e3 * ours,
        "NumPy, 7,200 frames, ms": 1e3 * theirs,
        "kernel, times NumPy": theirs / ours,
    }


def banded(features: np.ndarray) -> float:
    """V_den at 2 fps under the default settings, written with NumPy by offset."""
    unit = features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    weighted, weight = np.zeros(len(unit)), np.zeros(len(unit))
    for offset, w in ((1, 0.75), (2, 0.5), (3, 0.25)):
        distance = 0.5 * np.square(unit[offset:] - unit[:-offset]).sum(axis=1)
        for side in (slice(offset, None), slice(None, -offset)):
            weighted[side] += w * distance
            weight[side] += w
    return 100 * float((weighted / weight).mean())


def table(found: dict[str, float | str]) -> str:
    """The numbers as a Markdown table; stages are in core seconds a video."""
    rows = [
        f"| {name} | {value if isinstance(value, (str, int)) else f'{value:.4g}'} |" for name, value in found.items()
    ]
    return "\n".join(["| measure | value |", "|---|---|", *rows])


if __name__ == "__main__":
    main()
