"""The released E-VAds annotations: text grammar, and the parquet files as typed `Example`s."""

from evads_jax.data.annotations.grammar import Malformed
from evads_jax.data.annotations.parquet import (
    FILES,
    SCHEMAS,
    AnnotationFile,
    BadRow,
    read_folder,
    read_rl,
    read_sft,
    read_test,
    write_rl,
    write_sft,
    write_test,
)

__all__ = [
    "FILES",
    "SCHEMAS",
    "AnnotationFile",
    "BadRow",
    "Malformed",
    "read_folder",
    "read_rl",
    "read_sft",
    "read_test",
    "write_rl",
    "write_sft",
    "write_test",
]
