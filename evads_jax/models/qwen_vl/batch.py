"""The arrays that the model is called with: prompts, their video, and the suffixes that continue them.

Everything is padded to static shapes; lengths and indices say what is real. A padded place never changes a result.
Shape letters: B prompts, G suffixes per prompt, T prompt tokens, S suffix tokens, U temporal units (one unit is
`temporal_patch` frames of one video), P patches per unit (before merging), C values per patch.
"""

import jax
from flax import struct
from jaxtyping import Bool, Int, UInt8


@struct.dataclass
class VideoInputs:
    """The temporal units of all videos of a batch, one row each.

    Attributes:
      patches: raw pixel values; patches of a unit stand in merge-block order, so that every `merge**2` consecutive
        ones become one token. Normalisation happens on the device.
      grid: height and width of each unit in patches; (0, 0) for a padded unit. Patches beyond h·w are padding.
    """

    patches: UInt8[jax.Array, "U P C"]
    grid: Int[jax.Array, "U 2"]


@struct.dataclass
class PromptBatch:
    """B prompts, right-padded.

    Attributes:
      tokens: token ids; the video tokens hold the video pad id.
      lengths: real tokens of each prompt.
      positions: M-RoPE positions (time, height, width) of each token.
      video_index: for a video token, its row in the flattened [U · P/merge²] vision output; −1 for text. On a mesh, of
        a unit that lies on the prompt's own device, as it does where all prompts have U/B units (`collate_prompts`).
      next_position: the position, equal on the three axes, of the token that follows the prompt.
      video: the vision tower's input.
    """

    tokens: Int[jax.Array, "B T"]
    lengths: Int[jax.Array, " B"]
    positions: Int[jax.Array, "B T 3"]
    video_index: Int[jax.Array, "B T"]
    next_position: Int[jax.Array, " B"]
    video: VideoInputs


@struct.dataclass
class SuffixBatch:
    """G continuations of each of B prompts, right-padded; each sees its prompt and itself.

    Attributes:
      tokens: token ids.
      lengths: real tokens of each suffix; 0 for an absent one.
      mask: the tokens that are scored (completion tokens; never padding, never a question's).
    """

    tokens: Int[jax.Array, "B G S"]
    lengths: Int[jax.Array, "B G"]
    mask: Bool[jax.Array, "B G S"]
