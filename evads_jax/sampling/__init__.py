"""Sampling: prefill, decode, the key/value cache and rollouts."""

from evads_jax.sampling.config import SamplingConfig
from evads_jax.sampling.rollout import Rollout, sample

__all__ = ["Rollout", "SamplingConfig", "sample"]
