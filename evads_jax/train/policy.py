"""A trained model as what the benchmark evaluates: records and questions in, completions out."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from evads_jax.data.chat import decode_completion
from evads_jax.data.records import VideoRecord
from evads_jax.errors import UserError
from evads_jax.sampling.config import SamplingConfig
from evads_jax.sampling.rollout import sample
from evads_jax.train.context import Context

Tree = Any
PROTOCOLS = ("greedy", "paper")


class ModelPolicy:
    """The `benchmark.predict.Policy` of some parameters.

    A completion depends on the question and the seed alone, not on what else is in its batch.

    Args:
      context: the experiment; `eval` says how it is asked (`greedy`: temperature 0; `paper`: temperature 1).
      params: the parameters.
      weights: names them, e.g. "sft, step 450".
      blank_frames: shows grey frames; default `eval.blank_frames`.

    Raises:
      UserError: an unknown protocol.
    """

    def __init__(self, context: Context, params: Tree, weights: str, blank_frames: bool | None = None):
        config, ids = context.config, context.tokenizer.ids
        if config.eval.protocol not in PROTOCOLS:
            what = f"unknown protocol {config.eval.protocol!r}"
            raise UserError(what, "config.eval.protocol", "one of " + ", ".join(PROTOCOLS))
        self.weights, self.batch = weights, config.eval.batch_prompts
        blank = config.eval.blank_frames if blank_frames is None else blank_frames
        temperature = 1.0 if config.eval.protocol == "paper" else 0.0
        self._sampling = SamplingConfig(config.eval.max_new_tokens, temperature, 1.0, (ids.im_end,), ids.pad)
        self.protocol: Mapping[str, Any] = {
            "name": config.eval.protocol,
            "format": config.data.format_eval,
            "temperature": temperature,
            "seed": config.run.seed if temperature else None,
            "max_new_tokens": config.eval.max_new_tokens,
            "prompt_tokens": config.data.prompt_tokens,
            "frame_rate": config.data.frame_rate,
            "max_frames": config.data.max_frames,
            "frame_size": config.data.frame_size,
            "blank_frames": blank,
        }
        self._context, self._params = context, params
        inputs = context.inputs()
        self._transform = inputs.prompt_transform(config.data.format_eval, blank)
        self._collate = inputs.prompt_collate(self.batch)
        self._key = jax.random.fold_in(jax.random.key(config.run.seed), context.data_seed("evaluation"))

    def generate(self, items: Sequence[tuple[VideoRecord, int]]) -> list[str]:
        """The raw completion of each (video, index of a question)."""
        texts: list[str] = []
        for start in range(0, len(items), self.batch):
            chunk = items[start : start + self.batch]
            batch = self._collate([self._transform(record, question) for record, question in chunk])
            prompt = self._context.place(batch.prompt)
            rollout = sample(self._params, self._context.model, prompt, batch.ids, 1, self._sampling, self._key)
            tokens, lengths = np.asarray(rollout.tokens[:, 0]), np.asarray(rollout.lengths[:, 0])
            texts += [
                decode_completion(self._context.tokenizer, tokens[i, : lengths[i]].tolist()) for i in range(len(chunk))
            ]
        return texts
