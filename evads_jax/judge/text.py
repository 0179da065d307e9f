"""Text as the lexical judge sees it: normalised tokens, and which of them stand under a negation.

A token is an English word in its stem, a number, one Chinese (or kana, hangul) character, `BREAK` where punctuation
ends a clause, or `SPACE` where Chinese phrases are set apart by one. Matching token sequences keeps word boundaries by
itself: «red» is not in «covered».
"""

import dataclasses
import functools
import re
import unicodedata

from evads_jax.judge import words

BREAK, SPACE = "|", " "

_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af\U00020000-\U0003ffff"
_TOKEN = re.compile(
    rf"[a-z]+(?:'[a-z]+)*|\d+(?:\.\d+)?|[{_CJK}]|[^\W\d_a-z{_CJK}]+"
    rf"|(?<=[{_CJK}])\s+(?=[{_CJK}])|[^\s\-_*~`·•、]"
)
_CJK_TOKEN = re.compile(rf"[{_CJK}]")
_COMBINING = re.compile("[\u0300-\u036f]")
_INVISIBLE = dict.fromkeys(
    c
    for c in (*range(0x3000), *range(0xFE00, 0xFF00), *range(0xE0000, 0xE0080))
    if unicodedata.category(chr(c)) == "Cf"
) | dict.fromkeys(range(0xFE00, 0xFE10))
_SPELLED = re.compile(
    r"(?<![a-z])(?:[a-z][ .\-_*·|/]{1,2}){2,}[a-z](?![a-z])"
    rf"|(?<![{_CJK}])(?:[{_CJK}][ .\-_*·|/])+[{_CJK}](?![{_CJK}])"
)
_SEPARATOR = re.compile(r"[ .\-_*·|/]")


def normalise(text: str) -> str:
    """The text without what does not change its reading.

    Compatibility forms (full width, circled, mathematical letters) become plain ones, case and accents go, and so do
    invisible characters (zero-width, direction marks, soft hyphens, variation selectors) and look-alike letters of
    other scripts. Words spelled with separators («r-e-d», «红 色») are joined.
    """
    if not text.isascii():
        text = _COMBINING.sub("", unicodedata.normalize("NFKD", text))
        text = unicodedata.normalize("NFC", text).translate(_INVISIBLE).casefold().translate(words.LOOKALIKES)
    text = text.casefold()
    return _SPELLED.sub(lambda match: _SEPARATOR.sub("", match.group()), text)


def _stem(word: str) -> str:
    """An English word without its plural or possessive ending."""
    word = word.removesuffix("'s")
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        if word.endswith("ies") and len(word) > 4:
            word = word[:-3] + "y"
        elif word.endswith(("sses", "xes", "zes", "ches", "shes")):
            word = word[:-2]
        else:
            word = word[:-1]
    return words.SPELLINGS.get(word, word)


def is_cjk(token: str) -> bool:
    """Whether a token is a single Chinese, Japanese or Korean character."""
    return _CJK_TOKEN.match(token) is not None


def tokenise(text: str) -> tuple[str, ...]:
    """Tokens of a text; hyphens, enumeration commas and markup marks leave no trace."""
    return tuple(_token(match) for match in _TOKEN.findall(normalise(text)))


@functools.lru_cache(maxsize=1 << 16)
def _token(match: str) -> str:
    if match[0].isalnum():
        return _stem(match) if match.isascii() else match
    return SPACE if match.isspace() else BREAK


def _phrases() -> dict[str, list[tuple[tuple[str, ...], int]]]:
    """Negators and their look-alikes by first token, longest first; a scope of 0 marks a look-alike."""
    entries = [(tokenise(phrase), words.WIDE) for phrase in words.WIDE_NEGATORS]
    entries += [(tokenise(phrase), words.NARROW) for phrase in words.NARROW_NEGATORS]
    entries += [(tokenise(phrase), 0) for phrase in words.NOT_NEGATORS]
    table: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for phrase, scope in sorted(entries, key=lambda entry: -len(entry[0])):
        table.setdefault(phrase[0], []).append((phrase, scope))
    return table


_NEGATORS = _phrases()
_RETRACTIONS = tuple(tokenise(phrase) for phrase in words.RETRACTIONS)


def _scopes(tokens: tuple[str, ...]) -> tuple[bool, ...]:
    """For each token whether it stands within the scope of a negator to its left, in the same clause."""
    if not any(token in _NEGATORS for token in tokens):
        return (False,) * len(tokens)
    denied, left, i = [False] * len(tokens), 0, 0
    while i < len(tokens):
        for phrase, scope in _NEGATORS.get(tokens[i], ()):
            if tokens[i : i + len(phrase)] == phrase:
                left = scope or left
                i += len(phrase)
                break
        else:
            left = 0 if tokens[i] == BREAK or tokens[i] in words.RESETS else left
            denied[i] = left > 0
            left = max(left - (tokens[i] != SPACE), 0)
            i += 1
    return tuple(denied)


@dataclasses.dataclass(frozen=True)
class Tokens:
    """A tokenised text.

    Attributes:
      tokens: its tokens, breaks and spaces included.
      denied: for each token whether a negation covers it.
      length: tokens that are neither; a very long word counts once per 12 letters.
    """

    tokens: tuple[str, ...]
    denied: tuple[bool, ...]
    length: int

    @property
    def plain(self) -> str:
        """The tokens as text again: Chinese without spaces, words and numbers set apart by one."""
        return "".join(t if is_cjk(t) or t in (BREAK, SPACE) else f" {t} " for t in self.tokens)

    def taken_back(self, end: int) -> bool:
        """Whether the words that end before position `end` are taken back by what follows («red is wrong»)."""
        end += self.tokens[end : end + 1] == (SPACE,)
        return any(self.tokens[end : end + len(phrase)] == phrase for phrase in _RETRACTIONS)


def read(text: str) -> Tokens:
    """Tokenises a text and marks what it denies."""
    tokens = tokenise(text)
    length = sum(1 + len(token) // 12 for token in tokens if token not in (BREAK, SPACE))
    return Tokens(tokens, _scopes(tokens), length)
