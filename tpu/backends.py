"""The back ends whose slices are watched from here; GKE watches its own (`jobset.py`)."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from tpu import mig, queued
from tpu.plan import Command, Request
from tpu.supervise import Seen


class Backend(Protocol):
    """What a module of a back end offers: commands, and the reading of what one has printed. It runs nothing."""

    def create(self, request: Request) -> list[Command]:
        """Asks for the slice; a command may find that its part is there already."""

    def describe(self, request: Request) -> list[Command]:
        """Prints what `read` reads; fails with «not found» where there is no slice."""

    def read(self, request: Request, printed: Sequence[str]) -> tuple[Seen, list[str], str]:
        """What became of the slice, the names of its machines, and what its service complains of ("": nothing)."""

    def ssh(self, request: Request, machines: Sequence[str], script: str) -> list[Command]:
        """Runs a script on every machine; the commands may run side by side."""

    def delete(self, request: Request) -> list[Command]:
        """Gives the slice back, whatever state it is in; what costs money goes first."""

    def list_slices(self, project: str, zone: str) -> Command:
        """Prints every slice of this kind that this tool made in a zone."""


BACKENDS: Mapping[str, Backend] = {"queued": queued, "mig": mig}
