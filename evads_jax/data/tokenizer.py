"""Text ↔ token ids: a sentencepiece trained on the corpus for small models, a `tokenizer.json` for Qwen.

Both keep one promise: **text never becomes a special token.** `encode(text)` gives the ids of the characters, whatever
they spell; only `encode(text, specials=True)`, used by the chat format for texts of its own, turns `<|im_start|>` and
its kind into their ids. Nothing is downloaded and nothing is unpickled.
"""

import collections
import dataclasses
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import sentencepiece
import tokenizers

from evads_jax import storage, whole
from evads_jax.data.prompts import TAGS
from evads_jax.errors import UserError

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
VIDEO_PAD, IMAGE_PAD, PAD = "<|video_pad|>", "<|image_pad|>", "<|endoftext|>"
_CONTROL = (IM_START, IM_END, VISION_START, VISION_END, VIDEO_PAD, IMAGE_PAD)

_SPACE = "\u2581"  # sentencepiece writes a space like this; one that stands in a text goes through bytes
_BYTES = 256


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """The ids of the tokens that no text can produce; `eos` ends a turn (`<|im_end|>`), `pad` fills arrays."""

    im_start: int
    im_end: int
    vision_start: int
    vision_end: int
    video_pad: int
    image_pad: int
    pad: int
    eos: int


class Tokenizer(Protocol):
    """What the project needs of a tokenizer.

    Attributes:
      ids: the special ids.
      specials: special string → id, for every string that `encode(…, specials=True)` turns into one id.
      size: ids are below this.
    """

    ids: SpecialIds
    specials: Mapping[str, int]
    size: int

    def encode(self, text: str, specials: bool = False) -> list[int]:
        """The ids of a text; special strings in it become special ids only on request."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special ones as their strings; bytes that are no UTF-8 become U+FFFD."""
        ...

    def save(self, folder: str | Path) -> None:
        """Writes what `load_tokenizer` reads."""
        ...


class _Base:
    """Splits at special strings; a subclass encodes what lies between them."""

    ids: SpecialIds
    specials: Mapping[str, int]
    _pattern: re.Pattern[str]

    def _set_specials(self, specials: Mapping[str, int], where: str) -> None:
        wanted = {"im_start": IM_START, "im_end": IM_END, "vision_start": VISION_START, "vision_end": VISION_END}
        wanted |= {"video_pad": VIDEO_PAD, "image_pad": IMAGE_PAD, "pad": PAD, "eos": IM_END}
        if missing := sorted({text for text in wanted.values() if text not in specials}):
            raise UserError(f"the tokenizer has no {', '.join(missing)}", where, "give a Qwen-VL tokenizer")
        self.specials = dict(specials)
        self.ids = SpecialIds(**{name: specials[text] for name, text in wanted.items()})
        # The longest first, so that no special string hides another that starts with it.
        self._pattern = re.compile("|".join(re.escape(s) for s in sorted(specials, key=len, reverse=True)))

    def encode(self, text: str, specials: bool = False) -> list[int]:
        """See `Tokenizer.encode`."""
        if not specials:
            return self._plain(text)
        ids, at = [], 0
        for match in self._pattern.finditer(text):
            ids += self._plain(text[at : match.start()])
            ids.append(self.specials[match[0]])
            at = match.end()
        return ids + self._plain(text[at:])

    def _plain(self, text: str) -> list[int]:
        raise NotImplementedError


class SentencePieceTokenizer(_Base):
    """A sentencepiece model written by `train_sentencepiece`; any text survives encoding and decoding.

    Args:
      model: the serialised model.
      where: its file, for messages.
    """

    def __init__(self, model: bytes, where: str = ""):
        self._model = model
        try:
            self._sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise UserError("not a sentencepiece model", where, "train one, or give the right file") from error
        self.size = self._sp.get_piece_size()
        names = [self._sp.id_to_piece(i) for i in range(self.size)]
        self._surface = [self._bytes_of(i, name) for i, name in enumerate(names)]
        special = (*_CONTROL, PAD, *TAGS)
        self._set_specials({name: i for i, name in enumerate(names) if name in special}, where)
        self._space = [self._sp.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE.encode()]

    def _bytes_of(self, index: int, piece: str) -> bytes:
        if self._sp.is_byte(index):
            return bytes([int(piece[3:5], 16)])
        return piece.replace(_SPACE, " ").encode()

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(text.split(_SPACE)):
            ids += self._space if i else []
            ids += self._sp.encode(part.replace(" ", _SPACE)) if part else []
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer.decode`."""
        return b"".join(self._surface[i] for i in ids).decode("utf-8", "replace")

    def save(self, folder: str | Path) -> None:
        """See `Tokenizer.save`."""
        whole.write(Path(folder) / "tokenizer.model", self._model)


class HuggingFaceTokenizer(_Base):
    """A `tokenizer.json` of Qwen's family.

    Added tokens, special or not (`<think>` is an added token that is not special), are matched in a text only with
    `specials=True`, where the result equals the library's own.

    Args:
      text: the content of the file.
      where: the file, for messages.
    """

    def __init__(self, text: str, where: str = ""):
        self._text = text
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise UserError("not a tokenizer.json", where, "give the file of a Qwen-VL model") from error
        self.size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self._set_specials({token.content: i for i, token in self._tokenizer.get_added_tokens_decoder().items()}, where)

    def _plain(self, text: str) -> list[int]:
        # Cutting each special string after its first character leaves no part that contains one.
        ids: list[int] = []
        at = 0
        while match := self._pattern.search(text, at):
            ids += self._ids(text[at : match.start() + 1])
            at = match.start() + 1
        return ids + self._ids(text[at:])

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """See `Tokenizer.decode`."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def save(self, folder: str | Path) -> None:
        """See `Tokenizer.save`."""
        whole.write(Path(folder) / "tokenizer.json", self._text.encode())


def train_sentencepiece(
    texts: Iterable[str], vocabulary: int, path: str | Path, constants: Iterable[str] = (), longest_piece: int = 16
) -> SentencePieceTokenizer:
    """Trains a small tokenizer and writes it to `path`/tokenizer.model.

    Byte-pair merges inside words, with byte fallback, so that every text can be written. Pieces never cross a space:
    a model that has always seen «red mug» as one piece could not say «red» of another product. What is constant is
    given as `constants` instead and is one piece each, spaces and line ends included. The same texts give the same
    bytes. A corpus that supports fewer pieces than asked gives a smaller vocabulary.

    Args:
      texts: the corpus, e.g. `prompts.corpus(examples)`; repeated texts weigh more.
      vocabulary: the most pieces.
      path: the folder to write to.
      constants: texts that become one piece each, e.g. `prompts.constants()`.
      longest_piece: the most characters of a learned piece.

    Raises:
      UserError: there is no text, or `vocabulary` is too small for the bytes and the special tokens.
    """
    corpus = [text.replace(_SPACE, " ").replace(" ", _SPACE) for text in texts if text.strip()]
    fixed = [text.replace(" ", _SPACE) for text in dict.fromkeys(constants)]
    control = (*_CONTROL, *TAGS)
    free = vocabulary - _BYTES - len(control) - len(fixed) - 2
    if not corpus:
        raise UserError("no text to train a tokenizer on", str(path), "check the data's questions and answers")
    if free < 2:
        least = vocabulary - free + 2
        raise UserError(f"a vocabulary of {vocabulary} is too small", "tokenizer.vocabulary", f"use at least {least}")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_without_rare(corpus, free // 2)),
        model_writer=model,
        vocab_size=vocabulary,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_by_whitespace=True,
        split_digits=True,
        max_sentencepiece_length=longest_piece,
        max_sentence_length=1 << 20,
        control_symbols=list(control),
        user_defined_symbols=fixed,
        pad_id=0,
        pad_piece=PAD,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    tokenizer = SentencePieceTokenizer(model.getvalue(), str(path))
    tokenizer.save(path)
    return tokenizer


def load_tokenizer(kind: str, path: str | Path) -> Tokenizer:
    """Reads a tokenizer.

    Args:
      kind: "sentencepiece" or "huggingface".
      path: the folder with `tokenizer.model` or `tokenizer.json`, or the file itself; also in a bucket (`gs://…`).

    Raises:
      UserError: unknown kind, no such file, or a file of another form.
    """
    names = {"sentencepiece": "tokenizer.model", "huggingface": "tokenizer.json"}
    if kind not in names:
        raise UserError(f"unknown tokenizer kind {kind!r}", "tokenizer.kind", f"use one of {', '.join(names)}")
    file = tokenizer_file(path, names[kind])
    try:
        content = file.read_bytes()
        if kind == "sentencepiece":
            return SentencePieceTokenizer(content, str(file))
        return HuggingFaceTokenizer(content.decode(), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("no readable tokenizer", str(file), "set tokenizer.path to the folder that holds it") from error


def tokenizer_file(path: str | Path, name: str) -> Path:
    """The file of a tokenizer on this machine, which need not be there.

    Args:
      path: the folder that holds it, or the file itself; one in a bucket is fetched.
      name: how it is called.

    Raises:
      UserError: the bucket cannot be used, or does not hold it.
    """
    if (url := storage.url_of(path)) is not None:
        return storage.fetched(url.removesuffix(f"/{name}"), name) / name
    return Path(path) / name if Path(path).is_dir() else Path(path)


def find_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder: `tokenizer.model` in an export of a small model, else `tokenizer.json`.

    Such an export has both; only the first keeps specials out of texts exactly as in training.

    Raises:
      UserError: as `load_tokenizer`.
    """
    small = (Path(folder) / "tokenizer.model").is_file()
    return load_tokenizer("sentencepiece" if small else "huggingface", folder)


def _without_rare(texts: list[str], most: int) -> list[str]:
    """The texts, cut where a character stands that is not among the `most` most frequent ones.

    Only the rest is learned from; the rare characters go through bytes. (sentencepiece's own `character_coverage` stops
    at .98, too high for a Chinese corpus and a small vocabulary.)
    """
    counts = collections.Counter("".join(texts))
    rare = sorted(counts, key=lambda c: (-counts[c], c))[most:]
    cut = dict.fromkeys(map(ord, rare), "\0")
    return [part for text in texts for part in text.translate(cut).split("\0") if part]
