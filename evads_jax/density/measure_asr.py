"""Writes docs/density.md's accuracy of ASR: character error rate by language and noise, on sentences of rendered ads.

python -m evads_jax.density.measure_asr --model=DIR --out=docs/density.md

The sentences are spoken by espeak-ng; DIR is the folder of a faster-whisper model.
"""

import argparse
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evads_jax.data.records import Event
from evads_jax.data.render.script import draw_script
from evads_jax.data.render.speech import speak, speaker
from evads_jax.density.extract.ocr import edit_distance
from evads_jax.density.extract.speech import Transcriber, WhisperTranscriber, transcribe
from evads_jax.density.measure_released import replace_block
from evads_jax.density.settings import SpeechSettings
from evads_jax.errors import UserError

LANGUAGES = ("en", "zh")
NOISES = (None, 20.0, 5.0)  # decibels by which the voice is above white noise; None: no noise
SENTENCES = 20
SECONDS = 15  # more than any of the sentences takes


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="folder of a faster-whisper model")
    parser.add_argument("--out", required=True, type=Path, help="the page whose block `asr` is replaced")
    options = parser.parse_args(arguments)
    page = options.out.read_text(encoding="utf-8")
    hearers = {
        language: WhisperTranscriber(SpeechSettings(model=options.model, language=language)) for language in LANGUAGES
    }
    options.out.write_text(replace_block(page, "asr", accuracy_table(hearers)), encoding="utf-8")


def accuracy_table(hearers: Mapping[str, Transcriber]) -> str:
    """Character error rate in percent: a row a language, a column a noise.

    Raises:
        UserError: no voice is installed.
    """
    if speaker() == "tones":
        raise UserError("no voice", "espeak-ng", "install it: without one nothing is spoken that could be heard")
    heads = ["no noise" if noise is None else f"noise {noise:g} dB below" for noise in NOISES]
    lines = ["| language | " + " | ".join(heads) + " |", "|---" * (1 + len(NOISES)) + "|"]
    for language, hearer in hearers.items():
        rates = [error_rate(sentences(language), language, hearer, noise) for noise in NOISES]
        lines.append(f"| {language} | " + " | ".join(f"{100 * rate:.1f} %" for rate in rates) + " |")
    return "\n".join(lines)


def sentences(language: str) -> list[str]:
    """Different sentences that rendered ads speak."""
    scenes = (scene for seed in range(SENTENCES) for scene in draw_script(seed, language).scenes)
    return list(dict.fromkeys(said for scene in scenes for said in scene.sentences))[:SENTENCES]


def error_rate(texts: list[str], language: str, hearer: Transcriber, noise: float | None) -> float:
    """Edits over characters; case, spaces and punctuation do not count.

    Args:
        texts: the sentences, each spoken on its own.
        language: of the voice.
        hearer: what hears them.
        noise: decibels by which the voice is above white noise; None: no noise.
    """
    edits = 0
    for number, text in enumerate(texts):
        audio = speak((Event(0, SECONDS - 1, (), text),), SECONDS, language)
        heard = transcribe(audio if noise is None else noisy(audio, noise, number), hearer)
        edits += edit_distance(letters(text), letters("".join(segment.text for segment in heard)))
    return edits / sum(len(letters(text)) for text in texts)


def noisy(audio: np.ndarray, decibels: float, seed: int) -> np.ndarray:
    """Audio with white noise over all of it, so many decibels below the mean power of what is not silent."""
    loud = audio[audio != 0]
    power = float(np.mean(np.square(loud))) if len(loud) else 0.0
    deviation = (power * 10 ** (-decibels / 10)) ** 0.5
    return (audio + np.random.default_rng(seed).normal(0, deviation, len(audio))).astype(np.float32)


def letters(text: str) -> str:
    """What of a text counts: its letters and digits in one case and width."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


if __name__ == "__main__":
    main()
