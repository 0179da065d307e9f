"""What one measurement depends on, as plain values that travel to worker processes and into a hash."""

import dataclasses
import hashlib
import json

from ml_collections import config_dict

from evads_jax.density.text import TextSettings
from evads_jax.density.visual.settings import VisualSettings
from evads_jax.errors import UserError

ENGINES = {
    "visual.features": ("auto", "dinov3", "dinov3_random", "blocks", "none"),
    "visual.pool": ("cls", "patches"),
    "ocr.engine": ("auto", "events", "rapidocr", "none"),
    "asr.engine": ("auto", "events", "transcripts", "whisper", "none"),
    "run.runner": ("local", "beam"),
}
POSITIVE = (
    "visual.image_size",
    "visual.batch",
    "visual.frame_rate",
    "visual.max_frames",
    "ocr.frame_rate",
    "ocr.frame_size",
    "run.videos_per_part",
    "run.decode_seconds",
    "run.decode_mebibytes",
    "report.bootstrap",
    "report.bins",
)


@dataclasses.dataclass(frozen=True)
class FeatureSettings:
    """Frames → features; the fields of `config.visual` that are not the formula's."""

    features: str = "auto"
    model: str | None = None
    pool: str = "cls"
    image_size: int = 224
    batch: int = 16
    frame_rate: float = 2.0
    max_frames: int = 2400

    @property
    def kind(self) -> str:
        """`features` with "auto" resolved: dinov3 where a model is named, else blocks."""
        return ("dinov3" if self.model else "blocks") if self.features == "auto" else self.features


@dataclasses.dataclass(frozen=True)
class OcrSettings:
    """Frames → overlay texts; the fields of `config.ocr`."""

    engine: str = "auto"
    frame_rate: float = 1.0
    frame_size: int = 640
    min_confidence: float = 0.6
    min_overlap: float = 0.5
    max_distance: float = 0.3


@dataclasses.dataclass(frozen=True)
class SpeechSettings:
    """Audio → words; the fields of `config.asr`."""

    engine: str = "auto"
    model: str | None = None
    language: str | None = None


@dataclasses.dataclass(frozen=True)
class MeasureSettings:
    """Everything that a video's line in videos.jsonl depends on, besides the video."""

    visual: VisualSettings = dataclasses.field(default_factory=VisualSettings)
    text: TextSettings = dataclasses.field(default_factory=TextSettings)
    features: FeatureSettings = dataclasses.field(default_factory=FeatureSettings)
    ocr: OcrSettings = dataclasses.field(default_factory=OcrSettings)
    speech: SpeechSettings = dataclasses.field(default_factory=SpeechSettings)
    decode_seconds: float = 120.0
    decode_mebibytes: int = 4096
    keep_events: bool = False

    @classmethod
    def from_config(cls, config: config_dict.ConfigDict) -> "MeasureSettings":
        """Takes the fields of configs/density.py.

        Raises:
            UserError: a field that is not one of its choices, or a number that is not positive.
        """
        for name, choices in ENGINES.items():
            section, field = name.split(".")
            if config[section][field] not in choices:
                raise UserError(
                    f"unknown {field} {config[section][field]!r}", f"config.{name}", "one of " + ", ".join(choices)
                )
        for name in POSITIVE:
            section, field = name.split(".")
            if not config[section][field] > 0:
                raise UserError(f"{field} is {config[section][field]}, not positive", f"config.{name}")
        v = config.visual
        return cls(
            visual=VisualSettings(v.alpha, v.per, v.radius, v.unit, v.shape, v.weighting),
            text=TextSettings(**config.text),
            features=FeatureSettings(**{f.name: v[f.name] for f in dataclasses.fields(FeatureSettings)}),
            ocr=OcrSettings(**config.ocr),
            speech=SpeechSettings(**config.asr),
            decode_seconds=config.run.decode_seconds,
            decode_mebibytes=config.run.decode_mebibytes,
            keep_events=config.write_events,
        )

    @property
    def rules(self) -> dict[str, str]:
        """The rule behind each metric, as tables and corpus.json state it."""
        seen = f"{self.visual.rule}; {self.features.frame_rate:g} fps, {self.features.pool}"
        return {
            "V_den": seen,
            "V_random": f"{seen}; drawn weights",
            "V_blocks": f"{self.visual.rule}; {self.features.frame_rate:g} fps, colour and gradient blocks",
            "A_den": self.text.words,
            "O_den": f"{self.text.words}, {self.text.ocr_counting}",
        }

    def digest(self, *more: object) -> str:
        """A hash of these settings and whatever else a result depends on."""
        text = json.dumps([dataclasses.asdict(self), *more], sort_keys=True, default=dataclasses.asdict)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
