"""Videos of shards, through the loader that training reads them with.

A part of a corpus of shards is one shard, measured from some record to its end: so the loader goes through the file in
order, and reads and decodes the next records while one is measured. What cannot be read or decoded is a value: it costs
one video, never the ones behind it. Where a process has died over a part, its records are read one at a time: what
kills the next one is the record in work.
"""

from array_record.python import array_record_module

from evads_jax.data import media, serial
from evads_jax.data.loader import Loader, make_loader
from evads_jax.data.media import Media
from evads_jax.data.records import VideoRecord
from evads_jax.density.scale.decoder import Failure

Video = tuple[VideoRecord | None, Media | Failure]  # None: not even the record could be read


class ShardVideos:
    """The videos of shard files; one file is open at a time.

    Attributes:
        ahead: whether the next records are read while one is measured.
    """

    def __init__(self, ahead: bool = True) -> None:
        self.ahead = ahead
        self._file = ""
        self._records: _Records | None = None
        self._loader: Loader[Video] | None = None

    def __call__(self, file: str, position: int) -> Video:
        """A video of a shard file; the one after the last that was asked for is at hand already.

        Args:
            file: the shard.
            position: which of its records.
        """
        if self._records is None or file != self._file:
            self.close()
            try:
                self._records = _Records(file)
            except (RuntimeError, ValueError, OSError) as error:
                return None, _bad(error)
            self._file = file
        if position >= len(self._records):
            return None, Failure("bad_record", f"the shard ends before record {position}")
        if not self.ahead:
            return _decoded(self._records[position], None)
        if self._loader is None:
            self._loader = make_loader(
                self._records, _decoded, lambda videos: videos[0], batch=1, shuffle=False, epochs=1
            )
        if self._loader.get_state()["batches"] != position:
            self._loader.set_state({"batches": position})
        return next(self._loader)

    def close(self) -> None:
        """Reads no further ahead."""
        if self._loader is not None:
            self._loader.set_state({"batches": 0})
        self._records = self._loader = None


class _Records:
    """The records of one shard file, whose hash was checked when the corpus was listed."""

    def __init__(self, file: str):
        self._reader = array_record_module.ArrayRecordReader(file)
        self.questions = (0,) * self._reader.num_records()

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> VideoRecord | Failure:
        try:
            return serial.unpack(self._reader.read([index])[0])
        except Exception as error:
            return _bad(error)


def _decoded(record: VideoRecord | Failure, _: None) -> Video:
    if isinstance(record, Failure):
        return None, record
    try:
        frames = [media.decode_jpeg(data) for data in record.frames]
        audio = None if record.audio is None else media.decode_flac(record.audio)
    except Exception as error:
        return record, _bad(error)
    return record, Media(frames, tuple(record.times), record.duration, audio)


def _bad(error: Exception) -> Failure:
    return Failure("bad_record", " ".join(str(error).split()))
