"""How tokens are sampled."""

import dataclasses
import itertools


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """Static: a jitted sampler is compiled per value.

    Attributes:
      max_new_tokens: S, tokens of the longest sample.
      temperature: logits are divided by it; 0 takes the most likely token.
      top_p: the smallest set of most likely tokens whose probability reaches this is drawn from; 1 draws from all.
      stop_ids: a sample ends with the first of these, which belongs to it.
      pad_id: fills the places after a sample's end.
      buckets: numbers of tokens below S, ascending. Decoding begins with room for so many keys and values and goes on
        with the next larger only where a sample is longer; empty: room for S from the beginning.
      compact: numbers of samples, descending. As soon as no more than so many samples of the batch have not ended,
        these go on by themselves, each with a copy of its prompt's keys and values; the first bounds that memory. For
        one device. Empty: a batch is as wide as it was until its last sample has ended.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop_ids: tuple[int, ...] = ()
    pad_id: int = 0
    buckets: tuple[int, ...] = ()
    compact: tuple[int, ...] = ()

    def __post_init__(self):
        """Refuses values without a meaning."""
        if self.max_new_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"sampling needs max_new_tokens ≥ 1, temperature ≥ 0 and 0 < top_p ≤ 1, got {self}")
        if not all(a < b for a, b in itertools.pairwise((0, *self.widths))):
            raise ValueError(f"sampling needs buckets that rise from 1 to below max_new_tokens, got {self}")
        if not all(a < b for a, b in itertools.pairwise((0, *reversed(self.compact)))):
            raise ValueError(f"sampling needs compact sizes that fall to 1 at least, got {self}")

    @property
    def widths(self) -> tuple[int, ...]:
        """The buckets, and S."""
        return (*self.buckets, self.max_new_tokens)
