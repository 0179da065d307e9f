"""The TFDS builder `evads`: the records of prepared shards as a TensorFlow data set, readable without TensorFlow."""

from evads_jax.data.tfds_evads.builder import Evads, to_record

__all__ = ["Evads", "to_record"]
