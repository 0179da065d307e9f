"""From clips of products to `ClipBatch`es: pictures decoded, texts cut into tokens, everything padded to one shape."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import UInt8

from evads_jax.data.media import decode_jpeg
from evads_jax.data.products.records import ProductClip, spread
from evads_jax.data.tokenizer import Tokenizer, tokenizer_file
from evads_jax.errors import UserError
from evads_jax.models.cope.batch import ClipBatch
from evads_jax.models.cope.config import CopeConfig


@dataclasses.dataclass(frozen=True)
class Words:
    """How a text becomes token ids: one that stands for the whole text, its pieces, and perhaps one that ends it.

    Attributes:
      size: ids are below this.
      first: the id that comes first.
      last: the id that comes last; None for none.
      pieces: text → ids of its pieces.
    """

    size: int
    first: int
    last: int | None
    pieces: Callable[[str], list[int]]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Words":
        """With a tokenizer of the project: the id that begins a turn comes first."""
        return cls(tokenizer.size, tokenizer.ids.im_start, None, tokenizer.encode)

    @classmethod
    def bert(cls, folder: str | Path) -> "Words":
        """With the word pieces of a BERT folder (vocab.txt), local or in a bucket, as Chinese RoBERTa has them.

        Raises:
          UserError: no such file, or one without [CLS] and [SEP].
        """
        path = tokenizer_file(folder, "vocab.txt")
        if not path.is_file():
            raise UserError("no vocab.txt", str(folder), "name the folder of a BERT model")
        pieces = tokenizers.BertWordPieceTokenizer(str(path))
        first, last = pieces.token_to_id("[CLS]"), pieces.token_to_id("[SEP]")
        if first is None or last is None:
            raise UserError("a vocabulary without [CLS] and [SEP]", str(path), "name that of a BERT model")
        return cls(pieces.get_vocab_size(), first, last, _WordPieces(pieces))

    def encode(self, text: str, most: int) -> list[int]:
        """The ids of a text, at most so many; none of a text that says nothing."""
        ids = self.pieces(text) if text.strip() else []
        ends = [] if self.last is None else [self.last]
        return [self.first, *ids[: most - 1 - len(ends)], *ends] if ids else []


class _WordPieces:
    """Text → ids of word pieces; a class, because Grain workers pickle it."""

    def __init__(self, pieces: tokenizers.BertWordPieceTokenizer):
        self._pieces = pieces

    def __call__(self, text: str) -> list[int]:
        return self._pieces.encode(text, add_special_tokens=False).ids


@dataclasses.dataclass(frozen=True)
class ClipItem:
    """A clip as arrays, not padded.

    Attributes:
      frames: 8-bit RGB; F = 0 for a clip without picture.
      tokens: token ids; none for a clip without text.
    """

    frames: UInt8[np.ndarray, "F H W 3"]
    tokens: tuple[int, ...]


class ClipInputs:
    """Builds items and batches for one model.

    Args:
      words: how its texts become tokens.
      config: its sizes.
    """

    def __init__(self, words: Words, config: CopeConfig):
        self.words = words
        self._size, self._frames, self._tokens = config.frame_size, config.frames, config.text_tokens
        self.nothing = ClipItem(np.zeros((0, self._size, self._size, 3), np.uint8), ())

    def item(self, clip: ProductClip) -> ClipItem:
        """A clip as arrays.

        Raises:
          UserError: a picture that cannot be read, or of another size than the model's.
        """
        tokens = tuple(self.words.encode(clip.text, self._tokens))
        if not clip.frames:
            return dataclasses.replace(self.nothing, tokens=tokens)
        try:
            frames = [decode_jpeg(clip.frames[i]) for i in spread(len(clip.frames), self._frames)]
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for damaged files
            raise UserError(f"a picture cannot be read ({' '.join(str(error).split())})", clip.id) from error
        if wrong := [f.shape for f in frames if f.shape != (self._size, self._size, 3)]:
            what = f"a picture of {wrong[0][1]}×{wrong[0][0]} pixels, the model sees {self._size}×{self._size}"
            raise UserError(what, clip.id, "prepare the shards with this model's frame_size")
        return ClipItem(np.stack(frames), tokens)

    def cut(self, text: str) -> bool:
        """Whether a text has more pieces than the model reads."""
        return len(self.words.encode(text, 1 << 30)) > self._tokens

    def collate(self, items: Sequence[ClipItem], domain: str) -> ClipBatch:
        """Items of one domain as a batch; a page has one frame, the others the model's most.

        Raises:
          ValueError: a page with several pictures.
        """
        B, F = len(items), 1 if domain == "page" else self._frames
        frames = np.zeros((B, F, self._size, self._size, 3), np.uint8)
        tokens = np.zeros((B, self._tokens), np.int32)
        for row, item in enumerate(items):
            if len(item.frames) > F:
                raise ValueError(f"{len(item.frames)} frames of a {domain}")
            frames[row, : len(item.frames)] = item.frames
            tokens[row, : len(item.tokens)] = item.tokens
        arrays: dict[str, Any] = {"frames": frames, "tokens": tokens}
        arrays["frame_count"] = np.array([len(item.frames) for item in items], np.int32)
        arrays["token_count"] = np.array([len(item.tokens) for item in items], np.int32)
        return ClipBatch(**arrays)
