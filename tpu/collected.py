"""What was copied from the bucket, made what the job has left: `python3 -m tpu.collected FOLDER`.

In the bucket a log is a row of numbered parts (`evads_jax.storage.parts`); here each becomes a file again. The parts
go, so that those of a log that was begun anew never lie beside those of the one before.
"""

import shutil
import sys
from pathlib import Path

from evads_jax import whole
from evads_jax.errors import UserError
from evads_jax.storage.parts import log_of, put_together


def join(folder: Path) -> None:
    """Puts every log under a folder together.

    Raises:
      UserError: a part is missing; what was joined before stays.
      OSError: a file cannot be read or written.
    """
    for parts in sorted(path for path in folder.rglob("*.parts") if path.is_dir()):
        names = [name for path in parts.iterdir() if log_of(name := f"{parts.name}/{path.name}")]
        content, _ = put_together(names, lambda name, home=parts.parent: (home / name).read_bytes())  # type: ignore[misc]
        whole.write(parts.with_suffix(""), content)
        shutil.rmtree(parts)


if __name__ == "__main__":
    try:
        join(Path(sys.argv[1]))
    except (UserError, OSError) as error:
        sys.exit(f"tpu/collected: {error}")
