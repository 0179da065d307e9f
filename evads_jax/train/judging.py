"""From sampled tokens to rewards, on the host: decode, read, ask the judge, add up.

Reading and asking run in a thread, so that the device can work while the judge does. A verdict has the place of the
completion that it is about, whenever it arrives. Each of several processes reads and asks about its own prompts; all
then have the scores of the whole batch, and so the same rewards.
"""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from evads_jax.data.chat import decode_completion
from evads_jax.data.prompts import Completion, parse_completion
from evads_jax.data.records import Example
from evads_jax.data.tokenizer import Tokenizer
from evads_jax.judge import divided
from evads_jax.judge.verdict import Judge, JudgeRequest, Missing, Verdict
from evads_jax.models.division import Division
from evads_jax.processes import fail_together
from evads_jax.rl.reward import Reward, RewardWeights, reward, scores
from evads_jax.sampling.rollout import Rollout

T = TypeVar("T")


class Found(NamedTuple):
    """What was found out about the completions of a whole batch, NumPy [B, G].

    Attributes:
      answer: scores of the answers; NaN where the verdict is missing.
      trace: scores of the reasoning traces, likewise.
      well_formed: whether a completion keeps to its form.
      lengths: tokens of a completion.
      finished: whether it ended by itself.
    """

    answer: Float[np.ndarray, "B G"]
    trace: Float[np.ndarray, "B G"]
    well_formed: Bool[np.ndarray, "B G"]
    lengths: Int[np.ndarray, "B G"]
    finished: Bool[np.ndarray, "B G"]


@dataclasses.dataclass(frozen=True)
class Judged:
    """The completions of B prompts, G each, read and judged.

    Attributes:
      texts: as sampled. This list and the next three run over this process's prompts, then samples.
      completions: as understood.
      answers: verdicts on the answers.
      traces: verdicts on the reasoning traces.
      found: what is known of all B prompts, on every process.
      reward: their rewards, NumPy [B, G].
    """

    texts: list[str]
    completions: list[Completion]
    answers: list[Verdict | Missing]
    traces: list[Verdict | Missing]
    found: Found
    reward: Reward


class _Read(NamedTuple):
    """Texts and completions; (aspect, number of the completion) of each request; the requests."""

    texts: list[str]
    completions: list[Completion]
    places: list[tuple[str, int]]
    requests: list[JudgeRequest]


class RewardFunction:
    """What a completion is worth.

    Args:
      judge: gives the verdicts; it is called from a thread, one call at a time.
      tokenizer: decodes.
      rl: the config section: `reward` (the grain) and the weights.
      language: of the judge's prompts.
      division: which prompts are this process's; default: all.
    """

    def __init__(
        self, judge: Judge, tokenizer: Tokenizer, rl: ConfigDict, language: str, division: Division | None = None
    ):
        self._judge, self._tokenizer, self._language = judge, tokenizer, language
        self._division = division or Division()
        self._grain = rl.reward
        self._weights = RewardWeights(answer=rl.answer_weight, trace=rl.trace_weight, format=rl.format_weight)

    def __call__(self, rollout: Rollout, examples: Sequence[Example | None]) -> Judged:
        """Reads and judges a rollout on the host.

        Args:
          rollout: the samples of this process's prompts.
          examples: what each prompt asks; None where a prompt is absent, of whose samples nothing is asked.

        Raises:
          UserError: the judge of another process had to stop; its line is told.
        """
        return self.begin(rollout, examples)()

    def begin(self, rollout: Rollout, examples: Sequence[Example | None]) -> Callable[[], Judged]:
        """Begins what a call does and returns at once; calling what it returns waits for the end.

        Only one may be under way at a time. With several processes, all must wait at the same points.
        """
        asked = self._division.spoken_for(examples)

        def work() -> tuple[_Read, list[Verdict | Missing]]:
            read = self._read(rollout, asked)
            return read, self._judge.judge(read.requests) if read.requests else []

        future = _in_thread(work)

        def finish() -> Judged:
            failure = future.exception()  # waits
            divided.tell(self._judge)
            fail_together(failure, "have its completions judged", "config.judge")
            return self._judged(*future.result(), rollout)

        return finish

    def _read(self, rollout: Rollout, examples: Sequence[Example | None]) -> _Read:
        tokens, lengths = np.asarray(rollout.tokens), np.asarray(rollout.lengths)
        B, G, _ = tokens.shape
        samples = [(b, g) for b in range(B) for g in range(G)]
        texts = [decode_completion(self._tokenizer, tokens[b, g, : lengths[b, g]].tolist()) for b, g in samples]
        read = _Read(texts, [parse_completion(text) for text in texts], [], [])
        for aspect in ("answer", "trace"):
            for i, ((b, _), completion) in enumerate(zip(samples, read.completions, strict=True)):
                example = examples[b]
                # A reference without clues (one's own data may have none) gives a trace nothing to be judged against.
                if example is not None and (aspect == "answer" or example.question.clues):
                    read.places.append((aspect, i))
                    read.requests.append(self._request(example, getattr(completion, aspect), aspect))
        return read

    def _judged(self, read: _Read, verdicts: Sequence[Verdict | Missing], rollout: Rollout) -> Judged:
        heard, number = dict(zip(read.places, verdicts, strict=True)), range(len(read.texts))
        answers = [heard.get(("answer", i), Missing("not asked")) for i in number]
        # Where a trace could not be asked about, the answer's verdict takes its share of the reward.
        traces = [heard.get(("trace", i), answers[i]) for i in number]
        shape = np.shape(rollout.lengths)
        well_formed = np.array([c.well_formed for c in read.completions])
        columns = (scores(answers)[0], scores(traces)[0], well_formed, rollout.lengths, rollout.finished)
        own = np.stack([np.reshape(column, shape) for column in columns], axis=-1, dtype=np.float32)
        answer, trace, *rest = np.moveaxis(self._division.whole(own), -1, 0)
        found = Found(answer, trace, rest[0] > 0, rest[1].astype(np.int32), rest[2] > 0)
        valid = ~np.isnan(answer) & ~np.isnan(trace)
        parts = jax.tree.map(np.asarray, reward(answer, trace, found.well_formed, valid, self._weights, self._grain))
        return Judged(read.texts, read.completions, answers, traces, found, parts)

    def _request(self, example: Example, candidate: str, aspect: Literal["answer", "trace"]) -> JudgeRequest:
        question = example.question
        return JudgeRequest(
            question=question.question, events=example.evidence, clues=question.clues, reference=question.answer,
            candidate=candidate, aspect=aspect, rubric=question.rubric, task=question.task, video=example.video,
            language=self._language,
        )  # fmt: skip


def metrics(judged: Judged) -> dict[str, float]:
    """Reward, its parts (means over valid rewards), well-formed share, missing verdicts, lengths, of the whole batch.

    `reward_shaping` only where something was added to the judged parts.
    """
    valid, found = np.asarray(judged.reward.valid), judged.found

    def mean(values: Any, where: np.ndarray) -> float:
        return float(np.mean(values, where=where, dtype=np.float64)) if where.any() else float("nan")

    total = np.asarray(judged.reward.total)[valid]
    shaping = {} if judged.reward.shaping is None else {"reward_shaping": mean(judged.reward.shaping, valid)}
    return shaping | {
        "reward": mean(judged.reward.total, valid),
        "reward_std": float(np.std(total, dtype=np.float64, ddof=1)) if total.size > 1 else float("nan"),
        "reward_answer": mean(judged.reward.answer, valid),
        "reward_trace": mean(judged.reward.trace, valid),
        "reward_format": mean(judged.reward.format, valid),
        "answer_score": mean(found.answer, ~np.isnan(found.answer)),
        "trace_score": mean(found.trace, ~np.isnan(found.trace)),
        "well_formed": float(np.mean(found.well_formed)),
        "missing_verdicts": float(np.isnan(found.answer).sum() + np.isnan(found.trace).sum()),
        "completion_tokens": float(np.mean(found.lengths, dtype=np.float64)),
        "truncated": float(np.mean(~found.finished)),
    }


def rows(
    step: int,
    judged: Judged,
    examples: Sequence[Example],
    advantages: np.ndarray,
    kept: np.ndarray,
    places: Sequence[int] | None = None,
) -> list[list[dict[str, Any]]]:
    """The rows of `completions.SCHEMA` of this process's prompts, a list for each.

    Args:
      step: the step.
      judged: its completions.
      examples: what this process's prompts ask.
      advantages: of the whole batch, [B, G].
      kept: whether a completion entered the loss, of the whole batch.
      places: the prompts' places in the batch; None: these are all.
    """
    found, parts, G = judged.found, judged.reward, advantages.shape[1]
    result: list[list[dict[str, Any]]] = [[] for _ in examples]
    for i, (text, completion) in enumerate(zip(judged.texts, judged.completions, strict=True)):
        own, g = divmod(i, G)
        example, b = examples[own], own if places is None else places[own]
        question, valid = example.question, bool(parts.valid[b, g])
        result[own].append(
            {
                "step": step, "prompt_id": question.id, "video": example.video, "task": question.task, "sample": g,
                "question": question.question, "reference": question.answer, "text": text,
                "trace": completion.trace, "answer": completion.answer, "well_formed": completion.well_formed,
                "tokens": int(found.lengths[b, g]), "finished": bool(found.finished[b, g]),
                "answer_score": _score(judged.answers[i]), "answer_reason": judged.answers[i].reason,
                "trace_score": _score(judged.traces[i]), "trace_reason": judged.traces[i].reason,
                "reward": float(parts.total[b, g]) if valid else None,
                "reward_answer": float(parts.answer[b, g]) if valid else None,
                "reward_trace": float(parts.trace[b, g]) if valid else None,
                "reward_format": float(parts.format[b, g]),
                "reward_shaping": 0.0 if parts.shaping is None else float(parts.shaping[b, g]),
                "advantage": float(advantages[b, g]), "kept": bool(kept[b, g]),
            }
        )  # fmt: skip
    return result


def _in_thread(work: Callable[[], T]) -> Future[T]:
    """Begins work in a thread that does not keep the process alive: what was paid for is on the disk by then."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # a dry run ends with SystemExit
            future.set_exception(error)

    threading.Thread(target=run, name="rewards", daemon=True).start()
    return future


def _score(verdict: Verdict | Missing) -> float | None:
    return verdict.score if isinstance(verdict, Verdict) else None
