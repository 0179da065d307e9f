"""What is asked for, checked; and what is done with a slice whoever created it. Nothing here runs anything.

The chip table is data (`chips.json`): for every chip its shapes with their number of hosts, how Google's names count
it (chips, or cores of which a chip has two), and which back ends can create it and from what.
"""

import dataclasses
import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evads_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
GIVE_BACK = ROOT / "tpu" / "give_back.sh"
BACKENDS = ("queued", "mig", "gke")
CHIPS: Mapping[str, Mapping[str, Any]] = json.loads(Path(__file__).with_name("chips.json").read_text())
PREFIX = "evads-"  # of every slice's name, so that `--list` finds those that this tool made
CODE = ("evads_jax", "configs", "requirements", "tpu", "setup.py", "pyproject.toml", "README.md")
MESH_AXES = ("data", "fsdp", "tp")

Command = list[str]


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice of one kind of chip.

    Attributes:
      chip: v5e, v5p, v6e or tpu7x.
      topology: its shape in chips, e.g. 4x4 or 2x2x2.
    """

    chip: str
    topology: str

    @classmethod
    def parse(cls, text: str) -> "Slice":
        """Reads `chip:topology`.

        Raises:
          UserError: there is no such chip, or it does not come in this shape.
        """
        chip, _, topology = text.partition(":")
        if chip not in CHIPS:
            raise UserError(f"unknown chip {chip!r}", "--slice", "one of " + ", ".join(CHIPS))
        shapes = CHIPS[chip]["hosts"]
        if topology not in shapes:
            raise UserError(f"{chip} has no topology {topology!r}", "--slice", "one of " + ", ".join(shapes))
        return cls(chip, topology)

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(map(int, self.topology.split("x")))

    @property
    def hosts(self) -> int:
        """Number of machines, each of which runs one process."""
        return CHIPS[self.chip]["hosts"][self.topology]

    @property
    def devices(self) -> int:
        """Number of devices that JAX sees."""
        return self.chips * CHIPS[self.chip]["devices_per_chip"]

    @property
    def accelerator(self) -> str:
        """Google's name of it, e.g. v5litepod-16 (chips) or v5p-16 (cores of 8 chips)."""
        row = CHIPS[self.chip]
        return f"{row['accelerator']}-{self.chips * (2 if row['counts'] == 'cores' else 1)}"


@dataclasses.dataclass(frozen=True)
class Request:
    """A run that is wanted.

    Attributes:
      name: of the slice, and of everything made for it.
      slice: on what it runs.
      backend: who creates it: queued, mig or gke.
      project: Google Cloud project.
      zone: zone of the slice.
      bucket: gs:// folder that keeps everything; the work directory is its folder `run`.
      config: the job's config, with its variant.
      options: further options of the job, `--config.a.b=c`.
      mesh: sizes of the axes data, fsdp and tp.
      spot: whether it may be taken away, for less money.
      hours: how long slices may be held, all together.
      wait_hours: how long a request may wait for capacity.
      attempts: how often a slice is created at most.
      collect: local folder that the bucket is copied to.
      image: of the pods (gke).
    """

    name: str
    slice: Slice
    backend: str
    project: str
    zone: str
    bucket: str
    config: str
    options: tuple[str, ...]
    mesh: tuple[int, int, int]
    spot: bool
    hours: float
    wait_hours: float
    attempts: int
    collect: str
    image: str

    def __post_init__(self):
        """Refuses what cannot work.

        Raises:
          UserError: naming the option.
        """
        able = CHIPS[self.slice.chip]["backends"]
        if self.backend not in able:
            what = f"{self.backend} cannot create {self.slice.chip}"
            raise UserError(what, "--backend", "use " + " or ".join(able))
        if not re.fullmatch(PREFIX + "[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?", self.name):
            raise UserError(f"a slice cannot be called {self.name!r}", "--name", "small letters, digits and dashes")
        if not re.fullmatch(r"gs://[a-z0-9][a-z0-9._-]+(/[\w.=-]+)*", self.bucket):
            raise UserError(f"no bucket folder: {self.bucket!r}", "--bucket", "write gs://BUCKET/FOLDER")
        if math.prod(self.mesh) != self.slice.devices:
            shape = " × ".join(f"{axis} {size}" for axis, size in zip(MESH_AXES, self.mesh, strict=True))
            what = f"a mesh of {shape} needs {math.prod(self.mesh)} devices"
            raise UserError(f"{what}, {self.slice.chip}:{self.slice.topology} has {self.slice.devices}", "--mesh")
        for option, value in (
            ("--hours", self.hours),
            ("--wait-hours", self.wait_hours),
            ("--attempts", self.attempts),
        ):
            if value <= 0:
                raise UserError(f"must be above 0, got {value:g}", option)

    @property
    def job(self) -> Command:
        """The options of `evads_jax.main`; the work directory is the worker's own business."""
        mesh = [f"--config.mesh.{axis}={size}" for axis, size in zip(MESH_AXES, self.mesh, strict=True)]
        return [f"--config={self.config}", *mesh, *self.options]


def parse_mesh(text: str | None, devices: int) -> tuple[int, int, int]:
    """Reads `fsdp:4-tp:4`; an axis that is not named has size 1. Without a text, all devices are on fsdp.

    Raises:
      UserError: an unknown axis, or a size that is no number.
    """
    if not text:
        return 1, devices, 1
    sizes = dict.fromkeys(MESH_AXES, 1)
    for part in text.split("-"):
        axis, _, size = part.partition(":")
        if axis not in sizes or not size.isdigit() or int(size) < 1:
            raise UserError(f"cannot read the mesh {text!r}", "--mesh", "write e.g. fsdp:4-tp:4 or data:2-fsdp:8")
        sizes[axis] = int(size)
    return sizes["data"], sizes["fsdp"], sizes["tp"]


def pack(request: Request, archive: str) -> list[Command]:
    """Puts the code into the bucket, from where every worker takes it."""
    return [
        ["tar", "-czf", archive, "--exclude=__pycache__", "-C", str(ROOT), *CODE],
        ["gcloud", "storage", "cp", archive, code_url(request), f"--project={request.project}"],
    ]


def probe(request: Request) -> str:
    """Makes a worker that has begun print a line: number, phase, exit code or -, age of its heartbeat."""
    status = 'test -f .evads/status && echo "evads-worker $(cat .evads/status) '
    return f"timeout 30 sh -c '{status}$(( $(date +%s) - $(stat -c %Y .evads/status) ))\"'"


def setup(request: Request) -> str:
    """Makes a worker ready, in the background; one that is under way or ready is left alone."""
    fetch = f"mkdir -p evads && cd evads && gcloud storage cp {code_url(request)} code.tgz && tar -xzf code.tgz"
    begin = f"setsid nohup bash tpu/setup_worker.sh {request.bucket} >setup.log 2>&1 </dev/null &"
    return f"timeout 300 bash -c 'test -f .evads/status || {{ {fetch} && {{ {begin} }}; }}'"


def start(request: Request, attempt: int) -> str:
    """Starts the job on a worker, in the background."""
    job = shlex.join(request.job)
    run = f"bash tpu/run_worker.sh {request.bucket} {attempt} {request.slice.hosts} {job}"
    begin = f"setsid nohup {run} >run.log 2>&1 </dev/null &"
    return f"timeout 60 bash -c {shlex.quote(f'cd evads && {{ {begin} }}')}"


def stop(request: Request) -> str:
    """Asks the job to save and end."""
    return "timeout 60 sh -c 'kill -TERM $(cat .evads/pid)'"


def collect(request: Request) -> Command:
    """Copies work directory and logs to this machine."""
    return ["gcloud", "storage", "rsync", "--recursive", request.bucket, request.collect, "--exclude=^[.]launch/.*"]


def code_url(request: Request) -> str:
    """Where the code lies in the bucket."""
    return f"{request.bucket}/.launch/{request.name}.tgz"


def shown(command: Sequence[str]) -> str:
    """A command as one types it."""
    return shlex.join(command)


def where(request: Request) -> Command:
    """The options that say where a slice is."""
    return [f"--project={request.project}", f"--zone={request.zone}"]


def own_end(request: Request) -> int:
    """Seconds from its first boot after which a slice deletes itself, whatever becomes of us."""
    return round(request.hours * 3600) + 1800


def clock(request: Request) -> Command:
    """The options by which every machine of a slice knows that end (`give_back.sh`)."""
    return [
        f"--metadata=evads-backend={request.backend},evads-name={request.name},evads-seconds={own_end(request)}",
        f"--metadata-from-file=startup-script={GIVE_BACK}",
    ]
