"""Programs that are timed in turn, each in a process of its own that stays up and is told over a pipe when to work.

The parent starts a `Side`, which answers once when it is ready, and then `ask`s; the child answers through a `Channel`.
Requests are words, answers are JSON objects, one a line. Every answer holds the most memory that the process has had.
"""

import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUR_MODULE = "benchmarks.ours"
PATIENCE = 5.0  # seconds that a child has to go by itself
# As `make train` has it, for both sides, and nothing is downloaded.
ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0"
    ":glibc.malloc.trim_threshold=17179869184",
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    "HF_HUB_OFFLINE": "1",
}


class Side:
    """A child process.

    This project's own side runs in the environment of `make train` where that is made: in the peers', one of the
    packages that it uses finds torch and imports it, which is memory that no user of this project spends.

    Args:
      module: run as `python -m`; its one argument is `spec`.
      spec: what it is to do, as JSON.

    Attributes:
      ready: its first answer.

    Raises:
      RuntimeError: the child ended, with the end of what it had printed.
    """

    def __init__(self, module: str, spec: Mapping[str, Any]):
        environment = ENVIRONMENT | dict(os.environ)
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  # `close` does
        own = ROOT / ".venv" / "bin" / "python"
        python = str(own) if module == OUR_MODULE and own.exists() else sys.executable
        self._process = subprocess.Popen(
            [python, "-m", module, json.dumps(spec)],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        try:
            self.ready = self._answer()
        except BaseException:  # an interrupt too: nobody else knows the child yet
            self.close()
            raise

    def ask(self, word: str) -> dict[str, Any]:
        """The child's answer.

        Raises:
          RuntimeError: as the constructor.
        """
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # it is dead; what it said tells more
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the child: one that waits goes when its input ends and removes its files; one at work is killed."""
        try:
            self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._log.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            raise RuntimeError(f"{self._process.args!r} ended:\n" + self._log.read()[-4000:])
        return dict(json.loads(line))


class Channel:
    """The child's end. What anything else prints goes to the standard error."""

    def __init__(self):
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def say(self, **fields: Any) -> None:
        """Answers."""
        self._out.write(json.dumps(fields | {"peak_bytes": peak_bytes()}) + "\n")
        self._out.flush()

    def hear(self) -> str:
        """The next request. Without one, the parent is gone and so is this process."""
        line = sys.stdin.readline()
        return line.strip() if line else sys.exit(0)


@contextlib.contextmanager
def started(specs: Mapping[str, tuple[str, Mapping[str, Any]]]) -> Iterator[dict[str, Side]]:
    """Sides by name from their (module, spec); ended on the way out."""
    sides: dict[str, Side] = {}
    try:
        for name, (module, spec) in specs.items():
            sides[name] = Side(module, spec)
        yield sides
    finally:
        for side in sides.values():
            side.close()


def in_turn(sides: Mapping[str, Side], word: str, rounds: int, warmups: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Asks all sides in turn (A B A B …), after each one's warm-ups.

    Returns:
      Per side the median of each number of its answers, `seconds` among them, its largest `peak_bytes`, and all
      `rounds`.
    """
    for name, side in sides.items():
        for _ in range(warmups[name]):
            side.ask(word)
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            answers[name].append(side.ask(word))
    found = {}
    for name, given in answers.items():
        medians = {key: statistics.median(answer[key] for answer in given) for key in given[0]}
        all_rounds = [answer["seconds"] for answer in given]
        found[name] = medians | {"peak_bytes": max(answer["peak_bytes"] for answer in given), "rounds": all_rounds}
    return found


def peak_bytes() -> int:
    """The most memory that this process has had resident: VmHWM where the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def bound_memory(share: float = 0.9) -> None:
    """Has this process fail, not the machine, when it wants more than this share of the memory that is free now."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                most = int(share * 1024 * int(line.split()[1]))
                resource.setrlimit(resource.RLIMIT_DATA, (most, most))
