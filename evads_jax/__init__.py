"""Understanding e-commerce short videos in JAX: E-VAds-R1 with MG-GRPO, and information density."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evads_jax.train.ask import Model


def load(folder: str | Path, stage: str | None = None, **changes: Any) -> "Model":
    """Reads a model that can be asked about videos: `load(folder).ask("a.mp4", "What is sold?").answer`.

    Args:
      folder: a run's work directory, or a Qwen-VL checkpoint in the Hugging Face layout.
      stage: of a run: base, sft, control or mg_grpo; None: the last that is finished.
      **changes: what is to differ from how the model was trained or evaluated, e.g. `max_frames`; the fields of
        `evads_jax.train.ask_source.Manner`.

    Raises:
      UserError: there is no such model, or it cannot be read.
    """
    from evads_jax.train.ask import load  # here, so that importing the package imports no JAX

    return load(folder, stage, **changes)
