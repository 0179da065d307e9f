r"""The chat format of Qwen's VL models: prompt and videos → token ids, video tokens expanded once and counted.

    <|im_start|>user\n
    <0.5 seconds><|vision_start|><|video_pad|>…<|vision_end|>   once per frame group
    PROMPT<|im_end|>\n<|im_start|>assistant\n
    COMPLETION<|im_end|>

That is Qwen3-VL's; in Qwen2.5-VL's, a system turn comes first and the tokens of all frame groups of a video stand in
one pair of `<|vision_start|>` and `<|vision_end|>`, without seconds (`Layout`). An image is one group of
`<|image_pad|>`, without seconds in both.

Annotations, questions and completions are text: whatever they spell, they give no special token. Only this module's own
strings and a format's constant parts do (`<think>` in the closing instruction is one token, as for Qwen's own
tokenizer).
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence

from evads_jax.data.prompts import TAGS, PromptText
from evads_jax.data.tokenizer import IM_END, IM_START, VISION_START, Tokenizer

USER, ASSISTANT = f"{IM_START}user\n", f"{IM_END}\n{IM_START}assistant\n"


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a family writes a prompt.

    Attributes:
      system: what the system turn says; empty for no such turn.
      timestamps: each frame group of a video stands in a pair of vision tags of its own, behind its second. Otherwise
        all groups stand in one pair.
      wrapped: with timestamps, a pair of vision tags around the whole video besides.
    """

    system: str = ""
    timestamps: bool = True
    wrapped: bool = False


@dataclasses.dataclass(frozen=True)
class VideoSpan:
    """The place that one video, or one image, takes in a prompt.

    Attributes:
      timestamps: seconds at which each frame group (temporal unit) stands.
      tokens_per_group: video tokens of a group: its grid's height · width after merging.
      image: whether it is an image: one group of image tokens, whose time is not written.
    """

    timestamps: tuple[float, ...]
    tokens_per_group: int
    image: bool = False


@dataclasses.dataclass(frozen=True)
class ChatIds:
    """A prompt as ids.

    Attributes:
      prefix: up to the question; with `split=False` the whole prompt.
      suffix: the question, the closing and the assistant's header; with `split=False` empty.
      video_spans: (start, length) in `prefix` of the video tokens of each frame group, in order.
    """

    prefix: list[int]
    suffix: list[int]
    video_spans: list[tuple[int, int]]


def encode_prompt(
    tokenizer: Tokenizer, prompt: PromptText, videos: Sequence[VideoSpan], split: bool, layout: Layout = Layout()
) -> ChatIds:
    """The ids of a prompt up to where the completion starts.

    Prefix and suffix are always tokenised apart, so that `prefix + suffix` is the same list with and without `split`.

    Args:
      tokenizer: the tokenizer.
      prompt: the prompt's parts.
      videos: the videos, in the order in which they are shown; empty for a prompt without video.
      split: whether the suffix is returned apart, to share the prefix among the questions of one video.
      layout: the family's.

    Raises:
      ValueError: a video has no frame group or no tokens, or an image more than one group.
    """
    system = f"{IM_START}system\n{layout.system}{IM_END}\n" if layout.system else ""
    prefix = tokenizer.encode(system + USER, specials=True)
    spans: list[tuple[int, int]] = []
    for video in videos:
        if not video.timestamps or video.tokens_per_group < 1 or (video.image and len(video.timestamps) > 1):
            raise ValueError(f"a video in a prompt needs frame groups and tokens, an image one group, got {video}")
        _add_video(prefix, spans, tokenizer, video, layout)
    prefix += _encode(tokenizer, [(prompt.head + "".join(prompt.events), False), (prompt.tail, True)])
    suffix = _encode(tokenizer, [(prompt.question, False), (prompt.closing, True)])
    suffix += tokenizer.encode(ASSISTANT, specials=True)
    check_video_tokens(prefix + suffix, tokenizer, videos)
    return ChatIds(prefix, suffix, spans) if split else ChatIds(prefix + suffix, [], spans)


def check_video_tokens(ids: Sequence[int], tokenizer: Tokenizer, videos: Sequence[VideoSpan]) -> None:
    """Checks that a prompt holds as many video tokens as its videos' grids give.

    Raises:
      ValueError: it does not.
    """
    for pad, image in ((tokenizer.ids.video_pad, False), (tokenizer.ids.image_pad, True)):
        spans = [video for video in videos if video.image == image]
        expected = sum(len(span.timestamps) * span.tokens_per_group for span in spans)
        found = sum(i == pad for i in ids)
        if found != expected:
            kind = "image" if image else "video"
            raise ValueError(f"the prompt holds {found} {kind} tokens, its grid gives {expected}")


def overhead(tokenizer: Tokenizer, videos: Sequence[VideoSpan], layout: Layout = Layout()) -> int:
    """Tokens that the chat format and the videos add to a prompt's text: `prompts.fit`'s budget is T minus these."""
    empty = encode_prompt(tokenizer, PromptText("", (), "", "", ""), videos, split=False, layout=layout)
    return len(empty.prefix)


def counter(tokenizer: Tokenizer) -> Callable[[str], int]:
    """The `count` of `prompts.fit`; never less than what `encode_prompt` makes of the same text."""
    return lambda text: len(tokenizer.encode(text))


def encode_completion(tokenizer: Tokenizer, target: str) -> list[int]:
    """The ids of a completion, `<|im_end|>` last.

    Only the four tags become special ids (where the tokenizer has them); nothing else in the text does.
    """
    return [*_encode(tokenizer, [(target, True)]), tokenizer.ids.im_end]


def stop_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids that end a completion, each itself the last of it: `<|im_end|>`, and `<|endoftext|>`, the padding.

    A sampler must stop at all of them, as `decode_completion` does: what it sampled behind the end of a text would be
    learned from, with a reward that the text has earned.
    """
    return (tokenizer.ids.im_end, tokenizer.ids.pad)


def decode_completion(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    """The text of sampled ids up to the first of `stop_ids`."""
    ends = stop_ids(tokenizer)
    return tokenizer.decode([int(i) for i in itertools.takewhile(lambda i: i not in ends, ids)])


def _add_video(
    ids: list[int], spans: list[tuple[int, int]], tokenizer: Tokenizer, video: VideoSpan, layout: Layout
) -> None:
    """Appends a video or an image to `ids`, and the place of each of its groups to `spans`."""
    special, groups = tokenizer.ids, len(video.timestamps)
    pad = special.image_pad if video.image else special.video_pad
    if video.image or not layout.timestamps:
        ids.append(special.vision_start)
        spans += [(len(ids) + i * video.tokens_per_group, video.tokens_per_group) for i in range(groups)]
        ids += [pad] * (groups * video.tokens_per_group)
        ids.append(special.vision_end)
        return
    ids += [special.vision_start] * layout.wrapped
    for seconds in video.timestamps:
        ids += tokenizer.encode(f"<{seconds:.1f} seconds>{VISION_START}", specials=True)
        spans.append((len(ids), video.tokens_per_group))
        ids += [pad] * video.tokens_per_group
        ids.append(special.vision_end)
    ids += [special.vision_end] * layout.wrapped


def _encode(tokenizer: Tokenizer, parts: Iterable[tuple[str, bool]]) -> list[int]:
    """Ids of (text, trusted) parts in a row: tags in trusted parts are special, all other text is tokenised in one go.

    Joining text before tokenising gives the ids that the whole text has, whatever the seams between the parts.
    """
    ids: list[int] = []
    plain = ""
    for text, trusted in parts:
        while trusted and (found := _first_tag(text, tokenizer)):
            at, tag = found
            ids += tokenizer.encode(plain + text[:at])
            ids.append(tokenizer.specials[tag])
            plain, text = "", text[at + len(tag) :]
        plain += text
    return ids + tokenizer.encode(plain)


def _first_tag(text: str, tokenizer: Tokenizer) -> tuple[int, str] | None:
    return min(((text.index(tag), tag) for tag in TAGS if tag in text and tag in tokenizer.specials), default=None)
