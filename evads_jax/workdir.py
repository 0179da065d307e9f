"""A run's folder: who owns it, and under which machine and versions it was made.

A work directory belongs to the config that it was made with (`W/config.json`). The same config goes on where it
stopped; another one is refused, except in the fields that cannot change what was already done.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from evads_jax import storage, whole
from evads_jax.errors import UserError

# May differ on resume: they decide how long, how often, on which devices or what is looked at, never what was already
# computed. Of a study they say which runs there are; each run has a config of its own that is held to this list.
RESUMABLE = (
    "only",
    "seeds",
    "norms.",
    "models",
    "sweep.",
    "grains",
    "finetuned",
    "landscape.",
    "runs",
    "experiment.eval.",
    "experiment.log.",
    "experiment.checkpoint.",
    "run.stages",
    "sft.max_steps",
    "rl.max_steps",
    "control.steps",
    "eval.",
    "log.",
    "checkpoint.",
    "mesh.",
    "rl.compact",
    "data.workers",
    "judge.key_env",
    "judge.concurrency",
    "judge.requests_per_minute",
    "judge.tokens_per_minute",
    "judge.timeout",
    "judge.retries",
    "judge.malformed_retries",
    "judge.patience",
    "judge.prices",
    "judge.max_cost",
    "judge.currency",
    "judge.cache",
    "judge.dry_run",
    "qa.videos_at_once",
    "qa.dry_run",
    "qa.key_env",
    "qa.concurrency",
    "qa.requests_per_minute",
    "qa.tokens_per_minute",
    "qa.timeout",
    "qa.retries",
    "qa.patience",
    "qa.prices",
    "qa.max_cost",
    "qa.currency",
    "judge.repeats",
    "second_judge.",
    "policy.key_env",
    "policy.concurrency",
    "policy.requests_per_minute",
    "policy.tokens_per_minute",
    "policy.timeout",
    "policy.retries",
    "policy.patience",
    "policy.prices",
    "policy.max_cost",
    "policy.currency",
    "policy.dry_run",
)


CONFIG = "config.json"  # of a run's folder


def claim(workdir: Path, config: config_dict.ConfigDict) -> None:
    """Makes the work directory for a config, or checks that it was made with the same one.

    Of several processes every one checks, and process 0 writes.

    Args:
        workdir: the folder; made when absent.
        config: the run's config; written to `config.json`.

    Raises:
        UserError: the folder was made with a config that differs in a field outside `RESUMABLE`, or it cannot be
            written.
    """
    path = workdir / CONFIG
    mine = json.loads(config.to_json())
    if path.exists():
        theirs = json.loads(path.read_text())
        ours_flat, theirs_flat = _flatten(mine), _flatten(theirs)
        differing = sorted(
            k
            for k in ours_flat.keys() | theirs_flat.keys()
            if ours_flat.get(k) != theirs_flat.get(k) and not k.startswith(RESUMABLE)
        )
        if differing:
            shown = ", ".join(f"{k} was {theirs_flat.get(k)!r}, is {ours_flat.get(k)!r}" for k in differing[:3])
            more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise UserError(
                f"this work directory was made with another config: {shown}{more}",
                str(workdir),
                "use the config it was made with, or another --workdir",
            )
    if not storage.writes():
        return
    try:
        whole.write(path, json.dumps(mine, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"cannot write the work directory: {error.strerror}", str(workdir)) from error


def read(workdir: Path) -> dict[str, Any]:
    """The config that a work directory was made with.

    Raises:
        UserError: it holds none.
    """
    try:
        return dict(json.loads((workdir / CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError("no run here", str(workdir), "give the folder of a finished run") from error


def environment() -> dict[str, str | int | None]:
    """Machine, versions and commit: what a reader needs to judge a measurement."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "av")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "commit": _commit(),
    }


def _flatten(tree: dict, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _commit() -> str | None:
    """The commit, `-dirty` where anything but pages differs: commands write these, and nothing runs by them."""
    anything_else = (":(top)", ":(top,exclude)docs", ":(top,exclude)*.md")
    try:
        commit = _git("describe", "--always", "--abbrev=12")
        return commit + "-dirty" * bool(_git("diff", "--name-only", "HEAD", "--", *anything_else))
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
