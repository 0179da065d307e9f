"""The judge `local`: the project's own model, asked for the probabilities of the five grid values.

The prompt is that of `openai` up to its last lines, which ask for the score itself. Each grid value, written out and
closed by the end-of-turn token, is a continuation of that prompt; the five log-probabilities come from one forward pass
(`models.qwen_vl.score`) and are normalised over the five. The verdict is the most probable value. No text is sampled,
so that nothing in a candidate can make this judge write anything else than a score. Nor can a candidate be too long to
be judged: a missing verdict counts like the average of its group, and would be worth having for a bad answer.

A trained judge is a folder: `judge.json` (the model's sizes, bucket, prompts, measured agreement), `params.safetensors`
and the tokenizer.
"""

import dataclasses
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
_Tree = dict[str, Any]
_forward = jax.jit(score, static_argnums=1)


class LocalJudge:
    """Judges with a model's parameters.

    Args:
      params: the parameters.
      model: their sizes.
      tokenizer: the model's tokenizer.
      prompts: version and language of the prompts.
      prompt_tokens: the bucket; a longer prompt loses event lines, one that is too long without any the end of its
        candidate, and where there is no room for a candidate the verdict is missing.
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
        batch: int = 16,
    ):
        self._params, self._model, self._tokenizer, self._prompts = params, model, tokenizer, prompts
        self._bucket, self._batch, self._builder = prompt_tokens, batch, PromptBuilder(tokenizer, model)
        self._budget = prompt_tokens - chat.overhead(tokenizer, [], self._builder.layout)
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

    def prompt(self, request: JudgeRequest, least: int = 1) -> Prompt:
        """The request as the model gets it, fitted into the bucket.

        Where it does not fit without events either, the candidate is shown up to where it does, and the model is told
        how many characters are left out.

        Args:
          request: what is asked.
          least: characters of the candidate that must be shown.

        Raises:
          UserError: not even so many fit.
        """
        try:
            fitted = self._fit(request, LONGEST_CANDIDATE)
        except UserError:
            fitted, shown, step = self._fit(request, least), least, _FIRST_STEP
            while step:
                try:
                    fitted, shown = self._fit(request, shown + step), shown + step
                except UserError:
                    step //= 2
        return self._builder.build(fitted, [], split=False)

    def _fit(self, request: JudgeRequest, longest: int) -> PromptText:
        text = prompt_text(request, self._prompts, longest)
        return fit(text, self._budget, chat.counter(self._tokenizer))[0]

    def probabilities(self, prompts: Sequence[Prompt]) -> Float[np.ndarray, "n 5"]:
        """The probability of each grid value, among the five, for up to `batch` prompts."""
        room = self._batch - len(prompts)
        patches = self._model.vision.merge**2
        batch = collate_prompts([*prompts, *[prompts[0]] * room], self._bucket, 1, patches, self._model)
        logprob = np.asarray(_forward(self._params, self._model, batch, self._suffixes).logprob, np.float64)
        total = logprob.sum(axis=-1)
        weights = np.exp(total - total.max(axis=-1, keepdims=True))
        return (weights / weights.sum(axis=-1, keepdims=True))[: len(prompts)]

    def encode_value(self, value: float) -> list[int]:
        """The continuation that stands for a grid value."""
        return chat.encode_completion(self._tokenizer, f"{value:g}")


def prompt_text(request: JudgeRequest, prompts: Prompts, longest: int = LONGEST_CANDIDATE) -> PromptText:
    """The judge's prompt in the parts that `data.prompts.fit` works on; nothing in it is trusted.

    Args:
      request: what is asked.
      prompts: in which words.
      longest: characters of the candidate that are shown.
    """
    rendered = render_likelihood(request, prompts, longest)
    opening = f"[BEGIN events {rendered.nonce}]\n"
    before, found, rest = rendered.user.partition(opening)
    if not found:
        return PromptText(f"{rendered.system}\n\n{rendered.user}", (), "", "", "")
    lines, closing, after = rest.partition(f"\n[END events {rendered.nonce}]")
    events = tuple(f"{line}\n" for line in lines.split("\n"))
    head = f"{rendered.system}\n\n{before}{opening}"
    return PromptText(head, events, "", closing.lstrip("\n") + after, "")


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
      **about: kept in `judge.json`: prompts, language, prompt_tokens, and what was measured.
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
        prompts, bucket = load_prompts(about["prompts"], about["language"]), int(about["prompt_tokens"])
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise UserError(f"no trained judge ({type(error).__name__}: {error})", str(folder), "set judge.path") from error
    if prompts.language != language:
        raise UserError(f"this judge reads {prompts.language!r}, the run is in {language!r}", str(folder))
    tokenizer = load_tokenizer(about["tokenizer"], folder)
    return LocalJudge(jax.device_put(params), model, tokenizer, prompts, bucket, batch)


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
