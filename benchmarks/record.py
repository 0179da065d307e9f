"""What a long benchmark has measured so far, kept in a file so that the same command goes on where it was stopped."""

import datetime
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evads_jax import whole
from evads_jax.errors import UserError
from evads_jax.workdir import environment

PACKAGES = ("jax", "torch", "transformers", "trl")
NOT_INSTALLED = "not installed"


class Record:
    """Measurements by name, all of one machine, commit and set of packages, made with the same options.

    Args:
      path: the file; None keeps nothing.
      **options: of the command, whatever changes what is measured.

    Attributes:
      found: the measurements, as JSON.
      about: machine, commit, packages, options and date of the first measurement.

    Raises:
      UserError: the file is of another machine, commit, set of packages or option.
    """

    def __init__(self, path: Path | None, **options: Any):
        where = environment()
        self._path, self.found = path, dict[str, Any]()
        self.about = {name: where[name] for name in ("processor", "cores", "commit")} | versions() | options
        dated = self.about | {"date": datetime.datetime.now(datetime.UTC).date().isoformat()}
        if path is not None and path.exists():
            held = json.loads(path.read_text(encoding="utf-8"))
            differing = [name for name, value in self.about.items() if held["about"].get(name) != value]
            if differing:
                what = f"its measurements differ in {', '.join(differing)} from what would be measured now"
                raise UserError(what, str(path), "name a new file")
            self.found, dated = held["found"], held["about"]
        self.about = dated

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """The measurement of a name; it is made where the file does not hold it."""
        if name not in self.found:
            print(f"{name} …", flush=True)
            self.found[name] = measure()
            if self._path is not None:
                whole.write(self._path, json.dumps({"about": self.about, "found": self.found}, indent=2) + "\n")
        return self.found[name]

    def described(self, command: str) -> str:
        """A line for a page: the command, and where and when it was run."""
        about = self.about
        installed = ", ".join(f"{name} {about[name]}" for name in PACKAGES if about[name] != NOT_INSTALLED)
        machine = f"{about['processor']}, {about['cores']} cores"
        rounds = f"; {about['rounds']} rounds" if "rounds" in about else ""
        return f"`{command}`, {about['date']}, commit {about['commit']}, {machine}; {installed}; float32{rounds}."


def versions() -> dict[str, str]:
    """The packages that are compared."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = NOT_INSTALLED
    return found
