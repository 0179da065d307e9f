"""SIGTERM: the machine will be taken away soon. A stage saves where it is and the process ends with code 42."""

import signal
import threading
from types import FrameType
from typing import Self

from evads_jax.processes import agree

EXIT_PREEMPTED = 42


class Preempted(SystemExit):
    """Ends the process with `EXIT_PREEMPTED`: everything is saved, start the same command again."""

    def __init__(self):
        super().__init__(EXIT_PREEMPTED)


class Preemption:
    """While entered, SIGTERM only raises a flag; afterwards it means what it meant before."""

    def __init__(self):
        self._requested = False
        self._before = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python sets no handlers
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._requested = True

    @property
    def requested(self) -> bool:
        """Whether SIGTERM came to any process; every process must ask at the same points."""
        return agree(self._requested)
