"""The README.md of an exported model: what it is, what made it, how it did, and what it cannot do.

Everything is read from the run's folder: config.json, the shards' manifests, events, summaries and tables. Paths of the
machine are cut to their last name.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evads_jax import storage
from evads_jax.benchmark.files import config_hash, folder, read_lines
from evads_jax.data.qwen_processor import read_json
from evads_jax.events import NAME
from evads_jax.models.qwen_vl import parameter_count
from evads_jax.train.checkpoint import finished
from evads_jax.train.results import Policy

_SPLITS = ("sft", "rl", "validation", "test")
_TABLES = ("main.md", "learning.md")
_PATHS = re.compile(r"(^|_)(path|from|shards|annotations|videos|jsonl|cache)$")
_LICENCE = re.compile(r"^license(?:_name)?:\s*(\S+)\s*$", re.MULTILINE)


def model_card(policy: Policy) -> str:
    """The card of a stage of a run, as Markdown with a YAML head."""
    config = policy.config.to_dict()
    base = storage.fetched(config["model"]["path"]) if config["model"]["path"] else None
    licence, about_licence = _licence(config, base)
    storage.fetched(policy.folder, NAME, "tables", "evaluation", required=False)
    events = read_lines(policy.folder / NAME)
    summary_file = folder(policy.folder, policy.stage) / "summary.json"
    summary = read_json(summary_file) if summary_file.is_file() else None
    head = {"license": licence, "library_name": "transformers", "pipeline_tag": "video-text-to-text"}
    head |= {"base_model": base.name} if base else {}
    head |= {"language": config["run"]["language"]}
    name = policy.folder.resolve().name
    parts = [
        "---\n" + "".join(f"{key}: {value}\n" for key, value in head.items()) + "---",
        f"# {name}: {policy.stage}",
        f"A {policy.model.family} model of {parameter_count(policy.model):,} parameters ({policy.weights}) that "
        "answers questions about e-commerce short videos. Written by evads_jax.",
        "## Base",
        _base(config, base),
        "## Data",
        _data(policy),
        "## Recipe",
        _recipe(policy, config, events),
        "## Judge",
        _judge(policy, config, summary),
        "## Tables",
        _tables(policy),
        "## Licence",
        about_licence,
        "## Known limits",
        "\n".join(f"- {line}" for line in _limits(policy, config, events, summary)),
    ]
    return "\n\n".join(parts) + "\n"


def _base(config: Mapping[str, Any], base: Path | None) -> str:
    if base is None:
        return f"None: trained from random parameters (seed {config['run']['seed']})."
    digest = hashlib.sha256((base / "config.json").read_bytes()).hexdigest()
    return f"`{base.name}`; SHA-256 of its config.json: `{digest}`."


def _data(policy: Policy) -> str:
    rows = ["| split | videos | questions | source | SHA-256 of its shards |", "| --- | --- | --- | --- | --- |"]
    manifests = [f"{split}/manifest.json" for split in _SPLITS]
    root = storage.fetched(policy.shards, *manifests, required=False)
    for split, manifest_file in zip(_SPLITS, manifests, strict=True):
        path = root / manifest_file
        if not path.is_file():
            continue
        manifest = read_json(path)
        shards = manifest["shards"]
        counts = [count for shard in shards for count in shard["questions"]]
        digest = hashlib.sha256("".join(shard["sha256"] for shard in shards).encode()).hexdigest()
        recipe = manifest["recipe"]
        source = f"{recipe.get('source', 'given')}, {recipe.get('language', '')}".rstrip(", ")
        rows.append(f"| {split} | {len(counts)} | {sum(counts)} | {source} | `{digest}` |")
    if len(rows) == 2:
        return "The shards are no longer beside the run."
    return "\n".join(rows) + "\n\nThe hash is that of the shards' own hashes, in order, written one after another."


def _recipe(policy: Policy, config: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> str:
    lines = []
    for stage in ("sft", "mg_grpo", "control"):
        home = policy.folder
        if stage == "sft" and config["run"]["sft_from"]:
            home = Path(config["run"]["sft_from"])
        if record := finished(home, stage):
            told = f"- {stage}: {record['step']} steps, kept step {record['best_step']}, ended by {record['reason']}"
            lines.append(
                told + f", {record['seconds']:,.0f} seconds" + (" ← this model" if stage == policy.stage else "")
            )
    environment: Mapping[str, Any] = next((e["environment"] for e in events if e.get("kind") == "run"), {})
    made = ", ".join(f"{key} {environment[key]}" for key in ("commit", "jax", "processor") if environment.get(key))
    sections = ("run", "data", "tokenizer", "model", "lora", "train", "sft", "rl", "judge")
    shown = {name: _without_paths(config[name]) for name in sections if name in config}
    return "\n".join(
        [
            *lines,
            "",
            f"Config {config_hash(config)}" + (f"; {made}" if made else "") + ":",
            "",
            "```json",
            json.dumps(shown, indent=1, ensure_ascii=False),
            "```",
        ]
    )


def _judge(policy: Policy, config: Mapping[str, Any], summary: Mapping[str, Any] | None) -> str:
    described = summary["judge"] if summary else {"kind": config["judge"]["kind"]}
    fields = ", ".join(f"{key} {value}" for key, value in described.items() if not isinstance(value, dict | list))
    rewarded = f"Rewards in training: {config['judge']['kind']}. " if policy.stage == "mg_grpo" else ""
    return f"{rewarded}Scores in the tables: {fields}."


def _tables(policy: Policy) -> str:
    found = [policy.folder / "tables" / name for name in _TABLES]
    texts = [path.read_text(encoding="utf-8").strip() for path in found if path.is_file()]
    return "\n\n".join(texts) or "The run has no tables: nothing was evaluated."


def _licence(config: Mapping[str, Any], base: Path | None) -> tuple[str, str]:
    """The licence's name for the head, and what is to be said of it."""
    data = ""
    if config["data"]["source"] == "annotations":
        data = (
            " The annotations that it learned from have a licence of their own, which holds for what is made of them."
        )
    elif config["data"]["source"] == "folder":
        data = (
            " The videos and questions that it learned from were the user's own; what holds for them is not known here."
        )
    if base is None:
        return "apache-2.0", "Apache-2.0, as the code that made it; there is no base model." + data
    card = base / "README.md"
    stated = _LICENCE.search(card.read_text(encoding="utf-8")) if card.is_file() else None
    carried = sorted(path.name for path in base.glob("LICENSE*"))
    where = f"; its text is in {', '.join(carried)}" if carried else "; read it where the base model was published"
    return stated[
        1
    ] if stated else "other", f"That of the base model ({stated[1] if stated else 'not stated'}){where}." + data


def _limits(
    policy: Policy, config: Mapping[str, Any], events: Iterable[Mapping[str, Any]], summary: Mapping[str, Any] | None
) -> list[str]:
    data, model = config["data"], policy.model
    lines = []
    if data["source"] == "render":
        lines.append(
            f"It has learned from drawn ads of {data['frame_size']} pixels only, whose questions come from a script. "
            "What it does on real videos is not known."
        )
    lines.append(
        f"It was trained on at most {data['max_frames']} frames, {data['frame_rate']} a second, scaled to fit "
        f"{data['frame_size']} pixels, and on prompts of at most {data['prompt_tokens']} tokens."
    )
    fits = {e["stage"]: e["fit"] for e in events if e.get("kind") == "stage_start" and "fit" in e}
    for stage, fit in fits.items():
        lost = [f"{fit[key]} {text}" for key, text in (("left_out", "left out"), ("cut", "cut")) if fit.get(key)]
        if lost:
            lines.append(f"Of the {fit['questions']} questions of {stage}, {' and '.join(lost)} for want of room.")
    if config["judge"]["kind"] == "lexical":
        lines.append(
            "The lexical judge, which gives rewards and scores alike, looks for wordings: part of a gain from rewards "
            "may be a matter of wording, and its scores are not those that a language model would give."
        )
    if summary is None:
        lines.append("This stage was not evaluated.")
    elif missing := summary["tasks"]["all"]["R5"]["n_missing"]:
        lines.append(f"{missing} of {summary['n']} test answers have no verdict and are in no mean.")
    lines.append(f"One run with one seed ({config['run']['seed']}): intervals say nothing of other seeds.")
    if config.get("lora", {}).get("rank"):
        lines.append(f"Trained as adapters of rank {config['lora']['rank']}, which are folded into the matrices here.")
    if model.family == "qwen3_vl" and model.video_layout == "release":
        lines.append(
            "Its prompts had each frame group in a pair of vision tags, and no pair around the video; the processor of "
            "transformers 5 adds that pair, that of transformers 4 does not."
        )
    if not config["model"]["path"]:
        lines.append(
            "The processor files come near to how frames were taken in training; evads_jax takes them exactly."
        )
    return lines


def _without_paths(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section whose paths are cut to their last name."""
    return {
        key: Path(value).name if isinstance(value, str) and _PATHS.search(key) else value
        for key, value in section.items()
    }
