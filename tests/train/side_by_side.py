"""Several processes of a run, played by threads of one: what they tell each other goes from hand to hand."""

import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jax.experimental import multihost_utils


def side_by_side(monkeypatch, count, work):
    """`work(index)` of each process; what it returned, or the exception that ended it."""
    index, board, barrier = threading.local(), [None] * count, threading.Barrier(count, timeout=120)

    def allgather(array):
        board[index.value] = np.array(array)
        barrier.wait()
        stacked = np.stack(board)
        barrier.wait()
        return stacked

    def broadcast(array, is_source):
        held = allgather(array if is_source else np.zeros_like(array))
        return held.sum(axis=0, dtype=held.dtype)

    def run(number):
        index.value = number
        try:
            return work(number)
        except (Exception, SystemExit) as error:
            return error

    with monkeypatch.context() as patch:
        patch.setattr(jax, "process_count", lambda: count)
        patch.setattr(jax, "process_index", lambda: getattr(index, "value", 0))
        patch.setattr(multihost_utils, "process_allgather", allgather)
        patch.setattr(multihost_utils, "broadcast_one_to_all", broadcast)
        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(run, range(count)))
