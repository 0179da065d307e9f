"""The work directory of a job, wherever it is."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from evads_jax.errors import UserError
from evads_jax.storage.folders import OPEN, mirror_of
from evads_jax.storage.mirror import Mirror
from evads_jax.storage.place import local_folder, url_of
from evads_jax.storage.store import Bucket

EVERY = 60.0  # seconds between two pushes where the job itself asks for none


@contextlib.contextmanager
def run_folder(workdir: str | None) -> Iterator[Path | None]:
    """The local folder of a work directory, for as long as a job works in it.

    Of one in a bucket it is the mirror: fetched before, pushed afterwards, however the job ends, and every `EVERY`
    seconds meanwhile.

    Args:
      workdir: what the user named; None for none.

    Raises:
      UserError: the bucket cannot be used. After a job that failed by itself this is only told.
    """
    url = url_of(workdir)
    if url is None:
        yield Path(workdir) if workdir else None
        return
    mirror = Mirror(Bucket(url), url, local_folder(url), writes())
    mirror.fetch()
    _wait_for_all()
    OPEN[mirror.folder] = mirror
    try:
        with _pushing(mirror):
            yield mirror.folder
    except BaseException:
        try:
            mirror.push()
        except UserError as error:
            print(f"evads_jax: {error}", file=sys.stderr)
        raise
    else:
        mirror.push()
    finally:
        del OPEN[mirror.folder]


def push(path: str | Path) -> None:
    """Takes up what has changed in the mirror that `path` lies in; nothing where it lies in none.

    Raises:
      UserError: the bucket cannot be used.
    """
    if (mirror := mirror_of(path)) is not None:
        mirror.push()


def writes() -> bool:
    """Whether this is the one process of the job that writes to buckets."""
    import jax  # not before it is needed

    return not jax.distributed.is_initialized() or jax.process_index() == 0


def _wait_for_all() -> None:
    """Until every process has fetched, none writes."""
    import jax
    from jax.experimental import multihost_utils

    if jax.distributed.is_initialized() and jax.process_count() > 1:
        multihost_utils.sync_global_devices("the run's folder is here")


@contextlib.contextmanager
def _pushing(mirror: Mirror) -> Iterator[None]:
    """Pushes now and then, beside the job; a push that fails is told by the next one that the job asks for."""
    ended = threading.Event()

    def now_and_then() -> None:
        while not ended.wait(EVERY):
            with contextlib.suppress(UserError, OSError):
                mirror.push()

    thread = threading.Thread(target=now_and_then, daemon=True)
    if mirror.writes:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.is_alive():
            thread.join()
