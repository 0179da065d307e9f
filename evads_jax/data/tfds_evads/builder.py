"""`evads` for tensorflow-datasets.

    from evads_jax.data.tfds_evads import Evads, to_record
    builder = Evads(shards="runs/mg_grpo/shards", data_dir="tfds", file_format="array_record")
    builder.download_and_prepare()
    record = to_record(builder.as_data_source(split="test")[0])

Nothing here needs TensorFlow: files are ArrayRecord, media are stored as the bytes they are.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from evads_jax.data import serial, shards
from evads_jax.data.records import VideoRecord
from evads_jax.errors import UserError

# Bytes: TFDS's own image, audio and video features need TensorFlow.
_BYTES = tfds.features.Scalar(np.object_)


class Evads(tfds.core.GeneratorBasedBuilder):
    """E-commerce short videos with time-aligned events and questions.

    Args:
      shards: the folder of a run's splits (`W/shards`); needed to prepare, not to read.
      **kwargs: of `tfds.core.DatasetBuilder`; give `file_format="array_record"`.
    """

    name = "evads"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}

    def __init__(self, *, shards: str | Path | None = None, **kwargs: Any):
        self._folder = None if shards is None else Path(shards)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self,
            description="E-commerce short videos: frames, sound, overlay and speech events, questions with clues.",
            features=tfds.features.FeaturesDict(
                {
                    "video": text,
                    "category": text,
                    "duration": np.float64,
                    "frames": tfds.features.Sequence(_BYTES),  # JPEG
                    "times": tfds.features.Sequence(np.float64),
                    "audio": _BYTES,  # FLAC, empty for a silent video
                    "events": tfds.features.Sequence({"start": np.int32, "end": np.int32, "ocr": text, "asr": text}),
                    "questions": tfds.features.Sequence(
                        {"id": text, "question": text, "answer": text, "clues": text, "task": text}
                    ),
                    "header": text,  # everything but the media, as in the shards
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Mapping[str, Iterator[Any]]:
        if self._folder is None or not self._folder.is_dir():
            raise UserError("no folder of shards", str(self._folder), "give Evads(shards=…) the shards of a run")
        splits = sorted(path.parent.name for path in self._folder.glob("*/manifest.json"))
        if not splits:
            raise UserError("no finished shards", str(self._folder), "prepare them first")
        return {split: self._generate_examples(shards.open(self._folder, split)) for split in splits}

    def _generate_examples(self, source: shards.RecordSource) -> Iterator[tuple[str, dict[str, Any]]]:
        for index in range(len(source)):
            record = source[index]
            yield record.video, _to_features(record)


def _to_features(record: VideoRecord) -> dict[str, Any]:
    return {
        "video": record.video,
        "category": record.category or "",
        "duration": record.duration,
        "frames": list(record.frames),
        "times": list(record.times),
        "audio": record.audio or b"",
        "events": [
            {"start": e.start, "end": e.end, "ocr": json.dumps(e.ocr, ensure_ascii=False), "asr": e.asr or ""}
            for e in record.events
        ],
        "questions": [
            {"id": q.id, "question": q.question, "answer": q.answer, "clues": q.clues, "task": q.task or ""}
            for q in record.questions
        ],
        "header": serial.header(record),
    }


def to_record(features: Mapping[str, Any]) -> VideoRecord:
    """The `VideoRecord` of an example as `as_data_source` gives it."""
    header = features["header"]
    text = header.decode() if isinstance(header, bytes) else str(header)
    return serial.assemble(text, tuple(bytes(frame) for frame in features["frames"]), bytes(features["audio"]))
