"""One video → its measurement: media, features, overlays, words, densities; whatever fails is a value."""

import dataclasses

import numpy as np

from evads_jax.data.media import Media
from evads_jax.data.records import Event, VideoRecord
from evads_jax.density.extract import ocr, speech
from evads_jax.density.extract.features import FrameFeatures, make_features
from evads_jax.density.extract.ocr import OverlayReader, RapidOCRReader
from evads_jax.density.extract.speech import Transcriber, WhisperTranscriber
from evads_jax.density.extract.timeline import overlays_of, speech_of, spread, to_events
from evads_jax.density.extract.transcripts import UnreadableTranscript, read_transcript
from evads_jax.density.items import Item
from evads_jax.density.measurement import Measurement
from evads_jax.density.scale.decoder import Failure, GuardedDecoder
from evads_jax.density.scale.records import ShardVideos
from evads_jax.density.settings import MeasureSettings
from evads_jax.density.text import TextDensity, overlay_density, speech_density
from evads_jax.density.visual.kernel import VisualDensity, visual_density


@dataclasses.dataclass(frozen=True)
class Tools:
    """What a worker holds from video to video: models are loaded once.

    Attributes:
        features, reader, transcriber: None where the settings ask for none, or its extra is not there.
        decode: path, frame rate, most frames, size → media or failure.
        records: shard file, position → record and media, or failure.
    """

    features: FrameFeatures | None
    reader: OverlayReader | None
    transcriber: Transcriber | None
    decode: GuardedDecoder
    records: ShardVideos

    def close(self) -> None:
        """Ends the decoder's process and what is read ahead."""
        self.decode.close()
        self.records.close()


def make_tools(settings: MeasureSettings, has_media: bool = True) -> Tools:
    """Loads what the settings name.

    Args:
        settings: the engines.
        has_media: False for annotations alone, which need no model.

    Raises:
        UserError: weights, a model or an extra is missing that was asked for by name.
    """
    wants_ocr = settings.ocr.engine == "rapidocr" or (settings.ocr.engine == "auto" and ocr.installed())
    wants_asr = settings.speech.engine == "whisper" or (settings.speech.engine == "auto" and settings.speech.model)
    return Tools(
        features=make_features(settings.features) if has_media else None,
        reader=RapidOCRReader() if has_media and wants_ocr else None,
        transcriber=WhisperTranscriber(settings.speech) if has_media and wants_asr else None,
        decode=GuardedDecoder(settings.decode_seconds, settings.decode_mebibytes),
        records=ShardVideos(),
    )


@dataclasses.dataclass(frozen=True)
class _Channel:
    """Texts by second, or why there are none."""

    seconds: dict | None
    missing: str = ""


def measure(item: Item, tools: Tools, settings: MeasureSettings) -> Measurement:
    """Measures one video.

    A video whose media fails keeps what its annotations give; the rest is missing under the failure's kind.

    Args:
        item: the video.
        tools: the extractors.
        settings: the rules.
    """
    item, found = _media(item, tools, settings)
    failure = found if isinstance(found, Failure) else None
    played = found if isinstance(found, Media) else None
    stated = item.duration
    duration = stated if stated is not None else played.duration if played else None
    overlays = _overlays(item, tools, settings, played, failure)
    words = _words(item, tools, settings, played, failure)
    events = to_events(overlays.seconds or {}, words.seconds or {})
    texts = {
        "A_den": _text(words, events, duration, speech_density, settings),
        "O_den": _text(overlays, events, duration, overlay_density, settings),
    }
    names, seen = _visual(tools, settings, played, failure)
    results: dict[str, VisualDensity | TextDensity] = {**dict.fromkeys(names, seen), **texts}
    missing = {k: r.missing or "not measured" for k, r in results.items() if r.value is None}
    if "V_den" not in results:
        missing["V_den"] = f"no DINOv3 weights; measured as {names[0]}"
    return Measurement(
        video=item.name,
        category=item.category,
        duration=duration,
        values={k: r.value for k, r in results.items() if r.value is not None},
        missing=missing,
        curves={k: r.curve for k, r in results.items() if r.value is not None},
        failure=(failure.kind, failure.detail) if failure else None,
        frames=len(played.frames) if played else 0,
        bad_frames=seen.bad_frames,
        events=events if settings.keep_events else None,
    )


def open_media(
    item: Item, tools: Tools, *, frame_rate: float, size: int, max_frames: int = 240
) -> tuple[Item, Media | Failure | None]:
    """A video's frames and sound; None for annotations alone.

    Args:
        item: the video.
        tools: whose decoder reads files, and whose loader reads shards.
        frame_rate: of decoded files; shards hold what they hold.
        size: longer side of their frames.
        max_frames: the most of them.

    Returns:
        The item, for a shard record with its name and annotations, and the media or why there is none.
    """
    if item.broken is not None:
        return item, Failure(*item.broken)
    if item.record is not None:
        record, found = tools.records(*item.record)
        return item if record is None else _of_record(item, record), found
    if item.path is None:
        return item, None
    return item, tools.decode(item.path, frame_rate, max_frames, size)


def _media(item: Item, tools: Tools, settings: MeasureSettings) -> tuple[Item, Media | Failure | None]:
    reads = _reads(item, tools, settings)
    return open_media(
        item,
        tools,
        frame_rate=max(settings.features.frame_rate, settings.ocr.frame_rate if reads else 0.0),
        size=max(tools.features.frame_size if tools.features else 64, settings.ocr.frame_size if reads else 0),
        max_frames=settings.features.max_frames,
    )


def _of_record(item: Item, record: VideoRecord) -> Item:
    """The item with what its shard record says of it."""
    evidence = record.events if record.judge_events is None else record.judge_events
    return dataclasses.replace(
        item,
        name=record.video,
        category=record.category,
        duration=record.annotated_duration,
        events=evidence or None,
    )


def _reads(item: Item, tools: Tools, settings: MeasureSettings) -> bool:
    """Whether OCR runs on this video: never where annotations already say what is written."""
    return tools.reader is not None and (settings.ocr.engine == "rapidocr" or item.events is None)


def _overlays(
    item: Item, tools: Tools, settings: MeasureSettings, played: Media | None, failure: Failure | None
) -> _Channel:
    engine = settings.ocr.engine
    if engine == "none":
        return _Channel(None, "not asked for")
    if _reads(item, tools, settings) and tools.reader is not None:
        if played is None:
            return _Channel(None, failure.kind if failure else "no media")
        every = _every(played.times, settings.ocr.frame_rate)
        readings = [tools.reader(played.frames[i]) for i in every]
        return _Channel(ocr.merge(readings, [played.times[i] for i in every], settings.ocr, played.duration))
    if item.events is None:
        return _Channel(None, "no events" if engine == "events" else "no events, and RapidOCR is not installed")
    return _Channel(overlays_of(item.events))


def _every(times: tuple[float, ...], rate: float) -> list[int]:
    """Indices of the frames to read: the first at or after each moment k / rate."""
    moments = np.arange(0, (times[-1] if times else 0) + 1e-6, 1 / rate)
    return sorted(set(np.searchsorted(np.asarray(times) + 1e-6, moments).clip(0, len(times) - 1))) if times else []


def _words(
    item: Item, tools: Tools, settings: MeasureSettings, played: Media | None, failure: Failure | None
) -> _Channel:
    engine = settings.speech.engine
    if engine == "none":
        return _Channel(None, "not asked for")
    if engine in ("auto", "transcripts") and item.transcript:
        try:
            return _Channel(spread(read_transcript(item.transcript)))
        except UnreadableTranscript as error:
            return _Channel(None, f"unreadable transcript: {error}")
    if engine == "transcripts":
        return _Channel(None, "no transcript")
    if engine in ("auto", "events") and item.events is not None:
        return _Channel(speech_of(item.events))
    if engine == "events":
        return _Channel(None, "no events")
    if tools.transcriber is None:
        return _Channel(None, "no transcript, no events and no ASR model")
    if played is None:
        return _Channel(None, failure.kind if failure else "no media")
    return _Channel(spread(speech.transcribe(played.audio, tools.transcriber)) if played.audio is not None else {})


def _text(channel: _Channel, events: tuple[Event, ...], duration: float | None, density, settings) -> TextDensity:
    if channel.seconds is None:
        return TextDensity(None, channel.missing)
    if duration is None:
        return TextDensity(None, "unknown duration")
    return density(events, duration, settings.text)


def _visual(
    tools: Tools, settings: MeasureSettings, played: Media | None, failure: Failure | None
) -> tuple[list[str], VisualDensity]:
    names = [tools.features.metric] if tools.features else ["V_den"]
    if played is None:
        return names, VisualDensity(None, failure.kind if failure else "annotations hold no pictures")
    if tools.features is None:
        return names, VisualDensity(None, "not asked for")
    step = settings.features.frame_rate
    every = _every(played.times, step)
    features = tools.features([played.frames[i] for i in every])
    times = np.array([played.times[i] for i in every], np.float64)
    return names, visual_density(features, times, played.duration, settings.visual)
