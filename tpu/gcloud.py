"""Runs the planned commands and reads their answers; the only place of this folder that touches the world."""

import re
import subprocess
from collections.abc import Callable

from tpu import plan
from tpu.plan import Command, Request
from tpu.supervise import Seen, Worker

# What queued resources say, and what it means here.
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
# Answers to `create` that another try cannot change. «There is no more capacity» is not one of them.
_REFUSALS = re.compile(r"quota|PERMISSION_DENIED|INVALID_ARGUMENT|UNAUTHENTICATED|does not have permission", re.I)
_EXISTS = re.compile(r"ALREADY_EXISTS|already exists", re.I)
_ABSENT = re.compile(r"NOT_FOUND|not found", re.I)
_WORKER = re.compile(r"^evads-worker (\d+) (\w+) (\d+|-) (-?\d+)\s*$", re.M)
_SECONDS = {"pack": 600.0, "create": 600.0, "setup": 600.0, "start": 180.0, "stop": 180.0, "collect": 3600.0}


class Gcloud:
    """A slice behind the `gcloud` command.

    Args:
      request: what is wanted.
      archive: local file for the packed code.
      say: shows a line to the user.
    """

    def __init__(self, request: Request, archive: str, say: Callable[[str], None]):
        self._request, self._archive, self._say = request, archive, say
        self.refused = ""

    def slice(self) -> Seen:
        """What became of the slice."""
        done = self._run(plan.describe(self._request), 120.0)
        if done.returncode == 0:
            return _STATES.get(done.stdout.strip(), Seen.UNKNOWN)
        return Seen.ABSENT if _ABSENT.search(done.stderr) else Seen.UNKNOWN

    def workers(self) -> dict[int, Worker]:
        """The workers that answered; some may, some may not."""
        done = self._run(plan.probe(self._request), 120.0)
        return {
            int(number): Worker(phase, None if code == "-" else int(code), float(age))
            for number, phase, code, age in _WORKER.findall(done.stdout)
        }

    def do(self, deed: str, attempt: int) -> None:
        """One deed of the state machine; what became of it is seen at the next look."""
        commands = {
            "pack": lambda: plan.pack(self._request, self._archive),
            "create": lambda: [plan.create(self._request)],
            "setup": lambda: [plan.setup(self._request)],
            "start": lambda: [plan.start(self._request, attempt)],
            "stop": lambda: [plan.stop(self._request)],
            "collect": lambda: [plan.collect(self._request)],
            "delete": lambda: [plan.delete(self._request)],
        }[deed]()
        for command in commands:
            done = self._run(command, _SECONDS.get(deed, 600.0))
            if done.returncode == 0:
                continue
            reason = _reason(done.stderr)
            if deed == "pack":
                self.refused = f"the code could not be put into the bucket: {reason}"
            elif deed == "create" and not _EXISTS.search(done.stderr) and _REFUSALS.search(done.stderr):
                self.refused = reason
            self._say(f"{deed} failed ({done.returncode}): {reason}")
            return

    def _run(self, command: Command, seconds: float) -> "subprocess.CompletedProcess[str]":
        try:
            # In a session of its own: Ctrl-C is for the launcher, which still has a slice to give back.
            return subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, check=False, start_new_session=True,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", f"no answer within {seconds:g} s")
        except OSError as error:
            return subprocess.CompletedProcess(command, 127, "", f"{command[0]}: {error.strerror}")


def _reason(stderr: str) -> str:
    """The line of an error output that says most."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    telling = [line for line in lines if "ERROR" in line or _REFUSALS.search(line)]
    return (telling or lines or ["no reason given"])[0][:300]
