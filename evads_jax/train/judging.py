"""From sampled tokens to rewards, on the host: decode, read, ask the judge, add up.

Reading and asking run in a thread, so that the device can work while the judge does. A verdict has the place of the
completion that it is about, whenever it arrives. Of several processes the first one asks, and tells the others.
"""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import numpy as np
from ml_collections import ConfigDict

from evads_jax.data.chat import decode_completion
from evads_jax.data.prompts import Completion, parse_completion
from evads_jax.data.records import Example
from evads_jax.data.tokenizer import Tokenizer
from evads_jax.errors import UserError
from evads_jax.judge.verdict import Judge, JudgeRequest, Missing, Verdict
from evads_jax.rl.reward import Reward, RewardWeights, reward, scores
from evads_jax.sampling.rollout import Rollout
from evads_jax.train.processes import from_first

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Judged:
    """The completions of B prompts, G each, read and judged; lists run over prompts, then samples.

    Attributes:
      texts: as sampled.
      completions: as understood.
      answers: verdicts on the answers.
      traces: verdicts on the reasoning traces.
      reward: the rewards, NumPy [B, G].
    """

    texts: list[str]
    completions: list[Completion]
    answers: list[Verdict | Missing]
    traces: list[Verdict | Missing]
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
    """

    def __init__(self, judge: Judge, tokenizer: Tokenizer, rl: ConfigDict, language: str):
        self._judge, self._tokenizer, self._language = judge, tokenizer, language
        self._grain = rl.reward
        self._weights = RewardWeights(answer=rl.answer_weight, trace=rl.trace_weight, format=rl.format_weight)

    def __call__(self, rollout: Rollout, examples: Sequence[Example | None]) -> Judged:
        """Reads and judges a rollout on the host.

        Args:
          rollout: the samples of B prompts.
          examples: what each prompt asks; None where a prompt is absent, of whose samples nothing is asked.
        """
        return self.begin(rollout, examples)()

    def begin(self, rollout: Rollout, examples: Sequence[Example | None]) -> Callable[[], Judged]:
        """Begins what a call does and returns at once; calling what it returns waits for the end.

        Only one may be under way at a time. With several processes, all must wait at the same points.
        """
        asks = jax.process_index() == 0

        def work() -> tuple[_Read, list[Verdict | Missing]]:
            read = self._read(rollout, examples)
            return read, self._judge.judge(read.requests) if asks else []

        future = _in_thread(work)

        def finish() -> Judged:
            B, G = rollout.tokens.shape[:2]
            read, verdicts = future.result() if jax.process_count() == 1 else _shared(future, 2 * B * G)
            return self._judged(read, verdicts, (B, G))

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

    def _judged(self, read: _Read, verdicts: Sequence[Verdict | Missing], shape: tuple[int, int]) -> Judged:
        found, number = dict(zip(read.places, verdicts, strict=True)), range(len(read.texts))
        answers = [found.get(("answer", i), Missing("not asked")) for i in number]
        # Where a trace could not be asked about, the answer's verdict takes its share of the reward.
        traces = [found.get(("trace", i), answers[i]) for i in number]
        answer_scores, answer_valid = scores(answers)
        trace_scores, trace_valid = scores(traces)
        parts = reward(
            answer_scores, trace_scores, np.array([c.well_formed for c in read.completions]),
            answer_valid & trace_valid, self._weights, self._grain,
        )  # fmt: skip
        parts = jax.tree.map(lambda x: np.asarray(x).reshape(shape), parts)
        return Judged(read.texts, read.completions, answers, traces, parts)

    def _request(self, example: Example, candidate: str, aspect: Literal["answer", "trace"]) -> JudgeRequest:
        question = example.question
        return JudgeRequest(
            question=question.question, events=example.evidence, clues=question.clues, reference=question.answer,
            candidate=candidate, aspect=aspect, rubric=question.rubric, task=question.task, video=example.video,
            language=self._language,
        )  # fmt: skip


def metrics(judged: Judged, rollout: Rollout) -> dict[str, float]:
    """Reward, its parts (means over valid rewards), well-formed share, missing verdicts, lengths.

    `reward_shaping` only where something was added to the judged parts.
    """
    valid = np.asarray(judged.reward.valid)
    missing = [isinstance(v, Missing) for v in (*judged.answers, *judged.traces)]

    def mean(values: Any) -> float:
        return float(np.mean(values, where=valid, dtype=np.float64)) if valid.any() else float("nan")

    total = np.asarray(judged.reward.total)[valid]
    shaping = {} if judged.reward.shaping is None else {"reward_shaping": mean(judged.reward.shaping)}
    return shaping | {
        "reward": mean(judged.reward.total),
        "reward_std": float(np.std(total, dtype=np.float64, ddof=1)) if total.size > 1 else float("nan"),
        "reward_answer": mean(judged.reward.answer),
        "reward_trace": mean(judged.reward.trace),
        "reward_format": mean(judged.reward.format),
        "answer_score": _mean_score(judged.answers),
        "trace_score": _mean_score(judged.traces),
        "well_formed": float(np.mean([c.well_formed for c in judged.completions])),
        "missing_verdicts": float(sum(missing)),
        "completion_tokens": float(np.mean(np.asarray(rollout.lengths), dtype=np.float64)),
        "truncated": float(np.mean(~np.asarray(rollout.finished))),
    }


def rows(
    step: int, judged: Judged, rollout: Rollout, examples: Sequence[Example], advantages: np.ndarray, kept: np.ndarray
) -> list[dict[str, Any]]:
    """The rows of `completions.SCHEMA`."""
    lengths, finished, G = np.asarray(rollout.lengths), np.asarray(rollout.finished), rollout.tokens.shape[1]
    parts, result = judged.reward, []
    for i, (text, completion) in enumerate(zip(judged.texts, judged.completions, strict=True)):
        b, g = divmod(i, G)
        question, valid = examples[b].question, bool(parts.valid[b, g])
        result.append(
            {
                "step": step, "prompt_id": question.id, "video": examples[b].video, "task": question.task, "sample": g,
                "question": question.question, "reference": question.answer, "text": text,
                "trace": completion.trace, "answer": completion.answer, "well_formed": completion.well_formed,
                "tokens": int(lengths[b, g]), "finished": bool(finished[b, g]),
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


def _shared(future: Future[tuple[_Read, list[Verdict | Missing]]], most: int) -> tuple[_Read, list[Verdict | Missing]]:
    """What process 0 heard, on every process: scores without their reasons. `most`: the most verdicts there can be."""
    heard, failure = np.full(1 + most, np.nan, np.float32), future.exception()
    if failure is None:
        read, verdicts = future.result()
        heard[0], heard[1 : 1 + len(verdicts)] = len(verdicts), scores(verdicts)[0]
    heard = from_first(heard)
    if failure is not None:
        raise failure
    if np.isnan(heard[0]):
        raise UserError("process 0 could not have the completions judged", "config.judge", "see what it says")
    if jax.process_index() == 0:
        return read, verdicts
    told = heard[1 : 1 + int(heard[0])].tolist()
    return read, [Missing("see process 0") if np.isnan(score) else Verdict(score) for score in told]


def _score(verdict: Verdict | Missing) -> float | None:
    return verdict.score if isinstance(verdict, Verdict) else None


def _mean_score(verdicts: Sequence[Verdict | Missing]) -> float:
    values = [v.score for v in verdicts if isinstance(v, Verdict)]
    return float(np.mean(values)) if values else float("nan")
