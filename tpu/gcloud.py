"""Runs the planned commands and reads their answers; the only place of this folder that touches the world."""

import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from evads_jax.errors import UserError
from tpu import collected, plan
from tpu.backends import BACKENDS
from tpu.plan import Command, Request
from tpu.supervise import Seen, Worker

# Answers to a request that another try cannot change. «There is no more capacity» is not one of them.
_REFUSALS = re.compile(r"quota|PERMISSION_DENIED|INVALID_ARGUMENT|UNAUTHENTICATED|does not have permission", re.I)
_EXISTS = re.compile(r"ALREADY_EXISTS|already exists", re.I)
_ABSENT = re.compile(r"NOT_FOUND|not found", re.I)
_WORKER = re.compile(r"^evads-worker (\d+) (\w+) (\d+|-) (-?\d+)\s*$", re.M)
_AT_ONCE = 32  # workers that are spoken to
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
        self._backend = BACKENDS[request.backend]
        self._machines: list[str] = []
        self.refused = ""

    def slice(self) -> Seen:
        """What became of the slice."""
        printed = []
        for command in self._backend.describe(self._request):
            done = self._run(command, 120.0)
            if done.returncode:
                return Seen.ABSENT if _ABSENT.search(done.stderr) else Seen.UNKNOWN
            printed.append(done.stdout)
        seen, self._machines, trouble = self._backend.read(self._request, printed)
        if seen is Seen.WAITING and _REFUSALS.search(trouble):
            self.refused = _reason(trouble)
        return seen

    def workers(self) -> dict[int, Worker]:
        """The workers that answered; some may, some may not."""
        told = "".join(done.stdout for done in self._tell(plan.probe(self._request), 120.0))
        return {
            int(number): Worker(phase, None if code == "-" else int(code), float(age))
            for number, phase, code, age in _WORKER.findall(told)
        }

    def do(self, deed: str, attempt: int) -> None:
        """One deed of the state machine; what became of it is seen at the next look."""
        request, seconds = self._request, _SECONDS.get(deed, 600.0)
        if deed == "delete":
            self.refused = ""  # the next slice may be had
        if deed in ("setup", "start", "stop"):
            script = {"setup": plan.setup(request), "start": plan.start(request, attempt), "stop": plan.stop(request)}
            failed = [done for done in self._tell(script[deed], seconds) if done.returncode]
            if failed:
                self._say(f"{deed} failed ({failed[0].returncode}): {_reason(failed[0].stderr)}")
            return
        commands = {
            "pack": lambda: plan.pack(request, self._archive),
            "create": lambda: self._backend.create(request),
            "collect": lambda: [plan.collect(request)],
            "delete": lambda: self._backend.delete(request),
        }[deed]()
        # Of several things to create some may be left from before, of several to delete some may be gone.
        done_before = {"create": _EXISTS, "delete": _ABSENT}.get(deed)
        for command in commands:
            done = self._run(command, seconds)
            if done.returncode == 0 or (done_before and done_before.search(done.stderr)):
                continue
            reason = _reason(done.stderr)
            if deed == "pack":
                self.refused = f"the code could not be put into the bucket: {reason}"
            elif deed == "create" and _REFUSALS.search(done.stderr):
                self.refused = reason
            self._say(f"{deed} failed ({done.returncode}): {reason}")
            return
        if deed == "collect":
            try:
                collected.join(Path(request.collect))
            except (UserError, OSError) as error:  # a slice is still to be given back
                self._say(f"collect failed: {error}")

    def _tell(self, script: str, seconds: float) -> "list[subprocess.CompletedProcess[str]]":
        """Runs a script on every worker."""
        commands = self._backend.ssh(self._request, self._machines, script)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(lambda command: self._run(command, seconds), commands))

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
