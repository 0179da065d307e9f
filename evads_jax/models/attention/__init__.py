"""Attention in several forms: `prefix` is the one that runs anywhere, `splash` the fused kernel for TPUs."""

import importlib
from types import ModuleType


def fused(attention: str) -> ModuleType | None:
    """The module of the fused kernel, where `QwenVLConfig.attention` asks for it; it is slow to import."""
    return importlib.import_module("evads_jax.models.attention.splash") if attention == "splash" else None
