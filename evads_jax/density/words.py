"""What counts as a word. The paper counts words without saying which rule it used; here are two, by name.

Both work on NFKC text, so full-width letters count like their narrow forms and `①` like `1`; combining marks and
joiners belong to the character before them, so composed and decomposed text count alike.

* `cjk_char_latin_run` (default): one for every character of a script that Chinese and Japanese write without spaces
  (Han, kana, bopomofo) and one for every unbroken run of other letters and digits. `买2支iPhone15` is 4: 买, 2, 支,
  iPhone15. An apostrophe, hyphen or decimal point ends a run: `don't` is 2 and `9.9` is 2. Korean, which
  writes spaces, counts by its space-separated parts. So does Thai, which does not: a Thai sentence is one run, and its
  density an undercount.
* `non_space_char`: one for every character that is neither a space nor a mark: punctuation and emoji count too.
"""

import functools
import unicodedata
from collections.abc import Callable

DEFAULT_RULE = "cjk_char_latin_run"

# Code points of letters and numbers that stand for a word each: radicals, 々〇 and kana, bopomofo, Han and its
# extensions. Punctuation inside these ranges is not a letter and never counts.
ONE_EACH = (
    (0x2E80, 0x312F),
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x1AFF0, 0x1B16F),
    (0x20000, 0x3FFFF),
)


def cjk_char_latin_run(text: str) -> int:
    """Counts characters of Han, kana and bopomofo one by one, and other letters and digits by unbroken run."""
    count, in_run = 0, False
    for character in unicodedata.normalize("NFKC", text):
        kind = unicodedata.category(character)
        if kind[0] == "M" or kind == "Cf":
            continue
        if kind[0] not in "LN":
            in_run = False
        elif any(low <= ord(character) <= high for low, high in ONE_EACH):
            count, in_run = count + 1, False
        else:
            count, in_run = count + (not in_run), True
    return count


def non_space_char(text: str) -> int:
    """Counts every character but spaces, controls, combining marks and joiners."""
    return sum(
        not character.isspace() and unicodedata.category(character)[0] not in "MC"
        for character in unicodedata.normalize("NFKC", text)
    )


WORD_RULES: dict[str, Callable[[str], int]] = {
    rule.__name__: functools.lru_cache(maxsize=65536)(rule) for rule in (cjk_char_latin_run, non_space_char)
}
