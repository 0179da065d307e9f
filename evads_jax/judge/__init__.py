"""Judges: a request in, a verdict on the grid or a typed missing one out; used by training and evaluation alike."""

from evads_jax.judge.registry import make_judge

__all__ = ["make_judge"]
