"""Parts on Apache Beam (extra `beam`): the same part files as the local processes write, byte for byte.

Each part is one element. A part whose file exists is skipped, so a pipeline that was stopped goes on where it was. The
folder of the results must be one that all workers see (a disk here, a mounted bucket elsewhere).
"""

import importlib.util
import os
import re
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evads_jax.density.measure import Tools, make_tools
from evads_jax.density.scale.parts import Part, check_failures, count_failures, has_media, run_part
from evads_jax.density.settings import MeasureSettings
from evads_jax.errors import UserError

if TYPE_CHECKING or importlib.util.find_spec("apache_beam"):
    import apache_beam as beam
else:
    beam = None

_TOLD = re.compile(r"\bUserError: (.*?)(?: \[while running '[^']*'\])?$", re.MULTILINE)
_DoFn: Any = beam.DoFn if beam else object


def run_beam(
    parts: Sequence[Part], settings: MeasureSettings, folder: Path, *, options: Sequence[str], max_bad_share: float
) -> None:
    """Measures all parts on the runner that the options name, the DirectRunner by default.

    Args:
        parts: the corpus.
        settings: the rules.
        folder: of the results, seen by all workers.
        options: Beam pipeline options, e.g. `--runner=FlinkRunner`.
        max_bad_share: of the corpus that may fail. A worker stops its part-stream when its own failures pass it; the
            exact check follows at the end.

    Raises:
        UserError: Beam is not installed, a worker could not load its tools, or too many videos failed.
    """
    if beam is None:
        raise UserError("Apache Beam is not installed", "config.run.runner", "pip install 'evads_jax[beam]'")
    from apache_beam.options.pipeline_options import PipelineOptions

    folder.mkdir(parents=True, exist_ok=True)
    total = sum(len(part.items) for part in parts)
    measured = MeasurePart(settings, str(folder), total, max_bad_share, has_media(parts))
    try:
        with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
            _ = (
                pipeline
                | "parts" >> beam.Create(list(parts))
                | "spread" >> beam.Reshuffle()
                | "measure" >> beam.ParDo(measured)
            )
    except Exception as error:
        # Beam adds its step to what a worker raised; of a worker elsewhere only the text arrives.
        if told := _TOLD.search(f"{type(error).__name__}: {error}"):
            raise UserError(told[1]) from error
        raise
    failures = Counter[str]()
    for part in parts:
        failures += count_failures(part, folder)
    check_failures(failures, total, max_bad_share)


class MeasurePart(_DoFn):
    """Measures a part and writes its file; tools are loaded once a worker.

    Args:
        settings: the rules.
        folder: of the results.
        total: videos of the corpus.
        max_bad_share: of it that may fail.
        media: whether it has videos, and not annotations alone.
    """

    def __init__(self, settings: MeasureSettings, folder: str, total: int, max_bad_share: float, media: bool):
        self._settings, self._folder, self._total, self._share = settings, folder, total, max_bad_share
        self._media = media
        self._tools: Tools | None = None
        self._failures = Counter[str]()

    def process(self, part: Part) -> Iterator[tuple[int, int]]:
        """Yields (part number, failed videos)."""
        folder = Path(self._folder)
        if not part.done(folder).exists():
            if self._tools is None:
                self._tools = make_tools(self._settings, self._media)
            # A runner may give one part to two workers: their unfinished files must differ.
            run_part(part, self._tools, self._settings, folder, owner=f".{socket.gethostname()}.{os.getpid()}")
        failures = count_failures(part, folder)
        self._failures += failures
        check_failures(self._failures, self._total, self._share)
        yield part.number, failures.total()

    def teardown(self) -> None:
        """Ends what a worker holds."""
        if self._tools is not None:
            self._tools.close()
            self._tools = None
