"""Runs and shards in a bucket: local folders that mirror what is there.

A bucket (`gs://BUCKET/folder`) has no append and no rename, but one object is put at one instant. So a job works on a
local folder as ever, and what it wrote goes up at certain moments (`mirror`): logs as numbered parts (`parts`), other
files whole, and what marks work as done last. Only checkpoints are written to the bucket directly.
"""

from evads_jax.storage.place import local_folder, url_of
from evads_jax.storage.runs import address, mirror_of, push, run_folder, writes
from evads_jax.storage.store import Bucket, Object, Store, md5

__all__ = [
    "Bucket",
    "Object",
    "Store",
    "address",
    "local_folder",
    "md5",
    "mirror_of",
    "push",
    "run_folder",
    "url_of",
    "writes",
]
