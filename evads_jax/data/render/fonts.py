"""Fonts for overlays: Pillow's own for Latin text, a CJK font where the machine has one."""

import functools
import shutil
import subprocess
from pathlib import Path

from PIL import ImageFont

_PATHS = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/google-noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
    "/System/Library/Fonts/PingFang.ttc",
    "/System/Library/Fonts/STHeiti Light.ttc",
    "C:/Windows/Fonts/msyh.ttc",
)
_SYLLABLES = [consonant + vowel for consonant in "bdfghklmnprstwz" for vowel in "aeiou"]


@functools.cache
def cjk_font() -> str | None:
    """The file of a font with Chinese letters; None where none is found."""
    for path in _PATHS:
        if Path(path).is_file():
            return path
    if shutil.which("fc-list") is None:
        return None
    command = ["fc-list", ":lang=zh", "--format=%{file}\n"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")
    return min((path for path in listed if Path(path).is_file()), default=None)


@functools.lru_cache(maxsize=8)
def font(size: int, cjk: bool) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """A font of so many pixels; `cjk` asks for Chinese letters, where there are any."""
    path = cjk_font() if cjk else None
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


def latin(text: str) -> str:
    """A text in letters that any font has: each other letter becomes a syllable, always the same one.

    It keeps how much is written and what is repeated, not what it means.
    """
    words: list[str] = []
    for character in text:
        if character.isascii():
            words.append(character)
        elif character.isalnum():
            words.append(_SYLLABLES[ord(character) % len(_SYLLABLES)])
        elif words and words[-1] != " ":
            words.append(" ")
    return "".join(words).strip()
