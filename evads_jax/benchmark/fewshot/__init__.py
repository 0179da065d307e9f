"""Few-shot evaluation: episodes, nearest prototypes, fine-tuning on an episode's support, intervals over episodes."""

from evads_jax.benchmark.fewshot.episodes import Episodes, sample
from evads_jax.benchmark.fewshot.features import embed
from evads_jax.benchmark.fewshot.finetuning import Finetuning, finetuned_accuracy
from evads_jax.benchmark.fewshot.intervals import estimate, interval
from evads_jax.benchmark.fewshot.prototypes import Transduction, accuracy

__all__ = [
    "Episodes",
    "Finetuning",
    "Transduction",
    "accuracy",
    "embed",
    "estimate",
    "finetuned_accuracy",
    "interval",
    "sample",
]
