"""A side of a benchmark that does not live through its first step."""

import sys
import tempfile

from benchmarks.sides import Channel

channel = Channel()
print("all is well", file=sys.stderr, flush=True)
with tempfile.TemporaryDirectory() as folder:
    channel.say(folder=folder)
    channel.hear()
    raise MemoryError("no more")
