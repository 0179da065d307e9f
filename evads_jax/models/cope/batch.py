"""What the model is called with, clips of one domain, and what it gives: three unit vectors for each of them."""

import jax
from flax import struct
from jaxtyping import Array, Bool, Float, Int, UInt8


@struct.dataclass
class ClipBatch:
    """B clips of one domain, right-padded. A page's picture is a clip of one frame.

    Frames and tokens beyond the counts may hold anything. F and T are what the batch needs, at most the config's
    `frames` and `text_tokens`: a batch of pages has one frame.

    Attributes:
      frames: 8-bit RGB.
      frame_count: real frames; 0 for a clip without picture.
      tokens: token ids; the first stands for the whole text ([CLS] in BERT's vocabulary).
      token_count: real tokens, the first included; 0 for a clip without text.
    """

    frames: UInt8[Array, "B F H W 3"]
    frame_count: Int[Array, " B"]
    tokens: Int[Array, "B T"]
    token_count: Int[Array, " B"]

    def has(self, kind: str) -> Bool[Array, " B"]:
        """Which clips have what an embedding of this kind is made of.

        Args:
          kind: "visual", "text", or "fused", which needs either.
        """
        visual, text = self.frame_count > 0, self.token_count > 0
        return {"visual": visual, "text": text, "fused": visual | text}[kind]


@struct.dataclass
class Embeddings:
    """Three embeddings of each of B clips, each of length 1.

    Attributes:
      visual: of the frames.
      text: of the text.
      fused: of both.
    """

    visual: Float[Array, "B E"]
    text: Float[Array, "B E"]
    fused: Float[Array, "B E"]


def unit(x: Float[Array, "*n E"]) -> Float[Array, "*n E"]:
    """Vectors divided by their lengths, in float32; a vector of zeros stays zero, and its gradient finite."""
    wide = x.astype("float32")
    return wide * jax.lax.rsqrt((wide * wide).sum(axis=-1, keepdims=True) + 1e-12)
