"""A store in memory that can be killed at any change, before or after it took effect."""

import base64
import hashlib
from pathlib import Path

from evads_jax.errors import UserError
from evads_jax.storage import Object


class Killed(BaseException):
    """The process ends here."""


class Memory:
    """Objects by name.

    Attributes:
      objects: name → bytes.
      changes: what was put and deleted, in order.
      left: changes until the process is killed; None for never.
      arrives: whether the change at which it is killed takes effect.
    """

    def __init__(self):
        self.objects: dict[str, bytes] = {}
        self.changes: list[tuple[str, str]] = []
        self.left: int | None = None
        self.arrives = False

    def list(self):
        return {
            name: Object(len(data), base64.b64encode(hashlib.md5(data).digest()).decode())
            for name, data in self.objects.items()
        }

    def get(self, name):
        return self.objects.get(name)

    def get_file(self, name, path):
        if name not in self.objects:
            raise FileNotFoundError(name)
        path.write_bytes(self.objects[name])

    def put(self, name, data, new=False):
        held = data.read_bytes() if isinstance(data, Path) else data
        if new and self.objects.get(name, held) != held:
            raise UserError("another process writes to the same folder of the bucket", name)
        self._change("put", name, lambda: self.objects.update({name: held}))

    def delete(self, name):
        self._change("delete", name, lambda: self.objects.pop(name, None))

    def _change(self, kind, name, take_effect):
        if self.left == 0:
            if self.arrives:
                take_effect()
            raise Killed
        self.left = None if self.left is None else self.left - 1
        take_effect()
        self.changes.append((kind, name))
