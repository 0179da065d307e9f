"""The project's own model as a policy."""

import contextlib
import functools
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from evads_jax import processes
from evads_jax.data import chat, prompts
from evads_jax.data.media import decode_jpeg
from evads_jax.data.records import VideoRecord
from evads_jax.data.tokenizer import Tokenizer
from evads_jax.errors import UserError
from evads_jax.models.division import Division
from evads_jax.models.qwen_vl import PromptBatch
from evads_jax.models.qwen_vl.config import QwenVLConfig
from evads_jax.models.qwen_vl.inputs import ABSENT, Clip, Prompt, PromptBuilder, collate_prompts
from evads_jax.sampling.rollout import SamplingConfig, sample

GREY = 128
TEMPERATURES = {"greedy": 0.0, "paper": 1.0}


def check_protocol(evaluation: Any) -> int:
    """Checks a config's section `eval`.

    Returns:
      Samples per question.

    Raises:
      UserError: the protocol is unknown, or several samples are asked of one that draws none.
    """
    if evaluation.protocol not in TEMPERATURES:
        known = ", ".join(TEMPERATURES)
        raise UserError(f"unknown protocol {evaluation.protocol!r}", "eval.protocol", f"one of {known}")
    samples = evaluation.get("samples", 1)
    if samples < 1 or (samples > 1 and not TEMPERATURES[evaluation.protocol]):
        raise UserError(
            f"{samples} samples a question", "eval.samples", "at least 1, and only 1 of the protocol greedy"
        )
    return samples


class ModelPolicy:
    """Answers with a model's parameters, always in batches of one shape, so that the sampler compiles once.

    Stages and blanked runs that share `model` and the config share the compiled sampler.

    Args:
      params: the parameters.
      model: their sizes.
      tokenizer: the model's tokenizer.
      config: the run's config; read: run.language, run.seed, data (format_eval, prompt_tokens, frames), eval
        (`eval.samples`, where it is there: completions per question, drawn over one prefill).
      weights: names the parameters, e.g. "sft, step 1500".
      blank_frames: show mid grey instead of the frames; default `config.eval.blank_frames`.
      division: where the parameters are split over a mesh, how its devices and processes divide a batch among them;
        None: the parameters are on one device, of each process.

    Raises:
      UserError: `eval.protocol` is unknown, or several samples are asked of a protocol that draws none.
    """

    def __init__(
        self,
        params: Any,
        model: QwenVLConfig,
        tokenizer: Tokenizer,
        config: Any,
        weights: str,
        blank_frames: bool | None = None,
        division: Division | None = None,
    ):
        self._samples = check_protocol(config.eval)
        data, self.weights, self.batch = config.data, weights, config.eval.batch_prompts
        self.dropped_lines: dict[str, int] = {}
        self.division = division
        self.protocol: Mapping[str, Any] = {
            "name": config.eval.protocol,
            "temperature": TEMPERATURES[config.eval.protocol],
            "top_p": 1.0,
            "max_new_tokens": config.eval.max_new_tokens,
            "format": data.format_eval,
            "language": config.run.language,
            "prompt_tokens": data.prompt_tokens,
            "frame_rate": data.frame_rate,
            "max_frames": data.max_frames,
            "frame_size": data.frame_size,
            "blank_frames": config.eval.blank_frames if blank_frames is None else blank_frames,
            **({"samples": self._samples} if self._samples > 1 else {}),
        }
        self._params, self._model, self._builder = params, model, PromptBuilder(tokenizer, model)
        self._key = jax.random.key(config.run.seed)
        self._units = -(-data.max_frames // model.vision.temporal_patch)
        self._patches = (data.frame_size // model.vision.patch) ** 2
        self._sampling = SamplingConfig(
            max_new_tokens=config.eval.max_new_tokens,
            temperature=TEMPERATURES[config.eval.protocol],
            top_p=1.0,
            stop_ids=chat.stop_ids(tokenizer),
            pad_id=tokenizer.ids.pad,
        )

    def generate(self, items: Sequence[tuple[VideoRecord, int]]) -> list[str]:
        """The completions of each question, `eval.samples` in a row.

        Sampling is seeded by the run's seed, the question's id and the sample's number, so that it depends on neither
        batch nor order, and the first sample not on how many there are.

        With several processes all must call this as often, each with the questions of one turn (`predict.turn`) that
        are its own, which may be none: where a mesh holds the parameters, they compute together.
        """
        rows = self.batch if self.division is None else len(self.division.numbers)
        completions: list[str] = []
        for start in range(0, max(len(items), 1), rows):
            completions += self._generate(items[start : start + rows], rows)
        return completions

    def _generate(self, items: Sequence[tuple[VideoRecord, int]], rows: int) -> list[str]:
        what = "make prompts of its questions"
        batch, ids = processes.together(lambda: self._prompts(items, rows), what, "config.data.prompt_tokens")
        division = self.division or Division()
        if not items and not division.rows:  # no other process waits for this one
            return []
        with contextlib.nullcontext() if division.mesh is None else jax.set_mesh(division.mesh):
            placed, seeds = division.place((batch, ids))
            rollout = sample(self._params, self._model, placed, seeds, self._samples, self._sampling, self._key)
            tokens, lengths = division.fetch((rollout.tokens, rollout.lengths))
        return [
            chat.decode_completion(self._builder.tokenizer, tokens[b, s, : lengths[b, s]].tolist())
            for b in range(len(items))
            for s in range(self._samples)
        ]

    def _prompts(self, items: Sequence[tuple[VideoRecord, int]], rows: int) -> tuple[PromptBatch, np.ndarray]:
        """So many rows, the last ones absent, and the number of each question."""
        clips = functools.lru_cache(maxsize=None)(lambda at: self._clip(items[at][0]))
        first = {record.video: at for at, (record, _) in reversed(list(enumerate(items)))}
        built = [self._prompt(record, i, clips(first[record.video])) for record, i in items]
        ids = [zlib.crc32(record.questions[i].id.encode()) & 0x7FFFFFFF for record, i in items]
        room = rows - len(items)
        batch = collate_prompts(
            built + [ABSENT] * room,
            self.protocol["prompt_tokens"],
            self._units,
            self._patches,
            self._model,
            None if self.division is None else self.division.numbers,
        )
        return batch, np.asarray(ids + [0] * room, np.int32)

    def _clip(self, record: VideoRecord) -> Clip:
        frames = np.stack([decode_jpeg(frame) for frame in record.frames])
        return Clip(np.full_like(frames, GREY) if self.protocol["blank_frames"] else frames, record.times)

    def _prompt(self, record: VideoRecord, question: int, clip: Clip) -> Prompt:
        """The prompt, without the event lines that do not fit beside the video."""
        text = prompts.render(record.example(question), self.protocol["format"], self.protocol["language"])
        size = clip.frames.shape[1:3]
        (text,), dropped = self._builder.fit([text], self.protocol["prompt_tokens"], clip.times, size)
        self.dropped_lines[record.questions[question].id] = dropped
        return self._builder.build(text, [clip], split=False)
