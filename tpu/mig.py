"""The Compute Engine back end (v5p, v6e, tpu7x): a slice as a managed instance group.

Three things make one: a workload policy, by which the machines are joined by the chips' own network in a topology; an
instance template, which says what a machine is; and the group, which creates all machines or none. A slice of one
machine needs no policy. Nothing is repaired: a slice that lost a machine is given back whole.

Policy and template cost nothing. What they are is in their names, so one that was left over is the one that is wanted.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from tpu.plan import CHIPS, GIVE_BACK, PREFIX, Command, Request, clock, own_end, where
from tpu.supervise import Seen

_GROUPS = ["gcloud", "compute", "instance-groups", "managed"]
# A machine of which the group or the service says one of these will not be part of the slice again.
_LOST_ACTIONS = {"ABANDONING", "DELETING", "RECREATING", "RESTARTING", "STOPPING", "SUSPENDING"}
_LOST_STATUSES = {"DEPROVISIONING", "REPAIRING", "STOPPED", "STOPPING", "SUSPENDED", "SUSPENDING", "TERMINATED"}


def create(request: Request) -> list[Command]:
    """Makes the policy, the template and the group, which waits until all its machines can be had."""
    name, project, region = _policy(request), request.project, _region(request)
    policy = [
        "gcloud", "compute", "resource-policies", "create", "workload-policy", name,
        f"--project={project}",
        f"--region={region}",
        "--type=HIGH_THROUGHPUT",
        f"--accelerator-topology={request.slice.topology}",
        "--quiet",
    ]  # fmt: skip
    template = [
        "gcloud", "compute", "instance-templates", "create", _template(request),
        f"--project={project}",
        *_machine(request),
        *clock(request),
        "--quiet",
    ]  # fmt: skip
    joined = [
        "--target-size-policy-mode=bulk",
        f"--workload-policy=projects/{project}/regions/{region}/resourcePolicies/{name}",
    ]
    several = request.slice.hosts > 1
    group = [
        *_GROUPS, "create", request.name, *where(request),
        f"--template={_template(request)}",
        f"--size={request.slice.hosts}",
        "--default-action-on-vm-failure=do-nothing",
        *(joined if several else []),
        "--quiet",
    ]  # fmt: skip
    return [policy, template, group] if several else [template, group]


def describe(request: Request) -> list[Command]:
    """Prints the machines of the group, and how far it is with the creation of all of them."""
    machines = "--format=json(name,instanceStatus,currentAction,lastAttempt)"
    return [
        [*_GROUPS, "list-instances", request.name, *where(request), machines],
        [*_GROUPS, "describe", request.name, *where(request), "--format=json(status.bulkInstanceOperation)"],
    ]


def read(request: Request, printed: Sequence[str]) -> tuple[Seen, list[str], str]:
    """What became of the slice, the names of its machines, and the errors of the last try to create them.

    It is there when every machine runs, and gone as soon as one is lost: a hole cannot be filled.
    """
    try:
        machines, group = json.loads(printed[0]) or [], json.loads(printed[1])
    except ValueError:
        return Seen.UNKNOWN, [], ""
    creation = _at(group, "status", "bulkInstanceOperation") or {}
    tries = [_at(machine, "lastAttempt", "errors", "errors") for machine in machines]
    tries.append(_at(creation, "lastProgressCheck", "error", "errors"))
    errors = [f"{error.get('code', '')}: {error.get('message', '')}" for found in tries for error in found or []]
    names = [name for machine in machines if (name := machine.get("name"))]
    return _seen(machines, request.slice.hosts, bool(creation.get("inProgress"))), names, "\n".join(errors)


def ssh(request: Request, machines: Sequence[str], script: str) -> list[Command]:
    """Runs a script on every machine, each with a command of its own."""
    return [
        ["gcloud", "compute", "ssh", machine, *where(request), f"--command={script}", "--quiet"]
        for machine in machines
    ]  # fmt: skip


def delete(request: Request) -> list[Command]:
    """Deletes the group with its machines, then the template and the policy, which it no longer uses."""
    project = f"--project={request.project}"
    group = [*_GROUPS, "delete", request.name, *where(request), "--quiet"]
    template = ["gcloud", "compute", "instance-templates", "delete", _template(request), project, "--quiet"]
    if request.slice.hosts == 1:
        return [group, template]
    region = f"--region={_region(request)}"
    policy = ["gcloud", "compute", "resource-policies", "delete", _policy(request), project, region, "--quiet"]
    return [group, template, policy]


def list_slices(project: str, zone: str) -> Command:
    """Prints every group that this tool made in a zone."""
    return [*_GROUPS, "list", f"--project={project}", f"--zones={zone}", f"--filter=name~^{PREFIX}"]


def _seen(machines: Sequence[dict[str, Any]], hosts: int, pending: bool) -> Seen:
    actions = [machine.get("currentAction") or "NONE" for machine in machines]
    statuses = [machine.get("instanceStatus") or "" for machine in machines]
    if machines and set(actions) == {"DELETING"}:
        return Seen.DELETING
    for action, status in zip(actions, statuses, strict=True):
        vanished = action == "NONE" and not status and not pending  # it does not exist, and will not
        if vanished or action in _LOST_ACTIONS or status in _LOST_STATUSES:
            return Seen.GONE
    return Seen.ACTIVE if len(machines) == hosts and set(statuses) == {"RUNNING"} else Seen.WAITING


def _at(tree: Any, *path: str) -> Any:
    """What lies at a path; None where a part of it is absent or null."""
    for key in path:
        tree = (tree or {}).get(key)
    return tree


def _machine(request: Request) -> Command:
    """What a machine is. The service ends it by itself if even `give_back.sh`, half an hour earlier, could not."""
    row = CHIPS[request.slice.chip]
    return [
        f"--machine-type={row['machine'].format(request.slice.chips // request.slice.hosts)}",
        "--image-project=ubuntu-os-accelerator-images",
        f"--image-family={row['image']}",
        "--boot-disk-size=200GB",  # the packages do not fit into the 10 GB of the image
        f"--provisioning-model={'SPOT' if request.spot else 'STANDARD'}",
        "--instance-termination-action=DELETE",
        f"--max-run-duration={own_end(request) + 1800}s",
        "--maintenance-policy=TERMINATE",
        "--no-restart-on-failure",
        "--scopes=https://www.googleapis.com/auth/cloud-platform",
    ]  # fmt: skip


def _template(request: Request) -> str:
    """Name of the template; another machine, another end or another script is another template."""
    content = "\n".join([*_machine(request), clock(request)[0], GIVE_BACK.read_text()])
    return f"{request.name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def _policy(request: Request) -> str:
    """Name of the policy."""
    return f"{request.name}-{request.slice.topology}"


def _region(request: Request) -> str:
    """The zone's region, to which the policy belongs: us-east5 of us-east5-a."""
    return request.zone.rpartition("-")[0] or request.zone
