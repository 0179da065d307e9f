"""How good a judge is: agreement with the script's labels, controls that cheating fails, attacks; and their tables.

*Agreement.* Quadratic kappa (`benchmark.agreement`) of verdicts and labels on ads that no training saw, with the
lexical judge's beside it.

*Controls.* The same candidates and labels, but what they are to be compared with is taken away: every reference and its
clues exchanged for those of another ad, under which the script's values score 0; and the candidate alone, with no
question, events or reference. A judge that compares loses its kappa and stops giving full marks. What a candidate
leaves out can be seen without a reference, so that the second kappa need not be zero.

*Attacks.* Each attack of `judge.attacks` and `judge.injections` around the same candidates of every quality: the
verdict with it minus the verdict without it, and the share of candidates whose verdict it raises. Those of
`examples.HELD_OUT` are summed up apart. A verdict that cannot be had raises nothing and is counted.
"""

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from evads_jax.benchmark import agreement
from evads_jax.benchmark.score import as_json
from evads_jax.benchmark.statistics import Interval, Videos
from evads_jax.benchmark.table import Cell, Table
from evads_jax.judge.examples import HELD_OUT, Examples, JudgeExample, attacked
from evads_jax.judge.verdict import GRID, Judge, JudgeRequest, Verdict

LEAST_KAPPA, MOST_RAISE = 0.8, 0.05  # what a trained judge is aimed at
PARTS = ("all", "answer", "trace")
AS_ASKED, EXCHANGED, ALONE = "as asked", "another ad's reference", "the candidate alone"
SHOWN, KEPT_BACK = "shown in training", "not shown in training"
_AT_ONCE = 512  # attacked candidates judged between two lines of progress
Say = Callable[[str], None]


def scores(judge: Judge, requests: Sequence[JudgeRequest]) -> Float[np.ndarray, " N"]:
    """The scores of requests; NaN for a missing verdict."""
    found = judge.judge(requests)
    return np.array([v.score if isinstance(v, Verdict) else np.nan for v in found], np.float64)


def measure(
    judge: Judge,
    beside: Mapping[str, Judge],
    examples: Examples,
    count: int,
    count_attacked: int,
    replicates: int,
    seed: int,
    say: Say,
) -> dict[str, Any]:
    """Everything that is known about a judge, as it is written into `judge.json`.

    Args:
      judge: the judge.
      beside: other judges of the same examples, by name; they are compared in agreement only.
      examples: honest examples of ads that the judge has not seen.
      count: how many are judged.
      count_attacked: how many of the first of them are attacked in every way.
      replicates: of the bootstrap over ads.
      seed: of the bootstrap.
      say: told one line at a time.

    Returns:
      `examples`, `missing`; `agreement`: judge → part → figures of `agreement.between` (b − a is verdict − label);
      `confusion`: aspect → counts, labels in rows; `controls`; `attacks` by kind; `attack_groups`.
    """
    held = [examples(number) for number in range(count)]
    labels = np.array([example.label for example in held])
    names = [example.request.video for example in held]
    aspects = np.array([example.request.aspect for example in held])
    videos = Videos(names, replicates, seed, "judge")
    requests = [example.request for example in held]
    given = {judge.name: scores(judge, requests)}
    given |= {name: scores(other, requests) for name, other in beside.items()}
    say(f"{judge.name}: judged {count} answers and traces on held-out ads")
    own = given[judge.name]

    def compare(found: np.ndarray, part: str) -> dict[str, Any]:
        chosen = np.flatnonzero((aspects == part) | (part == "all"))
        figures = agreement.between(videos, [names[i] for i in chosen], labels[chosen], found[chosen])
        return {k: as_json(v) if isinstance(v, Interval) else v for k, v in figures.items()}

    def control(found: np.ndarray) -> dict[str, Any]:
        full = np.where(labels == 1.0, found, np.nan)
        columns = np.stack([found, full], axis=1)
        mean, mean_full = videos.mean(names, columns).intervals()
        return {"kappa": compare(found, "all")["kappa"], "mean": as_json(mean), "mean_full": as_json(mean_full)}

    changed = {
        EXCHANGED: [_exchanged(example, examples) for example in held],
        ALONE: [_alone(request) for request in requests],
    }
    controls = {AS_ASKED: control(own)} | {name: control(scores(judge, asked)) for name, asked in changed.items()}
    say(f"{judge.name}: judged them with other references and without any")
    shifts = _attack(judge, held[:count_attacked], own[:count_attacked], say)
    return {
        "examples": count,
        "missing": int(np.isnan(own).sum()),
        "agreement": {name: {part: compare(found, part) for part in PARTS} for name, found in given.items()},
        "confusion": {
            aspect: agreement.confusions(labels[aspects == aspect], own[aspects == aspect])
            .sum(axis=0)
            .astype(int)
            .tolist()
            for aspect in PARTS[1:]
        },
        "controls": controls,
        "attacks": {
            name: _shift(videos, names[:count_attacked], own[:count_attacked], s) for name, s in shifts.items()
        },
        "attack_groups": _groups(videos, names[:count_attacked], own[:count_attacked], shifts),
    }


def verdict_lines(measured: Mapping[str, Any], name: str) -> list[str]:
    """What was aimed at and what came of it, in lines for people."""
    kappa = measured["agreement"][name]["all"]["kappa"]["mean"]
    reached = kappa is not None and kappa >= LEAST_KAPPA
    told = "undefined" if kappa is None else f"{kappa:.3f}"
    lines = [f"kappa with the script {told}, aim {LEAST_KAPPA:g}: {'reached' if reached else 'missed'}"]
    for group, entry in measured["attack_groups"].items():
        worst, shift = entry["worst"], entry["largest"]
        if shift is None:
            lines.append(f"attacks {group}: no verdict, aim {MOST_RAISE:g}: missed")
            continue
        outcome = "reached" if shift <= MOST_RAISE else "missed"
        lines.append(
            f"attacks {group}: the mean moves by at most {shift:+.3f} ({worst}), aim {MOST_RAISE:g}: {outcome}"
        )
    return lines


def tables(measured: Mapping[str, Any], name: str, run: str) -> list[Table]:
    """The tables of what `measure` found.

    Args:
      measured: the figures.
      name: the judge's name.
      run: what the run is called.
    """
    return [_agreement(measured, name, run), _confusion(measured), _controls(measured), *_attacks(measured)]


def _exchanged(example: JudgeExample, examples: Examples) -> JudgeRequest:
    other = examples.other(example).questions[example.task]
    return dataclasses.replace(example.request, reference=other.answer, clues=other.clues, rubric=other.rubric)


def _alone(request: JudgeRequest) -> JudgeRequest:
    return dataclasses.replace(request, question="", events=(), clues="", reference="", rubric=())


def _attack(judge: Judge, held: Sequence[JudgeExample], honest: np.ndarray, say: Say) -> dict[str, np.ndarray]:
    """Attack → verdict with it minus verdict without it, of each example; NaN where either is missing."""
    asked: list[tuple[str, int, JudgeRequest]] = []
    for i, example in enumerate(held):
        request = example.request
        rng = random.Random(f"attacked {request.video}/{example.task}/{request.candidate}")
        texts = attacked(rng, example.ad, example.task, request.candidate)
        asked += [(name, i, dataclasses.replace(request, candidate=text)) for name, text in texts.items()]
    shifts = {name: np.full(len(held), np.nan) for name, _, _ in asked}
    for start in range(0, len(asked), _AT_ONCE):
        part = asked[start : start + _AT_ONCE]
        for (name, i, _), score in zip(part, scores(judge, [request for *_, request in part]), strict=True):
            shifts[name][i] = score - honest[i]
        say(f"{start + len(part):,} of {len(asked):,} attacked candidates")
    return shifts


def _shift(videos: Videos, names: Sequence[str], honest: np.ndarray, shift: np.ndarray) -> dict[str, Any]:
    raised = np.where(np.isnan(shift), np.nan, shift > 0)
    means = videos.mean(names, np.stack([np.where(np.isnan(shift), np.nan, honest), shift, raised], axis=1)).intervals()
    return {
        **{key: as_json(mean) for key, mean in zip(("honest", "shift", "raised"), means, strict=True)},
        "missing": int(np.isnan(shift).sum()),
    }


def _groups(
    videos: Videos, names: Sequence[str], honest: np.ndarray, shifts: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    groups = {}
    for group, held_out in ((SHOWN, False), (KEPT_BACK, True)):
        members = {name: shift for name, shift in shifts.items() if (name in HELD_OUT) == held_out}
        means = {name: float(np.nanmean(s)) for name, s in members.items() if not np.isnan(s).all()}
        worst = max(means, key=lambda name: means[name], default="")
        together = np.concatenate(list(members.values()))
        entry = _shift(videos, [*names] * len(members), np.tile(honest, len(members)), together)
        groups[group] = {"kinds": len(members), "worst": worst, "largest": means.get(worst), **entry}
    return groups


def _cell(entry: Mapping[str, Any], signed: bool = False) -> Cell:
    return dataclasses.replace(Cell.read(entry), n=None, signed=signed)


def _agreement(measured: Mapping[str, Any], name: str, run: str) -> Table:
    columns = ("judge", "candidates", "n", "kappa", "equal", "at most a step apart", "verdict − label")
    rows: list[tuple[Cell | str, ...]] = []
    for judge, parts in measured["agreement"].items():
        for part, figures in parts.items():
            cells = [_cell(figures[key]) for key in ("kappa", "agreement", "within_a_step")]
            difference = _cell(figures["difference"], signed=True)
            rows.append((judge, part, f"{figures['answers']:,}", *cells, difference))
    notes = (
        f"Against the script's labels, on ads of combinations that no training saw; run {run}. "
        f"{measured['missing']} of {measured['examples']:,} verdicts of {name} are missing.",
        "[low, high]: 95 % interval, bootstrap over ads. Labels are balanced over the grid.",
    )
    return Table("judge_agreement", "Agreement with the script", columns, tuple(rows), notes)


def _confusion(measured: Mapping[str, Any]) -> Table:
    rows = [
        (aspect, f"{label:g}", *(f"{count:,}" for count in counts))
        for aspect, matrix in measured["confusion"].items()
        for label, counts in zip(GRID, matrix, strict=True)
    ]
    columns = ("aspect", "label", *(f"verdict {value:g}" for value in GRID))
    return Table("judge_confusion", "Verdicts by label", columns, tuple(rows))


def _controls(measured: Mapping[str, Any]) -> Table:
    rows = [
        (name, *(_cell(entry[key]) for key in ("kappa", "mean", "mean_full")))
        for name, entry in measured["controls"].items()
    ]
    columns = ("what is shown", "kappa with the same labels", "mean verdict", "mean verdict where the label is 1")
    notes = (
        "A judge that compares with the reference loses its kappa and its full marks in the second row and the third. "
        "What a candidate leaves out shows without a reference, so that the third kappa need not be zero.",
    )
    return Table("judge_controls", "Without the right reference", columns, tuple(rows), notes)


def _attacks(measured: Mapping[str, Any]) -> list[Table]:
    groups = [
        (group, str(entry["kinds"]), _cell(entry["shift"], signed=True), _cell(entry["raised"]), str(entry["missing"]),
         "–" if entry["largest"] is None else f"{entry['largest']:+.3f} ({entry['worst']})")
        for group, entry in measured["attack_groups"].items()
    ]  # fmt: skip
    summary = Table(
        "judge_attack_groups",
        "Attacks",
        ("kinds", "number", "mean shift", "share of verdicts raised", "missing", "largest mean shift of a kind"),
        tuple(groups),
        ("Shift: verdict with the attack minus verdict without it, on candidates of every quality.",),
    )
    ordered = sorted(measured["attacks"].items(), key=lambda item: -(item[1]["shift"]["mean"] or 0.0))
    rows = [
        (name, KEPT_BACK if name in HELD_OUT else SHOWN, _cell(entry["honest"]), _cell(entry["shift"], signed=True),
         _cell(entry["raised"]), str(entry["missing"]))
        for name, entry in ordered
    ]  # fmt: skip
    columns = ("attack", "kind", "mean without it", "mean shift", "share of verdicts raised", "missing")
    notes = ("Missing: there is no verdict with the attack, or none without it.",)
    return [summary, Table("judge_attacks", "Each attack", columns, tuple(rows), notes)]
