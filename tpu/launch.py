"""One command from a config to a run on a TPU slice; see docs/tpu.md.

    tpu/launch.sh --config=configs/mg_grpo.py --slice=v5e:4x4 --bucket=gs://B/run --project=P --zone=Z

Exit codes: 0 done, 2 bad input, 3 the hours are spent, 4 no slice was to be had, 5 a slice may still be running,
130 interrupted; any other is the job's own.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from evads_jax.errors import UserError
from tpu import jobset, plan
from tpu.backends import BACKENDS
from tpu.gcloud import Gcloud
from tpu.supervise import STILL_THERE, Limits, Observation, Phase, Seen, State, advance, held

EXIT_BAD_INPUT = 2


def main(argv: Sequence[str]) -> int:
    """Plans, and either shows the plan or carries it out; returns the exit code."""
    try:
        options, rest = _parser().parse_known_args(argv)
        if options.list:
            commands = [backend.list_slices(options.project, options.zone) for backend in BACKENDS.values()]
            return max([subprocess.call(command) for command in commands])
        request = _request(options, rest)
    except UserError as error:
        print(f"tpu/launch: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    if options.dry_run:
        print(dry_run(request), end="")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        if request.backend == "gke":
            return _apply(request, folder)
        limits = Limits(
            hosts=request.slice.hosts, held=request.hours * 3600, wait=request.wait_hours * 3600,
            attempts=request.attempts,
        )  # fmt: skip
        return supervise(request, limits, folder, options.poll)


def supervise(
    request: plan.Request, limits: Limits, folder: str, poll: float, clock: Callable[[], float] = time.monotonic
) -> int:
    """Carries a request out; returns the exit code.

    Args:
      request: what is wanted.
      limits: how long, how often.
      folder: for temporary files.
      poll: seconds between two looks.
      clock: seconds, rising.
    """
    interrupted: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: interrupted.append(number))
    gcloud, state = Gcloud(request, os.path.join(folder, "code.tgz"), _say), State(since=clock())
    _say(
        f"{request.name}: {request.slice.accelerator} ({request.slice.hosts} workers), at most {request.hours:g} hours"
    )
    try:
        while state.phase is not Phase.DONE:
            state, acted = _look_and_act(state, gcloud, limits, bool(interrupted), clock())
            if not acted:
                time.sleep(poll)
    except BaseException:  # a bug of ours must not leave a slice behind
        gcloud.do("delete", state.attempt)
        _alarm(request)
        raise
    if state.code == STILL_THERE:
        _alarm(request)
    hours = held(state, clock()) / 3600
    slices, chips = state.attempt, request.slice.chips
    _say(f"ended: {state.why}; {slices} slices, {hours:.2f} hours, {hours * chips:.1f} chip hours")
    _say(f"work directory and logs: {request.bucket}, copied to {request.collect}")
    return STILL_THERE if state.code is None else state.code


def _look_and_act(state: State, gcloud: Gcloud, limits: Limits, interrupted: bool, now: float) -> tuple[State, bool]:
    """One turn; whether anything happened."""
    slice = gcloud.slice()
    asked = slice is Seen.ACTIVE and state.phase in (Phase.SETUP, Phase.RUN, Phase.STOP)
    workers = gcloud.workers() if asked else {}
    after, deeds = advance(state, Observation(now, slice, workers, gcloud.refused, interrupted), limits)
    moved = after.phase is not state.phase
    if moved:
        why = f" ({after.why})" if after.phase in (Phase.STOP, Phase.DELETE) else ""
        _say(f"slice {after.attempt}: {after.phase.value}{why}")
    elif slice is Seen.UNKNOWN:
        _say("cannot see the slice; it may be running, so it is looked for again")
    for deed in deeds:
        gcloud.do(deed, after.attempt)
    return after, moved or bool(deeds)


def dry_run(request: plan.Request) -> str:
    """The commands of a request, one a line, in the order in which they come when nothing goes wrong."""
    head = [
        f"# {request.slice.accelerator}: {request.slice.chips} chips, {request.slice.hosts} workers, "
        f"{request.slice.devices} devices"
    ]
    commands = plan.pack(request, "code.tgz")
    if request.backend == "gke":
        commands += [jobset.apply("jobset.json"), *jobset.collect(request)]
        shown = list(map(plan.shown, commands))
        return "\n".join([*head, *shown, "# jobset.json", json.dumps(jobset.manifest(request), indent=1)]) + "\n"
    backend, workers = BACKENDS[request.backend], [f"{request.name}-XXXX"]
    commands += [*backend.create(request), *backend.describe(request)]
    for script in (plan.setup(request), plan.probe(request), plan.start(request, 1), plan.stop(request)):
        commands += backend.ssh(request, workers, script)
    commands += [plan.collect(request), *backend.delete(request)]
    if any(workers[0] in command for command in commands):
        head.append(f"# {workers[0]}: so for every machine that list-instances names")
    return "\n".join([*head, *map(plan.shown, commands)]) + "\n"


def _apply(request: plan.Request, folder: str) -> int:
    path = os.path.join(folder, "jobset.json")
    with open(path, "w") as file:
        json.dump(jobset.manifest(request), file)
    for command in [*plan.pack(request, os.path.join(folder, "code.tgz")), jobset.apply(path)]:
        code = subprocess.call(command)
        if code:
            print(f"tpu/launch: failed with {code}: {plan.shown(command)}", file=sys.stderr)
            return code
    print(f"kubectl get jobset {request.name} --watch   # the controller brings it back, and ends it")
    for command in jobset.collect(request):
        print(plan.shown(command))
    return 0


def _request(options: argparse.Namespace, rest: Sequence[str]) -> plan.Request:
    for name in ("config", "slice", "bucket", "project", "zone"):
        if not getattr(options, name):
            raise UserError("missing", f"--{name}", "see tpu/launch.sh --help")
    if strange := [option for option in rest if not option.startswith("--config.")]:
        raise UserError("unknown option", strange[0], "options of the job are written --config.a.b=c")
    if options.backend not in plan.BACKENDS:
        raise UserError(f"unknown back end {options.backend!r}", "--backend", "one of " + ", ".join(plan.BACKENDS))
    if not (plan.ROOT / options.config.partition(":")[0]).is_file():
        raise UserError("no such config", options.config, "the ready ones are in configs/")
    slice = plan.Slice.parse(options.slice)
    return plan.Request(
        name=options.name, slice=slice, backend=options.backend, project=options.project, zone=options.zone,
        bucket=options.bucket.rstrip("/"), config=options.config, options=tuple(rest),
        mesh=plan.parse_mesh(options.mesh, slice.devices), spot=not options.on_demand, hours=options.hours,
        wait_hours=options.wait_hours, attempts=options.attempts, collect=options.collect, image=options.image,
    )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tpu/launch.sh", description="Runs a config on a TPU slice, and gives the slice back.")

    def add(name: str, default: Any, help: str) -> None:
        kind = str if default is None else type(default)
        parser.add_argument(f"--{name}", default=default, type=kind, help=f"{help} (default: {default})")

    add("config", None, "configs/X.py[:variant]; fields as --config.a.b=c")
    add("slice", None, "CHIP:TOPOLOGY, e.g. v5e:4x4, v5p:2x2x2, v6e:2x4, tpu7x:2x2x1")
    add("bucket", None, "gs://BUCKET/FOLDER that keeps the work directory")
    add("project", None, "Google Cloud project")
    add("zone", None, "zone of the slice")
    add("mesh", None, "e.g. fsdp:4-tp:4; without it all devices are on fsdp")
    add("name", "evads-run", "of the slice; the same name takes over a slice that was left")
    add("backend", "queued", "queued (v5e, v5p, v6e), mig (v5p, v6e, tpu7x) or gke (all)")
    add("hours", 8.0, "that slices may be held, all together")
    add("wait-hours", 24.0, "that a request may wait for capacity")
    add("attempts", 20, "slices created at most")
    add("collect", "runs/tpu", "local folder that work directory and logs are copied to")
    add("image", "python:3.11", "container image (gke)")
    add("poll", 30.0, "seconds between two looks")
    parser.add_argument("--on-demand", action="store_true", help="a slice that is not taken away, for more money")
    parser.add_argument("--dry-run", action="store_true", help="show the commands and do nothing")
    parser.add_argument("--list", action="store_true", help="show the slices of this tool in a zone")
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UserError(message, "command line", "see tpu/launch.sh --help")


def _say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


def _alarm(request: plan.Request) -> None:
    command = BACKENDS[request.backend].delete(request)[0]  # what costs money goes first
    _say(f"THE SLICE MAY STILL BE RUNNING AND COSTING MONEY. Delete it: {plan.shown(command)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
