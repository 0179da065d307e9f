"""Fails loudly where what is installed is not what the lock says: `check_versions.py requirements/tpu.txt`."""

import importlib.metadata
import re
import sys
from pathlib import Path

PACKAGES = ("jax", "jaxlib", "libtpu")


def differences(lock: str) -> list[str]:
    """A line for each package of `PACKAGES` that is not installed in the locked version."""
    locked = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lock, re.M))
    lines = []
    for name in PACKAGES:
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed = "absent"
        if installed != locked.get(name):
            lines.append(f"{name} is {installed}, the lock says {locked.get(name, 'nothing')}")
    return lines


if __name__ == "__main__":
    if found := differences(Path(sys.argv[1]).read_text()):
        sys.exit("version mismatch: " + "; ".join(found))
