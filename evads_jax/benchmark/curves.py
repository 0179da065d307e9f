"""A run's curves, drawn from its events."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from evads_jax.benchmark.chart import Series, line_chart
from evads_jax.benchmark.html import fold
from evads_jax.events import is_wall_clock

# Charts of the page in order: title, kind of event, and the fields (whole names) that it shows. Fields that no chart
# names get one each, folded away.
CHARTS = (
    ("Loss", "train", r"loss"),
    ("Validation loss", "validation", r"loss"),
    ("Reward", "train", r"reward|reward_mean|reward_std"),
    (
        "Reward parts",
        "train",
        r"reward_(?!mean$|std$)\w+|\w+_reward|answer_score|trace_score|score_\w+|well_formed|format",
    ),
    ("KL to the reference", "train", r"kl\w*"),
    ("Entropy", "train", r"entropy\w*"),
    ("Completion length", "train", r"\w*length\w*|completion_tokens\w*"),
)
_NO_CURVE = re.compile(r"step|schema")


def curves(events: Sequence[Mapping[str, Any]]) -> str:
    """The charts as HTML; stages whose losses differ in kind (SFT's and GRPO's) do not share one."""
    points: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    for event in events:
        if event["kind"] in ("train", "validation") and "step" in event:
            for field, value in event.items():
                if not is_wall_clock(field) and not _NO_CURVE.fullmatch(field) and _is_number(value):
                    key = (event["kind"], field, event.get("stage", ""))
                    points[key].append((float(event["step"]), math.nan if value is None else float(value)))
    shown, used = [], set()
    for title, kind, pattern in CHARTS:
        keys = [key for key in points if key[0] == kind and re.fullmatch(pattern, key[1])]
        used.update(keys)
        for family in ("supervised", "reinforced"):
            mine = [key for key in keys if _family(key[2]) == family]
            both = any(_family(key[2]) != family for key in keys)
            shown.append(_chart(title + f" ({family})" * both, mine, points))
    rest = defaultdict(list)
    for key in sorted(points.keys() - used):
        rest[f"{key[1]}, {key[0]}" if key[0] == "validation" else key[1]].append(key)
    more = "".join(_chart(title, keys, points) for title, keys in rest.items())
    grid = '<div class="charts">{}</div>'
    first = "".join(shown)
    if not first and not more:
        return "<p>No training steps are recorded.</p>"
    return grid.format(first) + (fold("More curves", grid.format(more)) if more else "")


def _chart(title: str, keys: Sequence[tuple[str, str, str]], points: Mapping[tuple[str, str, str], list]) -> str:
    fields, stages = {key[1] for key in keys}, {key[2] for key in keys}
    series = []
    for key in keys:
        name = key[2] if len(fields) == 1 else key[1] if len(stages) == 1 else f"{key[2]}: {key[1]}"
        series.append(Series(name, tuple(points[key])))
    return line_chart(title, series) if series else ""


def _family(stage: str) -> str:
    return "reinforced" if "grpo" in stage else "supervised"


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
