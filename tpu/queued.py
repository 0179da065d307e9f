"""The back end of queued resources (v5e, v5p, v6e): a request that the service turns into a slice when it can."""

from collections.abc import Sequence

from tpu.plan import CHIPS, PREFIX, Command, Request, clock, where
from tpu.supervise import Seen

_STATES = {
    "ACTIVE": Seen.ACTIVE,
    "CREATING": Seen.WAITING,
    "ACCEPTED": Seen.WAITING,
    "PROVISIONING": Seen.WAITING,
    "WAITING_FOR_RESOURCES": Seen.WAITING,
    "SUSPENDING": Seen.GONE,
    "SUSPENDED": Seen.GONE,
    "FAILED": Seen.GONE,
    "DELETING": Seen.DELETING,
}
_REQUESTS = ["gcloud", "compute", "tpus", "queued-resources"]


def create(request: Request) -> list[Command]:
    """Asks for the slice."""
    return [
        [
            *_REQUESTS, "create", request.name, *where(request),
            f"--node-id={request.name}",
            f"--accelerator-type={request.slice.accelerator}",
            f"--runtime-version={CHIPS[request.slice.chip]['runtime']}",
            f"--valid-until-duration={round(request.wait_hours * 3600)}s",
            "--scopes=https://www.googleapis.com/auth/cloud-platform",
            *clock(request),
            *(["--spot"] if request.spot else []),
            "--quiet",
        ]
    ]  # fmt: skip


def describe(request: Request) -> list[Command]:
    """Prints the state of the request for a slice."""
    return [[*_REQUESTS, "describe", request.name, *where(request), "--format=value(state.state)"]]


def read(request: Request, printed: Sequence[str]) -> tuple[Seen, list[str], str]:
    """What became of the slice; its machines are spoken to by its own name, and it complains in `create`."""
    return _STATES.get(printed[0].strip(), Seen.UNKNOWN), [], ""


def ssh(request: Request, machines: Sequence[str], script: str) -> list[Command]:
    """Runs a script on all workers with one command."""
    return [
        [
            "gcloud", "compute", "tpus", "tpu-vm", "ssh", request.name, *where(request), "--worker=all",
            f"--command={script}", "--quiet",
        ]
    ]  # fmt: skip


def delete(request: Request) -> list[Command]:
    """Gives the slice back, whatever state it is in."""
    return [[*_REQUESTS, "delete", request.name, *where(request), "--force", "--quiet"]]


def list_slices(project: str, zone: str) -> Command:
    """Prints every request for a slice that this tool made in a zone."""
    return [*_REQUESTS, "list", f"--project={project}", f"--zone={zone}", f"--filter=name~/{PREFIX}"]
