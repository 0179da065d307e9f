"""Decoding in a process of its own, with a limit on time and memory: a bad file costs one failure, never the job.

`python -m evads_jax.density.scale.decoder MEBIBYTES` is the child. Over its pipes go, in each direction, a line of JSON
and then, from the child, the raw bytes of frames and audio that the line announces.
"""

import json
import os
import resource
import select
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import numpy as np

from evads_jax.data import media
from evads_jax.data.media import Media

CHUNK = 1 << 20


@dataclass(frozen=True)
class Failure:
    """Why a video gave no media.

    Attributes:
        kind: a kind of `data.media.MediaFailure`, or "timeout", "memory", "crashed".
        detail: one line.
    """

    kind: str
    detail: str


class GuardedDecoder:
    """Decodes files in a child process, which is replaced after it was killed or died.

    Args:
        seconds: time a file may take.
        mebibytes: address space of the child.
    """

    def __init__(self, seconds: float, mebibytes: int):
        self._seconds, self._mebibytes = seconds, mebibytes
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self, path: str, frame_rate: float, max_frames: int, size: int) -> Media | Failure:
        """Like `data.media.decode`, with failures of the process as values too."""
        child = self._started()
        request = {"path": path, "frame_rate": frame_rate, "max_frames": max_frames, "size": size}
        deadline = time.monotonic() + self._seconds
        try:
            assert child.stdin is not None
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
            return self._answer(_Pipe(child, deadline))
        except TimeoutError:
            self.close()
            return Failure("timeout", f"not decoded within {self._seconds:g} s")
        except (EOFError, BrokenPipeError):
            code = child.wait()
            self.close()
            return Failure("crashed", f"the decoder ended with code {code}")

    def close(self) -> None:
        """Ends the child; the next call starts another."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.close()
            command = [sys.executable, "-m", "evads_jax.density.scale.decoder", str(self._mebibytes)]
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._child

    def _answer(self, pipe: "_Pipe") -> Media | Failure:
        head = json.loads(pipe.line())
        if "kind" in head:
            return Failure(head["kind"], head["detail"])
        frames = [np.frombuffer(pipe.take(int(np.prod(s))), np.uint8).reshape(s) for s in head["shapes"]]
        audio = np.frombuffer(pipe.take(4 * head["samples"]), np.float32) if head["samples"] is not None else None
        return Media(frames, tuple(head["times"]), head["duration"], audio)


class _Pipe:
    """The child's answers, read until a deadline."""

    def __init__(self, child: subprocess.Popen[bytes], deadline: float):
        assert child.stdout is not None
        self._file = child.stdout.fileno()
        self._deadline, self._held = deadline, bytearray()

    def line(self) -> bytes:
        while (end := self._held.find(b"\n")) < 0:
            self._more()
        return self.take(end + 1)

    def take(self, count: int) -> bytes:
        while len(self._held) < count:
            self._more()
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    def _more(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0 or not select.select([self._file], [], [], left)[0]:
            raise TimeoutError
        data = os.read(self._file, CHUNK)
        if not data:
            raise EOFError
        self._held += data


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """The child's loop: one answer a request, until the pipe closes."""
    for line in requests:
        arrays: list[np.ndarray] = []
        try:
            found = media.decode(**json.loads(line))
            head, arrays = _packed(found)
        except MemoryError:
            head = asdict(Failure("memory", "more memory than a decoder may use"))
        answers.write(json.dumps(head).encode() + b"\n")
        for array in arrays:
            answers.write(array.tobytes())
        answers.flush()


def _packed(found: Media | media.MediaFailure) -> tuple[dict[str, Any], list[np.ndarray]]:
    if isinstance(found, media.MediaFailure):
        out_of_memory = "Cannot allocate memory" in found.detail
        return asdict(Failure("memory" if out_of_memory else found.kind, found.detail)), []
    head = {
        "shapes": [frame.shape for frame in found.frames],
        "times": found.times,
        "duration": found.duration,
        "samples": None if found.audio is None else len(found.audio),
    }
    return head, [*found.frames, *([] if found.audio is None else [found.audio])]


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]) << 20,) * 2)
    serve(sys.stdin.buffer, sys.stdout.buffer)
