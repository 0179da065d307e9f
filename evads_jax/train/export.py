"""The job `export`: a stage of a run as a folder in the Hugging Face layout, with a model card."""

from pathlib import Path

from ml_collections import ConfigDict

from evads_jax import storage
from evads_jax.benchmark.files import write
from evads_jax.data.qwen_processor import Processing
from evads_jax.errors import UserError
from evads_jax.models.qwen_vl import checkpoint
from evads_jax.train.model_card import model_card
from evads_jax.train.results import Policy, find_policy


def run(config: ConfigDict, workdir: Path | None) -> None:
    """Writes the folder that `config` describes.

    Args:
      config: see configs/export.py.
      workdir: not used; everything goes to `config.out`.

    Raises:
      UserError: no such run or stage, an unknown type, or a folder that cannot be written.
    """
    if not config.run:
        raise UserError("no run to export", "config.run", "name the folder of a finished run")
    if not config.out:
        raise UserError("no folder to export to", "config.out", "name a new folder")
    if config.dtype not in checkpoint.DTYPES:
        raise UserError(f"unknown type {config.dtype!r}", "config.dtype", "one of " + ", ".join(checkpoint.DTYPES))
    if storage.url_of(config.out) is not None:
        raise UserError("an export is written to this machine", config.out, "name a local folder, and copy it then")
    policy, out = find_policy(config.run, config.stage), Path(config.out)
    source = storage.fetched(path) if (path := policy.config.model.path) else None
    card = model_card(policy)
    checkpoint.save_parameters(
        out,
        policy.parameters(),
        policy.model,
        source,
        tokenizer=policy.tokenizer,
        dtype=config.dtype,
        video=None if source else _processing(policy),
    )
    write(out / "README.md", card)
    print(f"{policy.weights} of {storage.name_of(policy.folder)} written to {out}")


def _processing(policy: Policy) -> Processing:
    """The run's sampling of frames, as near as the official processors come to it."""
    data, vision = policy.config.data, policy.model.vision
    whole = policy.model.traits.timestamps
    return Processing(
        cell=vision.cell,
        temporal_patch=vision.temporal_patch,
        min_pixels=vision.cell**2,
        max_pixels=data.frame_size**2 * (data.max_frames if whole else 1),
        whole_video=whole,
        frame_rate=data.frame_rate,
        min_frames=min(vision.temporal_patch, data.max_frames),
        max_frames=data.max_frames,
    )
