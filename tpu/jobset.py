"""The GKE back end: one JobSet manifest, whose controller brings the job back after preemption by itself.

The manifest is JSON, which kubectl reads like YAML. A pod gets the code from the bucket by a program that the manifest
holds as text (`objects.py`): its image need not have more than Python. Pods of a slice start together; exit codes 42
(preempted after a checkpoint) and 127–255 (killed) restart the whole set, any other one ends it.
"""

import shlex
from pathlib import Path
from typing import Any

from tpu import plan
from tpu.plan import CHIPS, Command, Request, code_url

RETRIED = (42, *range(127, 256))
OBJECTS = Path(__file__).with_name("objects.py")
_RESTART = "jobset.sigs.k8s.io/restart-attempt"


def manifest(request: Request) -> dict[str, Any]:
    """The JobSet of a request.

    The node pool must scale from zero, so that nothing is held when the set has ended.
    """
    row, hosts = CHIPS[request.slice.chip], request.slice.hosts
    chips = request.slice.chips // hosts
    selector = {
        "cloud.google.com/gke-tpu-accelerator": row["gke_accelerator"],
        "cloud.google.com/gke-tpu-topology": request.slice.topology,
    }
    pod: dict[str, Any] = {
        "serviceAccountName": "evads",
        "restartPolicy": "Never",
        "nodeSelector": selector | ({"cloud.google.com/gke-spot": "true"} if request.spot else {}),
        "terminationGracePeriodSeconds": 120,
        "containers": [
            {
                "name": "worker",
                "image": request.image,
                "command": ["bash", "-c", _script(request)],
                "env": [
                    {"name": "EVADS_OBJECTS", "value": OBJECTS.read_text()},
                    {"name": "EVADS_HOURS", "value": f"{request.hours:g}"},
                    {
                        "name": "EVADS_ATTEMPT",
                        "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{_RESTART}']"}},
                    },
                ],
                "ports": [{"containerPort": 8471}, {"containerPort": 8080}],
                "resources": {"limits": {"google.com/tpu": chips}, "requests": {"google.com/tpu": chips}},
            }
        ],
    }
    if request.spot:
        pod["tolerations"] = [{"key": "cloud.google.com/gke-spot", "operator": "Exists", "effect": "NoSchedule"}]
    fail = {"operator": "In", "values": [code for code in range(1, 256) if code not in RETRIED]}
    job = {
        "parallelism": hosts,
        "completions": hosts,
        "backoffLimit": 0,
        "activeDeadlineSeconds": round((request.hours + request.wait_hours) * 3600),
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": fail}]},
        "template": {"spec": pod},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": request.name,
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "failurePolicy": {
                "maxRestarts": request.attempts - 1,
                "rules": [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
            },
            "ttlSecondsAfterFinished": 86400,
            "replicatedJobs": [{"name": "slice", "replicas": 1, "template": {"spec": job}}],
        },
    }


def apply(path: str) -> Command:
    """Hands a manifest to the cluster."""
    return ["kubectl", "apply", "-f", path]


def collect(request: Request) -> list[Command]:
    """Copies what the job has left to this machine, and puts its logs together; nobody watches who would do it."""
    return [plan.collect(request), ["python3", "-m", "tpu.collected", request.collect]]


def _script(request: Request) -> str:
    """What a pod runs: the code, then the same two scripts as a worker of the other back ends."""
    job = shlex.join(request.job)
    return (
        f'mkdir evads && cd evads && python3 -c "$EVADS_OBJECTS" get {code_url(request)} code.tgz '
        f"&& tar -xzf code.tgz && bash tpu/setup_worker.sh {request.bucket} "
        f'&& exec bash tpu/run_worker.sh {request.bucket} "$EVADS_ATTEMPT" {request.slice.hosts} {job}'
    )
