"""Which settings of `config.rl` go together; docs/rl.md says what each does."""

import itertools

from ml_collections import ConfigDict

from evads_jax.errors import UserError
from evads_jax.rl.advantage import SCALES
from evads_jax.rl.importance import LEVELS
from evads_jax.rl.kl import IN_REWARD, KL
from evads_jax.rl.loss import CISPO_CAPS, COMPLETION_RATIO, LOSSES
from evads_jax.rl.reward import GRAINS

OLD_LOGPS = ("sampler", "recomputed")

_NAMES = {
    "loss": tuple(LOSSES),
    "kl": ("none", *KL, IN_REWARD),
    "reward": tuple(GRAINS),
    "scale_advantage": SCALES,
    "cispo_cap": CISPO_CAPS,
    "old_logps": OLD_LOGPS,
    "importance_level": LEVELS,
}
_LEAST = {
    "group": 2,
    "batch_prompts": 1,
    "updates_per_rollout": 1,
    "max_new_tokens": 1,
    "clip_low": 0,
    "clip_high": 0,
    "kl_weight": 0,
    "entropy_weight": 0,
    "overlong_tokens": 0,
    "overlong_weight": 0,
    "resample_flat": 0,
    "micro_groups": 1,
    "micro_samples": 1,
    "logit_chunk": 1,
    "update_hbm_mib": 1,
}


def check(rl: ConfigDict) -> None:
    """Refuses settings that cannot work, alone or together, before anything is loaded.

    Args:
      rl: the config section.

    Raises:
      UserError: naming the first field that is wrong.
    """
    for field, names in _NAMES.items():
        if rl[field] not in names:
            raise UserError(f"unknown {field} {rl[field]!r}", f"config.rl.{field}", "one of " + ", ".join(names))
    for field, least in _LEAST.items():
        if rl[field] is not None and rl[field] < least:
            raise UserError(f"{field} must be at least {least}, got {rl[field]}", f"config.rl.{field}")
    if rl.temperature <= 0:
        raise UserError("a group of greedy completions has no variance", "config.rl.temperature", "set it above 0")
    if not 0 < rl.top_p <= 1:
        raise UserError(f"top_p must be above 0 and at most 1, got {rl.top_p}", "config.rl.top_p", "1 draws from all")
    _check_loss(rl)
    _check_rollout(rl)


def _check_loss(rl: ConfigDict) -> None:
    """Bounds and weights that the loss cannot take."""
    if rl.loss == "cispo" and rl.cispo_cap == "trl" and rl.clip_high < 1:
        what = (
            f"cispo with TRL's cap bounds the ratio itself: {rl.clip_high} would cut every token from the first update"
        )
        raise UserError(what, "config.rl.clip_high", "set it above 1 (5 is usual), or cispo_cap to verl")
    if rl.dual_clip is not None:
        if rl.loss == "cispo":
            raise UserError("cispo caps the ratio of every token", "config.rl.dual_clip", "leave it out")
        if rl.dual_clip <= 1:
            raise UserError(f"dual_clip must be above 1, got {rl.dual_clip}", "config.rl.dual_clip", "3 is usual")
    if rl.importance_cap is None:
        return
    if rl.importance_cap <= 0:
        raise UserError(f"importance_cap must be above 0, got {rl.importance_cap}", "config.rl.importance_cap")
    if rl.old_logps == "sampler":
        what = "with the sampler's log-probs as the old ones the ratio holds the gap already"
        raise UserError(what, "config.rl.importance_cap", "set old_logps to recomputed, or leave the cap out")
    if rl.loss in COMPLETION_RATIO and rl.importance_level == "token":
        what = f"{rl.loss} has one ratio per completion and takes no token-level weights"
        raise UserError(what, "config.rl.importance_level", "set it to sequence")


def check_mesh(rl: ConfigDict, mesh: ConfigDict) -> None:
    """Refuses what is for one device only.

    Args:
      rl: the section `rl`.
      mesh: the section `mesh`.

    Raises:
      UserError: naming the field.
    """
    if rl.compact and mesh.data * mesh.fsdp * mesh.tp > 1:
        raise UserError("samples go on alone on one device only", "config.rl.compact", "leave it out on a mesh")


def _check_rollout(rl: ConfigDict) -> None:
    """What is done to rewards and groups before the loss, and how these are split."""
    if rl.overlong_tokens > rl.max_new_tokens:
        what = f"overlong_tokens {rl.overlong_tokens} is more than max_new_tokens {rl.max_new_tokens}"
        raise UserError(what, "config.rl.overlong_tokens", "it counts the last tokens before that limit")
    if rl.resample_flat and rl.kl == IN_REWARD:
        what = "with a KL term in the rewards no two are equal, so no group is flat"
        raise UserError(what, "config.rl.resample_flat", "take another rl.kl, or set it to 0")
    places = (0, *(rl.suffix_buckets or ()), rl.max_new_tokens)
    if not all(a < b for a, b in itertools.pairwise(places)):
        what = f"suffix_buckets must rise, and stay below max_new_tokens {rl.max_new_tokens}, got {rl.suffix_buckets}"
        raise UserError(what, "config.rl.suffix_buckets", "e.g. a quarter and a half of it")
    samples = rl.batch_prompts * rl.group
    if not all(a > b for a, b in itertools.pairwise((samples, *(rl.compact or ()), 0))):
        what = f"compact must fall, and stay between the {samples} samples of a rollout and 0, got {rl.compact}"
        raise UserError(what, "config.rl.compact", "e.g. an eighth of them and 1")
    for field, whole in {"micro_groups": "batch_prompts", "micro_samples": "group"}.items():
        if rl[field] is not None and rl[whole] % rl[field]:
            what = f"{field} {rl[field]} does not divide {whole} {rl[whole]}"
            raise UserError(what, f"config.rl.{field}", f"take a divisor of {rl[whole]}")
