"""Speed of the density job, split by what it does, beside transformers and NumPy on the same machine.

    python -m benchmarks.density [--videos=8] [--asr-model=DIR] [--out=density.json] [--page=docs/density.md]

Renders videos and measures them as the job does, in one process: decode, DINOv3 ViT-B (drawn weights of the true
size), RapidOCR and faster-whisper where their extras (and a model) are there, the densities. Then DINOv3 in turn with
transformers where torch is installed and beside what its products take at this machine's fastest, and the kernel in
turn with NumPy. What is not there is said to be not there.
"""

import dataclasses
import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from benchmarks.command import FASTEST, fastest, options_parser, put, table
from benchmarks.machine import peaks
from benchmarks.record import Record
from evads_jax.data import media
from evads_jax.data.render.script import SECONDS, draw_script
from evads_jax.data.render.video import draw_frames, speak_tones
from evads_jax.density.items import Item
from evads_jax.density.measure import Tools, make_tools, measure
from evads_jax.density.settings import FeatureSettings, MeasureSettings, SpeechSettings
from evads_jax.density.visual.kernel import visual_density
from evads_jax.density.visual.settings import VisualSettings
from evads_jax.models.dinov3.config import SIZES, DINOv3Config
from evads_jax.models.dinov3.model import forward
from evads_jax.models.dinov3.parameters import init

SEEN_BY = {"V_random": "DINOv3 ViT-B, drawn weights", "V_blocks": "colour and gradient blocks"}
STAGES = ("decode", "features", "OCR", "ASR", "kernel")
FILM_RATE, DRIFT = 24, 1  # frames a second of the videos, and pixels that their picture moves in each


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is measured: by default what the page shows, with `--quick` what a test can wait for."""

    side: int = 720
    features: FeatureSettings = dataclasses.field(default_factory=lambda: FeatureSettings(features="dinov3_random"))
    encoder: DINOv3Config = SIZES["vit_b"]
    batch: int = 8
    image: int = 224
    frames: int = 7200


QUICK = Sizes(128, FeatureSettings(), DINOv3Config(32, 2, 2, 48), 2, 32, 128)


def main() -> None:
    """The command."""
    parser = options_parser(__doc__, "also put the tables into the block `speed` of this page", 3, FASTEST)
    parser.add_argument("--videos", type=int, default=8, help=f"rendered videos of {SECONDS} seconds")
    parser.add_argument("--asr-model", help="folder of a faster-whisper model")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, as the test runs it")
    options = parser.parse_args()
    sizes, rounds = QUICK if options.quick else Sizes(), options.rounds
    record = Record(options.out, rounds=rounds, videos=options.videos, quick=options.quick)
    with tempfile.TemporaryDirectory() as folder:
        name = f"{options.videos} videos of {sizes.side} pixels, best of {rounds}"
        stages = record.once(name, lambda: stage_times(Path(folder), options.videos, rounds, sizes, options.asr_model))
    encoder = record.once(
        f"DINOv3 of width {sizes.encoder.width}, best of {rounds}", lambda: encoder_times(rounds, sizes)
    )
    kernel = record.once(f"kernel, {sizes.frames} frames, best of {rounds}", lambda: kernel_times(rounds, sizes))
    command = f"python -m benchmarks.density --videos={options.videos} --rounds={rounds}"
    text = "\n\n".join([record.described(command), stage_table(stages), pair_table(encoder, kernel)])
    print(text)
    if options.page:
        put(options.page, {"speed": text})


class _Timed:
    """A tool of the job that adds up the processor time of its calls, over all threads, and keeps what they gave."""

    def __init__(self, tool: Callable[..., Any]):
        self._tool, self.seconds, self.given = tool, 0.0, list[Any]()

    def __call__(self, *arguments: Any) -> Any:
        begin = time.process_time()
        self.given.append(self._tool(*arguments))
        self.seconds += time.process_time() - begin
        return self.given[-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tool, name)


def stage_times(folder: Path, videos: int, rounds: int, sizes: Sizes, asr_model: str | None) -> dict[str, Any]:
    """Processor seconds a video of each stage and of all, wall-clock seconds a video, and what the videos are."""
    items = [Item(path.name, path=str(path)) for path in (film(folder, seed, sizes.side) for seed in range(videos))]
    settings = MeasureSettings(features=sizes.features, speech=SpeechSettings(model=asr_model))
    tools = make_tools(settings)
    measure(items[0], tools, settings)  # compiles
    passes = [_one_pass(items, tools, settings) for _ in range(rounds)]
    tools.close()
    best = {name: min(p[name] for p in passes) if passes[0][name] is not None else None for name in passes[0]}
    assert tools.features is not None
    return best | {"features from": tools.features.metric, "side": sizes.side, "videos": videos}


def _one_pass(items: list[Item], tools: Tools, settings: MeasureSettings) -> dict[str, Any]:
    # Decoding is done in this process here, not in the guarded one, whose processor time cannot be read.
    decode, features = _Timed(media.decode), _Timed(tools.features)  # type: ignore[arg-type]
    reader, transcriber = (tool and _Timed(tool) for tool in (tools.reader, tools.transcriber))
    timed = dataclasses.replace(tools, decode=decode, features=features, reader=reader, transcriber=transcriber)
    wall, processor = time.perf_counter(), time.process_time()
    for item in items:
        found = measure(item, timed, settings)
        assert found.failure is None, found.failure
    found_seconds = {"all": time.process_time() - processor, "wall": time.perf_counter() - wall}
    videos = [(rows, np.arange(len(rows)) / settings.features.frame_rate, float(SECONDS)) for rows in features.given]
    densities = _Timed(lambda: [visual_density(*video, settings.visual) for video in videos])
    densities()
    found_seconds |= {"decode": decode.seconds, "features": features.seconds, "kernel": densities.seconds}
    optional = {"OCR": reader and reader.seconds, "ASR": transcriber and transcriber.seconds}
    each = {name: None if taken is None else taken / len(items) for name, taken in (found_seconds | optional).items()}
    return each | {
        "frames seen": len(features.given[0]),
        "frames read": len(reader.given) / len(items) if reader else 0,
    }


def film(folder: Path, seed: int, side: int) -> Path:
    """A rendered ad as real videos are: large, 24 frames a second, never quite still, with sound."""
    script = draw_script(seed, "en")
    pictures = [
        np.asarray(Image.fromarray(picture).resize((side + FILM_RATE * DRIFT,) * 2, Image.Resampling.BICUBIC))
        for picture in draw_frames(script)
    ]
    each = SECONDS * FILM_RATE // len(pictures)
    frames = (
        np.ascontiguousarray(picture[k * DRIFT : k * DRIFT + side, k * DRIFT : k * DRIFT + side])
        for picture in pictures
        for k in range(each)
    )
    path = folder / f"{seed}.mp4"
    media.write_mp4(path, frames, FILM_RATE, speak_tones([scene.sentences for scene in script.scenes]))
    return path


def stage_table(found: dict[str, Any]) -> str:
    """The stages, and what they come to for a million videos."""
    named = {
        "decode": f"decode, {found['side']} × {found['side']} pixels, {FILM_RATE} frames a second",
        "features": f"features ({SEEN_BY[found['features from']]}), {found['frames seen']} frames",
        "OCR": f"OCR, {found['frames read']:g} frames",
        "ASR": "ASR",
        "kernel": "kernel",
    }
    absent = {"OCR": "not here: the extra ocr", "ASR": "not here: the extra asr and a model of faster-whisper"}
    rows = []
    for stage in STAGES:
        seconds = found[stage]
        share = "" if seconds is None else f"{100 * seconds / found['all']:.1f} %"
        rows.append([named[stage], absent[stage] if seconds is None else f"{seconds:.3g}", share])
    rows.append([f"all, a video of {SECONDS} seconds", f"{found['all']:.3g}", "100 %"])
    hours = found["all"] * 1e6 / 3600
    totals = [
        ["videos a second and core", f"{1 / found['all']:.3g}"],
        ["videos a second, one process on all cores", f"{1 / found['wall']:.3g}"],
        [f"core hours for a million videos of {SECONDS} seconds", f"{hours:,.0f}"],
    ]
    return "\n\n".join(
        [table(["stage", "core seconds a video", "share"], rows), table(["the whole path", "value"], totals)]
    )


def encoder_times(rounds: int, sizes: Sizes) -> dict[str, Any]:
    """Frames a second of DINOv3 at drawn weights, ours and that of transformers, taken in turn in one process.

    Beside them the frames a second that its products alone would allow at the machine's fastest, as "peak".
    """
    config = sizes.encoder
    params = jax.jit(lambda: init(config, jax.random.key(0)))()
    images = np.random.default_rng(0).normal(size=(sizes.batch, sizes.image, sizes.image, 3)).astype(np.float32)
    compiled = jax.jit(lambda p, x: forward(p, config, x)[:, 0])
    compiled(params, images).block_until_ready()
    model = _transformers_model(sizes)
    ours, theirs = list[float](), list[float]()
    for _ in range(rounds):
        ours.append(fastest(lambda: compiled(params, images).block_until_ready(), 1))
        if model is not None:
            theirs.append(fastest(lambda: model(images), 1))
    speed = {"evads_jax": sizes.batch / min(ours), "transformers": sizes.batch / min(theirs) if theirs else None}
    peak = peaks(rounds)["flops"] / frame_flops(config, sizes.image)
    return speed | {"peak": peak, "batch": sizes.batch, "image": sizes.image, "width": config.width}


def frame_flops(config: DINOv3Config, image: int) -> float:
    """Floating-point operations of a frame's products: 2 per element of a matrix and row, of attention's both sides."""
    patches = (image // config.patch) ** 2
    T, D = patches + 1 + config.registers, config.width
    layer = 2 * T * (4 * D * D + 2 * D * config.mlp_width) + 4 * T * T * D
    return 2 * patches * 3 * config.patch**2 * D + config.layers * layer


def _transformers_model(sizes: Sizes) -> Callable[[np.ndarray], object] | None:
    if not (importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")):
        return None
    import torch
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    ours = sizes.encoder
    same = {"num_hidden_layers": ours.layers, "num_attention_heads": ours.heads, "intermediate_size": ours.mlp_width}
    config = DINOv3ViTConfig(
        hidden_size=ours.width,
        patch_size=ours.patch,
        num_register_tokens=ours.registers,
        image_size=sizes.image,
        **same,
    )
    model = DINOv3ViTModel(config).eval()

    def call(images: np.ndarray) -> object:
        with torch.inference_mode():
            return model(torch.from_numpy(images.transpose(0, 3, 1, 2))).pooler_output

    call(np.zeros((sizes.batch, sizes.image, sizes.image, 3), np.float32))
    return call


def kernel_times(rounds: int, sizes: Sizes) -> dict[str, Any]:
    """Milliseconds for one hour of video at 2 fps, width 768: the kernel in turn with the same sums in NumPy."""
    frames = sizes.frames
    features = np.random.default_rng(0).standard_normal((frames, 768), dtype=np.float32)
    times, duration = np.arange(frames) / 2, frames / 2
    value = visual_density(features, times, duration, VisualSettings()).value
    assert value is not None
    assert abs(banded(features) / value - 1) < 1e-6
    ours, theirs = list[float](), list[float]()
    for _ in range(rounds):
        ours.append(1e3 * fastest(lambda: visual_density(features, times, duration, VisualSettings()), 1))
        theirs.append(1e3 * fastest(lambda: banded(features), 1))
    return {"evads_jax": min(ours), "NumPy": min(theirs), "frames": frames}


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


def pair_table(encoder: dict[str, Any], kernel: dict[str, Any]) -> str:
    """Ours beside theirs: frames a second of DINOv3, and milliseconds of the kernel."""
    theirs = encoder["transformers"]
    what = f"DINOv3 of width {encoder['width']}, {encoder['batch']} frames of {encoder['image']} pixels at a time"
    absent = "not here: torch and transformers"
    shown = [absent, "–"] if theirs is None else [f"{theirs:.3g}", f"{encoder['evads_jax'] / theirs:.2f}×"]
    ratio = kernel["NumPy"] / kernel["evads_jax"]
    least = [f"{encoder['peak']:.3g}", f"{encoder['evads_jax'] / encoder['peak']:.2f}×"]
    return table(
        ["", "evads_jax", "beside it", "times as fast"],
        [
            [f"{what}, frames a second", f"{encoder['evads_jax']:.3g}", *_by("transformers", shown)],
            ["the same", f"{encoder['evads_jax']:.3g}", *_by("its products alone at this machine's fastest", least)],
            [
                f"kernel, {kernel['frames']:,} frames of width 768, ms",
                f"{kernel['evads_jax']:.3g}",
                *_by("NumPy", [f"{kernel['NumPy']:.3g}", f"{ratio:.2f}×"]),
            ],
        ],
    )


def _by(name: str, cells: list[str]) -> list[str]:
    return [f"{name} {cells[0]}", cells[1]]


if __name__ == "__main__":
    main()
