"""Runs and shards in a bucket: local folders that mirror what is there.

A bucket (`gs://BUCKET/folder`) has no append and no rename, but one object is put at one instant. So a job works on a
local folder as ever, and what it wrote goes up at certain moments (`mirror`): logs as numbered parts (`parts`), other
files whole, and what marks work as done last. Only checkpoints are written to the bucket directly. What a job only
reads comes here as a copy (`folders`).
"""

from evads_jax.storage.folders import address, fetched, inside, matching, mirror_of, name_of
from evads_jax.storage.place import local_folder, url_of
from evads_jax.storage.runs import push, run_folder, writes
from evads_jax.storage.store import Bucket, Object, Store, same

__all__ = [
    "Bucket",
    "Object",
    "Store",
    "address",
    "fetched",
    "inside",
    "local_folder",
    "matching",
    "mirror_of",
    "name_of",
    "push",
    "run_folder",
    "same",
    "url_of",
    "writes",
]
