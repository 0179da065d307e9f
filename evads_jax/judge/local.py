"""The judge `local`: the project's own model, asked for the probabilities of the five grid values.

The prompt is that of `openai` up to its last lines, which ask for the score itself. Each grid value, written out and
closed by the end-of-turn token, is a continuation of that prompt; the five log-probabilities come from one forward pass
(`models.qwen_vl.score`) and are normalised over the five. The verdict is the most probable value. No text is sampled,
so that nothing in a candidate can make this judge write anything else than a score. Nor can a candidate be too long to
be judged: a missing verdict counts like the average of its group, and would be worth having for a bad answer.

A prompt is what a candidate is compared with, the same for all candidates of a question, and then the candidate. Each
part has room of its own and is tokenised by itself, so that what is shown of the one does not depend on the other.

A trained judge is a folder: `judge.json` (the model's sizes, bucket, prompts, measured agreement), `params.safetensors`
and the tokenizer.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float

from evads_jax import storage, whole
from evads_jax.data import chat
from evads_jax.data.prompts import PromptText, fit
from evads_jax.data.tokenizer import Tokenizer, load_tokenizer
from evads_jax.errors import UserError
from evads_jax.judge.request import LONGEST_CANDIDATE, Prompts, load_prompts, render_likelihood
from evads_jax.judge.verdict import GRID, JudgeRequest, Missing, Verdict
from evads_jax.models.qwen_vl import QwenVLConfig, VisionConfig, score
from evads_jax.models.qwen_vl.inputs import Prompt, PromptBuilder, collate_prompts, collate_suffixes

DESCRIPTION, PARAMS = "judge.json", "params.safetensors"
_LONGEST_VALUE = 8  # tokens of «0.25» and its end in any tokenizer
_FIRST_STEP = 512  # characters; of the search for how much of a candidate fits
_SHARED_KEPT = 256  # questions whose fitted text is kept for their next candidate
_Tree = dict[str, Any]
_forward = jax.jit(score, static_argnums=1)


@dataclasses.dataclass(frozen=True)
class PromptParts:
    """A prompt in the parts that are fitted into the bucket.

    Attributes:
      head: up to the event lines; without any, all that stands before the candidate.
      events: the event lines.
      rest: what follows them before the candidate.
      candidate: the candidate between its marks, and the instructions.
    """

    head: str
    events: tuple[str, ...]
    rest: str
    candidate: str

    @property
    def text(self) -> str:
        """The whole prompt."""
        return f"{self.head}{''.join(self.events)}{self.rest}{self.candidate}"


class LocalJudge:
    """Judges with a model's parameters.

    Args:
      params: the parameters.
      model: their sizes.
      tokenizer: the model's tokenizer.
      prompts: version and language of the prompts.
      prompt_tokens: the bucket of a whole prompt.
      candidate_tokens: how many of them the candidate has, with its marks and the instructions behind it. It is shown
        up to where it fits. The rest of the prompt loses event lines; where it is too long without any, the verdict is
        missing.
      batch: prompts per forward pass; one shape, so that it compiles once.
    """

    name = "local"

    def __init__(
        self,
        params: _Tree,
        model: QwenVLConfig,
        tokenizer: Tokenizer,
        prompts: Prompts,
        prompt_tokens: int,
        candidate_tokens: int,
        batch: int = 16,
    ):
        self._params, self._model, self._tokenizer, self._prompts = params, model, tokenizer, prompts
        self._bucket, self._batch, self._builder = prompt_tokens, batch, PromptBuilder(tokenizer, model)
        self._room, self._overhead = candidate_tokens, chat.overhead(tokenizer, [], self._builder.layout)
        self._shared_room = prompt_tokens - candidate_tokens - self._overhead
        self._count = chat.counter(tokenizer)
        self._shared = functools.lru_cache(_SHARED_KEPT)(self._fit)
        self._values = [(ids, 0) for ids in map(self.encode_value, GRID)]
        self._suffixes = collate_suffixes([self._values] * batch, len(GRID), _LONGEST_VALUE)

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict | Missing]:
        """Scores every request."""
        results: list[Verdict | Missing | None] = [
            None if request.candidate.strip() else Verdict(0.0, "empty") for request in requests
        ]
        built: dict[int, Prompt] = {}
        for i, request in enumerate(requests):
            if results[i] is None:
                try:
                    built[i] = self.prompt(request)
                except UserError as error:
                    results[i] = Missing(error.what)
        places = list(built)
        for start in range(0, len(places), self._batch):
            chunk = places[start : start + self._batch]
            for i, row in zip(chunk, self.probabilities([built[i] for i in chunk]), strict=True):
                shares = ", ".join(f"{value:g}: {share:.2f}" for value, share in zip(GRID, row, strict=True))
                results[i] = Verdict(GRID[int(row.argmax())], shares)
        return [result if result is not None else Missing("not judged") for result in results]

    def prompt(self, request: JudgeRequest, least: int = 1, *, split: bool = False) -> Prompt:
        """The request as the model gets it, fitted into the bucket.

        Where the candidate does not fit it is shown up to where it does, and the model is told how many characters are
        left out.

        Args:
          request: what is asked.
          least: characters of the candidate that must be shown.
          split: whether the candidate and what follows it is `Prompt.suffix`.

        Raises:
          UserError: not even so many fit, or what it is compared with does not.
        """
        parts, longest = self._parts(request, LONGEST_CANDIDATE), least
        if not self._fits(parts):
            parts, step = self._parts(request, least), _FIRST_STEP
            if not self._fits(parts):
                what = f"a candidate needs {self._count(parts.candidate)} tokens, {self._room} are there"
                raise UserError(what, "", "raise data.candidate_tokens")
            while step:
                more = self._parts(request, longest + step)
                if longest + step < LONGEST_CANDIDATE and self._fits(more):
                    parts, longest = more, longest + step
                else:
                    step //= 2
        shared = self._shared(parts.head, parts.events, parts.rest)
        return self._builder.build(PromptText(shared, (), "", parts.candidate, ""), [], split=split)

    def _parts(self, request: JudgeRequest, longest: int) -> PromptParts:
        return prompt_parts(request, self._prompts, longest)

    def _fits(self, parts: PromptParts) -> bool:
        return self._count(parts.candidate) <= self._room

    def _fit(self, head: str, events: tuple[str, ...], rest: str) -> str:
        """What stands before a candidate, without the event lines for which there is no room."""
        fitted, _ = fit(PromptText(head, events, rest, "", ""), self._shared_room, self._count)
        return fitted.text

    def probabilities(self, prompts: Sequence[Prompt]) -> Float[np.ndarray, "n 5"]:
        """The probability of each grid value, among the five, for up to `batch` prompts."""
        room = self._batch - len(prompts)
        patches = self._model.vision.merge**2
        batch = collate_prompts([*prompts, *[prompts[0]] * room], self._bucket, 1, patches, self._model)
        logprob = np.asarray(_forward(self._params, self._model, batch, self._suffixes).logprob, np.float64)
        total = logprob.sum(axis=-1)
        weights = np.exp(total - total.max(axis=-1, keepdims=True))
        return (weights / weights.sum(axis=-1, keepdims=True))[: len(prompts)]

    @property
    def rooms(self) -> tuple[int, int]:
        """Buckets T and S of a prompt split at its candidate: of what is shared, and of the rest with a grid value."""
        return self._shared_room + self._overhead, self._room + self._overhead + _LONGEST_VALUE

    def encode_value(self, value: float) -> list[int]:
        """The continuation that stands for a grid value."""
        return chat.encode_completion(self._tokenizer, f"{value:g}")


def prompt_parts(request: JudgeRequest, prompts: Prompts, longest: int = LONGEST_CANDIDATE) -> PromptParts:
    """The judge's prompt in parts; nothing in it is trusted.

    Args:
      request: what is asked.
      prompts: in which words.
      longest: characters of the candidate that are shown.
    """
    rendered = render_likelihood(request, prompts, longest)
    candidate = rendered.user.removeprefix(rendered.shared)
    opening = f"[BEGIN events {rendered.nonce}]\n"
    before, found, after = rendered.shared.partition(opening)
    if not found:
        return PromptParts(f"{rendered.system}\n\n{rendered.shared}", (), "", candidate)
    lines, closing, rest = after.partition(f"\n[END events {rendered.nonce}]")
    events = tuple(f"{line}\n" for line in lines.split("\n"))
    return PromptParts(f"{rendered.system}\n\n{before}{opening}", events, closing.lstrip("\n") + rest, candidate)


def constants(prompts: Prompts) -> tuple[str, ...]:
    """The lines that every judge prompt repeats; a tokenizer made for judging can make each a single piece."""
    templates = ("system", "evidence", "answer", "trace", "likelihood", "shortened")
    lines = [line for name in templates for line in prompts.texts[name].splitlines(keepends=True)]
    pieces = [piece for line in lines for piece in re.split(r"{{\w+}}", line)]
    names = ("events", "question", "clues", "reference", "candidate")
    marks = [text for name in names for text in (f"[BEGIN {name} ", f"[END {name} ")]
    return tuple(dict.fromkeys(piece for piece in [*pieces, *marks] if len(piece) > 2))


def save(
    folder: str | Path, params: _Tree, model: QwenVLConfig, tokenizer: Tokenizer, tokenizer_kind: str, **about: Any
) -> None:
    """Writes a judge that `load` reads.

    Args:
      folder: made when absent.
      params: the parameters.
      model: their sizes.
      tokenizer: the tokenizer.
      tokenizer_kind: as `load_tokenizer` takes it.
      **about: kept in `judge.json`: prompts, language, the two rooms, and what was measured.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    flat = {name: np.ascontiguousarray(value) for name, value in _flatten(params).items()}
    with whole.replacing(folder / PARAMS) as temporary:
        safetensors.numpy.save_file(flat, temporary)
    description = {"model": dataclasses.asdict(model), "tokenizer": tokenizer_kind, **about}
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n")


def load(folder: str | Path, language: str, batch: int = 16) -> LocalJudge:
    """Reads a judge that `save` wrote, from a folder on this machine or in a bucket.

    Raises:
      UserError: there is none, it is damaged, or it judges in another language.
    """
    folder = storage.fetched(folder)
    try:
        about = json.loads((folder / DESCRIPTION).read_text())
        sizes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in about["model"].items()}
        vision: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in sizes.pop("vision").items()}
        model = QwenVLConfig(**{**sizes, "vision": VisionConfig(**vision)})
        params = _unflatten(safetensors.numpy.load_file(folder / PARAMS))
        prompts = load_prompts(about["prompts"], about["language"])
        room = int(about["prompt_tokens"]), int(about["candidate_tokens"])
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise UserError(f"no trained judge ({type(error).__name__}: {error})", str(folder), "set judge.path") from error
    if prompts.language != language:
        raise UserError(f"this judge reads {prompts.language!r}, the run is in {language!r}", str(folder))
    tokenizer = load_tokenizer(about["tokenizer"], folder)
    return LocalJudge(jax.device_put(params), model, tokenizer, prompts, *room, batch)


def _flatten(tree: _Tree, prefix: str = "") -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        flat |= _flatten(value, f"{prefix}{name}/") if isinstance(value, dict) else {prefix + name: np.asarray(value)}
    return flat


def _unflatten(flat: dict[str, np.ndarray]) -> _Tree:
    tree: _Tree = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        at = tree
        for parent in parents:
            at = at.setdefault(parent, {})
        at[name] = value
    return tree
