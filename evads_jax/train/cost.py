"""What a step costs: seconds by phase, padding, prompts that were shared, programs compiled. Told in docs/rl.md."""

import functools
import time
from typing import Any

import jax
from jaxtyping import Int

# JAX reports it for every program that it makes ready, also one that the persistent cache holds.
_COMPILED = "/jax/core/compile/backend_compile_duration"


class Clock:
    """Seconds of the phases of a step, one after the other.

    Attributes:
      fields: for the step's event: `seconds_<phase>`, and what was derived from it.
    """

    def __init__(self):
        self.fields: dict[str, float] = {}
        self._began = time.monotonic()

    def end(self, phase: str) -> None:
        """Books the time since the end of the phase before this one."""
        now = time.monotonic()
        self.fields[f"seconds_{phase}"], self._began = now - self._began, now


def shares(prompt_lengths: Int[Any, " B"], suffix_lengths: Int[Any, "B G"], T: int, S: int) -> dict[str, Any]:
    """How much of a batch was padding, and how often its prompts would have been run without sharing.

    Args:
      prompt_lengths: real tokens of the prompts; NumPy, or JAX under `jit`.
      suffix_lengths: real tokens of their suffixes or completions; 0 for an absent one.
      T: the prompts' bucket.
      S: the suffixes' bucket.

    Returns:
      `padding`: the share of the B · (T + G · S) places that hold no token. `prefix_sharing`: prompt tokens that one
      sequence per suffix would run, over those that one prompt per group runs; G where every suffix is there.
    """
    prompts, places = prompt_lengths.sum(), prompt_lengths.size * T + suffix_lengths.size * S
    naive = (prompt_lengths * (suffix_lengths > 0).sum(axis=-1)).sum()
    return {
        "padding": 1.0 - (prompts + suffix_lengths.sum()) / places,
        "prefix_sharing": naive / prompts.clip(1),
    }


def compilations() -> int:
    """Programs that were made ready in this process since the first call, compiled or loaded from JAX's cache."""
    return _counted()[0]


@functools.cache
def _counted() -> list[int]:
    count = [0]

    def listen(event: str, duration_secs: float, **about: Any) -> None:
        if event == _COMPILED:
            count[0] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    return count
