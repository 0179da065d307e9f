"""Writes tests/data/golden with the official processors of transformers; run from the root of the repository.

    python -m tests.data.make_golden_processor [FOLDER]

With transformers 5: two mp4s (a drawn ad as it is, and one of odd size and rate) and processor_5.npz. With transformers
4.57.6: processor_4.npz for the same mp4s. Both need torchvision. The first holds, for every case of `CASES`, the frames
that were taken, the patches as raw levels, the grid, what normalisation made of one patch, and the prompt's ids; the
second the ids only, since the rest is the same.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

# torchvision's wheels are built for CUDA; beside torch for CPU it asks for two operators that are not there.
for operator in ("nms", "qnms"):
    torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import transformers  # noqa: E402
from transformers.video_utils import load_video  # noqa: E402

from evads_jax.data import media  # noqa: E402
from evads_jax.data.render import draw_script, draw_video  # noqa: E402
from tests.data.test_tokenizer import qwen_like  # noqa: E402

FOLDER = Path(__file__).parent / "golden"
MAJOR = transformers.__version__.split(".")[0]
TEXT = "Was kostet das? 多少钱？\n1) <think>"
# Family, file, frames per second, fewest and most pixels. Patches of 4 and 2×2 merged keep the file small.
CASES = {
    "qwen3_vl_ad": ("qwen3_vl", "ad.mp4", 1.0, 1_000, 12_000),
    "qwen3_vl_enlarged": ("qwen3_vl", "odd.mp4", 0.7, 50_000, 90_000),
    "qwen3_vl_odd": ("qwen3_vl", "odd.mp4", 2.0, 1_000, 16_000),
    "qwen2_5_vl_ad": ("qwen2_5_vl", "ad.mp4", 1.0, 1_000, 2_500),
    "qwen2_5_vl_odd": ("qwen2_5_vl", "odd.mp4", 2.3, 2_000, 4_000),
}
IMAGE = (1_500, 3_000)
PATCH, MERGE = 4, 2


def write_videos(folder: Path) -> None:
    """An ad of 128×128 at 2 frames a second, and the same cut to 94×118 with three frames of each at 7.5."""
    draw_video(draw_script(5, "en"), folder / "ad.mp4")
    taken = media.decode(folder / "ad.mp4", 2.0, 12, 128)
    assert isinstance(taken, media.Media)
    frames = [np.roll(frame[:94, :118], k, axis=1) for frame in taken.frames for k in range(3)]
    media.write_mp4(folder / "odd.mp4", frames, 7.5)


def prompt(family: str, placeholder: str) -> str:
    """What the chat template of the family's release makes of one user turn with a video or image before the text."""
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" if family == "qwen2_5_vl" else ""
    shown = f"<|vision_start|>{placeholder}<|vision_end|>"
    return f"{system}<|im_start|>user\n{shown}{TEXT}<|im_end|>\n<|im_start|>assistant\n"


def processors():
    """The official processor of each family, with the tokenizer of the tests and small patches."""
    size = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.json").write_text(qwen_like())
        # Version 4 insists on the class; with version 5 it would build another tokenizer around the vocabulary.
        kind = transformers.Qwen2TokenizerFast if MAJOR == "4" else transformers.PreTrainedTokenizerFast
        tokenizer = kind(tokenizer_file=f"{folder}/tokenizer.json", eos_token="<|im_end|>", pad_token="<|endoftext|>")
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    image = transformers.Qwen2VLImageProcessorFast if MAJOR == "4" else transformers.Qwen2VLImageProcessor
    return {
        "qwen3_vl": transformers.Qwen3VLProcessor(
            image(**size, **half), tokenizer, transformers.Qwen3VLVideoProcessor(**size)
        ),
        "qwen2_5_vl": transformers.Qwen2_5_VLProcessor(
            image(**size), tokenizer, transformers.Qwen2VLVideoProcessor(**size)
        ),
    }


def levels(values: torch.Tensor, processor) -> np.ndarray:
    """Normalised patches back as the levels 0 … 255 that they were made of, which is exact."""
    mean, std = (
        torch.tensor(x).repeat_interleave(values.shape[1] // 3) for x in (processor.image_mean, processor.image_std)
    )
    raw = (values * std + mean) * 255
    assert (raw - raw.round()).abs().max() < 1e-3
    return raw.round().to(torch.uint8).numpy()


def answers(folder: Path) -> dict[str, np.ndarray]:
    """What the installed version makes of the cases."""
    found = {}
    for name, (family, file, rate, low, high) in CASES.items():
        processor = processors()[family]
        video = processor.video_processor
        frames, metadata = load_video(
            str(folder / file), backend="pyav",
            sample_indices_fn=lambda metadata, video=video, rate=rate, **_: video.sample_frames(
                metadata=metadata, fps=rate, num_frames=None, min_frames=4, max_frames=768, temporal_patch_size=2
            ),
        )  # fmt: skip
        made = processor(
            text=[prompt(family, "<|video_pad|>")], videos=[frames], video_metadata=[metadata], do_sample_frames=False,
            size={"shortest_edge": low, "longest_edge": high}, return_tensors="pt",
        )  # fmt: skip
        found |= {
            f"{name}/indices": np.asarray(metadata.frames_indices),
            f"{name}/levels": levels(made["pixel_values_videos"], video),
            f"{name}/grid": made["video_grid_thw"][0].numpy(),
            f"{name}/normalised": made["pixel_values_videos"][7].numpy(),
            f"{name}/ids": made["input_ids"][0].numpy(),
            f"{name}/seconds": np.asarray(made.get("second_per_grid_ts", [0.0]), np.float64),
        }
    for family, processor in processors().items():
        pixels = np.ascontiguousarray(frames[0][:61])
        size = {"shortest_edge": IMAGE[0], "longest_edge": IMAGE[1]}
        made = processor(text=[prompt(family, "<|image_pad|>")], images=[pixels], size=size, return_tensors="pt")
        found |= {
            f"{family}_image/pixels": pixels,
            f"{family}_image/levels": levels(made["pixel_values"], processor.image_processor),
            f"{family}_image/grid": made["image_grid_thw"][0].numpy(),
            f"{family}_image/normalised": made["pixel_values"][7].numpy(),
            f"{family}_image/ids": made["input_ids"][0].numpy(),
        }
    return found


def rules() -> dict[str, np.ndarray]:
    """Sizes and frame numbers for drawn shapes, rates and lengths: rows of arguments, and rows of results."""
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import smart_resize as per_frame
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize as whole_video
    from transformers.video_utils import VideoMetadata

    rng = np.random.default_rng(0)
    shapes, sizes, sampled, numbers = [], [], [], []
    for _ in range(200):
        height, width = (int(x) for x in np.exp(rng.uniform(np.log(20), np.log(2000), 2)))
        frames, cell = int(rng.integers(2, 40)), int(rng.choice([16, 28, 32]))
        low, high = int(rng.choice([3_136, 65_536])), int(rng.choice([100_352, 1_003_520]))
        shapes.append((frames, height, width, cell, low, high))
        one = per_frame(height, width, cell, low, high)
        sizes.append((*one, *whole_video(frames, height, width, 2, cell, low, high)))
    video = processors()
    for _ in range(100):
        total, rate = int(rng.integers(4, 900)), float(rng.choice([7.5, 24, 24000 / 1001, 29.97, 30, 60]))
        wanted = float(rng.choice([0.5, 1.0, 2.0, 3.7]))
        sampled.append((total, rate, wanted))
        for family in ("qwen2_5_vl", "qwen3_vl"):
            metadata = VideoMetadata(total_num_frames=total, fps=rate)
            taken = video[family].video_processor.sample_frames(metadata=metadata, fps=wanted)
            numbers.append(np.bincount(np.asarray(taken), minlength=900).astype(bool))
    return {
        "rules/shapes": np.asarray(shapes),
        "rules/sizes": np.asarray(sizes),
        "rules/sampled": np.asarray(sampled),
        "rules/numbers": np.packbits(np.asarray(numbers)[:, :900], axis=1),
    }


def main(folder: Path = FOLDER) -> None:
    """Writes the installed version's answers; with version 5 also the videos where they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "ad.mp4").exists():
        write_videos(folder)
    found = answers(folder)
    if MAJOR == "4":  # patches are the same; prompts are not
        found = {name: value for name, value in found.items() if name.endswith("/ids")}
    else:
        found |= rules()
    np.savez_compressed(folder / f"processor_{MAJOR}.npz", **found)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
