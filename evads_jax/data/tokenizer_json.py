"""A sentencepiece tokenizer of this project as a `tokenizer.json`, so that other programs can use an exported model.

Both give a text the same ids, but for two things: here no text becomes a special token, there `<|im_start|>` in a text
does, as in Qwen's own; and U+2581, which sentencepiece writes for a space, is a space there and itself here.
"""

import json
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2

_SPACE = "\u2581"


def to_tokenizer_json(model: Path) -> str:
    """The content of a `tokenizer.json` with the pieces and ids of a `tokenizer.model`.

    Learned pieces become merges: every way to make a piece of two others, in the order in which pieces were learned.
    Constants become added tokens, which are found in a text before anything is merged.

    Args:
      model: the file, as `train_sentencepiece` writes it.
    """
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made when it is imported
    proto.ParseFromString(model.read_bytes())
    kinds = proto.SentencePiece
    learned = [piece.piece for piece in proto.pieces if piece.type == kinds.NORMAL]
    known, merges = set(learned), []
    for piece in sorted(learned, key={p.piece: -p.score for p in proto.pieces}.__getitem__):
        halves = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        merges += [[a, b] for a, b in halves if a in known and b in known]
    vocabulary, added = {}, []
    for index, piece in enumerate(proto.pieces):
        constant = piece.type == kinds.USER_DEFINED
        # An added token is looked for in the text as it is, before spaces are rewritten.
        name = piece.piece.replace(_SPACE, " ") if constant else piece.piece
        vocabulary[name] = index
        if constant or piece.type == kinds.CONTROL:
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            added.append({"id": index, "content": name, **flags, "special": not constant})
    spaces: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": a}, "content": b} for a, b in ((" ", _SPACE), (_SPACE, " "))
    ]
    content = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": spaces[0],
        "decoder": {"type": "Sequence", "decoders": [spaces[1], {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": False,
            "byte_fallback": True,
            "vocab": vocabulary,
            "merges": merges,
        },
    }
    return json.dumps(content, ensure_ascii=False)
