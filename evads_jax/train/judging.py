"""From sampled tokens to rewards, on the host: decode, read, ask the judge, add up."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from ml_collections import ConfigDict

from evads_jax.data.chat import decode_completion
from evads_jax.data.prompts import Completion, parse_completion
from evads_jax.data.records import Example
from evads_jax.data.tokenizer import Tokenizer
from evads_jax.judge.verdict import Judge, JudgeRequest, Missing, Verdict
from evads_jax.rl.reward import Reward, RewardWeights, reward, scores
from evads_jax.sampling.rollout import Rollout


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


class RewardFunction:
    """What a completion is worth.

    Args:
      judge: gives the verdicts.
      tokenizer: decodes.
      rl: the config section: `reward` (the grain) and the weights.
      language: of the judge's prompts.
    """

    def __init__(self, judge: Judge, tokenizer: Tokenizer, rl: ConfigDict, language: str):
        self._judge, self._tokenizer, self._language = judge, tokenizer, language
        self._grain = rl.reward
        self._weights = RewardWeights(answer=rl.answer_weight, trace=rl.trace_weight, format=rl.format_weight)

    def __call__(self, rollout: Rollout, examples: Sequence[Example]) -> Judged:
        """Reads and judges a rollout on the host; `examples` are those of its prompts."""
        tokens, lengths = np.asarray(rollout.tokens), np.asarray(rollout.lengths)
        B, G, _ = tokens.shape
        places = [(b, g) for b in range(B) for g in range(G)]
        texts = [decode_completion(self._tokenizer, tokens[b, g, : lengths[b, g]].tolist()) for b, g in places]
        completions = [parse_completion(text) for text in texts]
        asked = [examples[b] for b, _ in places]
        requests = [self._request(e, c.answer, "answer") for e, c in zip(asked, completions, strict=True)]
        pairs = zip(asked, completions, strict=True)
        requests += [self._request(e, c.trace, "trace") for e, c in pairs if e.question.clues]
        verdicts = self._judge.judge(requests)
        answers, heard = verdicts[: B * G], iter(verdicts[B * G :])
        # A reference without clues (one's own data may have none) gives a trace nothing to be judged against: the
        # answer's verdict takes the trace's share of the reward.
        traces = [next(heard) if e.question.clues else a for e, a in zip(asked, answers, strict=True)]
        answer_scores, answer_valid = scores(answers)
        trace_scores, trace_valid = scores(traces)
        parts = reward(
            answer_scores, trace_scores, np.array([c.well_formed for c in completions]), answer_valid & trace_valid,
            self._weights, self._grain,
        )  # fmt: skip
        parts = jax.tree.map(lambda x: np.asarray(x).reshape(B, G), parts)
        return Judged(texts, completions, answers, traces, parts)

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


def _score(verdict: Verdict | Missing) -> float | None:
    return verdict.score if isinstance(verdict, Verdict) else None


def _mean_score(verdicts: Sequence[Verdict | Missing]) -> float:
    values = [v.score for v in verdicts if isinstance(v, Verdict)]
    return float(np.mean(values)) if values else float("nan")
