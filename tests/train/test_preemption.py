"""SIGTERM is a flag that is looked at between steps, and one process's is every process's."""

import os
import signal

from evads_jax.train.preemption import Preemption
from tests.train.side_by_side import side_by_side


def test_sigterm_is_noted_while_entered_and_means_what_it_meant_before_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with Preemption() as preemption:
        assert not preemption.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.requested
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_to_one_process_ends_all_at_the_same_step(monkeypatch):
    def boundaries(index):
        with Preemption() as preemption:
            asked = [preemption.requested]
            if index == 1:
                preemption._note(signal.SIGTERM, None)  # threads of one process have no signals of their own
            return [*asked, preemption.requested]

    assert side_by_side(monkeypatch, 3, boundaries) == [[False, True]] * 3
