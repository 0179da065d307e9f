import runpy
from pathlib import Path

import pytest

from evads_jax.errors import UserError
from evads_jax.rl.loss import LOSSES
from evads_jax.rl.settings import check

CONFIG = Path(__file__).parents[2] / "configs" / "mg_grpo.py"


def rl(**changes):
    section = runpy.run_path(str(CONFIG))["get_config"]().rl
    section.update({"batch_prompts": 16, "group": 8, "max_new_tokens": 56} | changes)
    return section


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_needs_nothing_but_its_name(name):
    check(rl(loss=name))


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "cispo", "cispo_cap": "trl", "clip_high": 5.0},
        {"loss": "gspo", "old_logps": "recomputed", "importance_cap": 2.0, "importance_level": "sequence"},
        {"loss": "rloo", "kl": "k1_in_reward", "scale_advantage": "none"},
        {"dual_clip": 3.0, "overlong_tokens": 16, "mask_truncated": True, "resample_flat": 2, "entropy_weight": 1e-3},
        {"micro_groups": 4, "micro_samples": 2, "logit_chunk": 256},
        {"suffix_buckets": (14, 28), "compact": (16, 1)},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_what_goes_together_is_taken(changes):
    check(rl(**changes))


REFUSED = {
    "loss": ({"loss": "ppo"}, "one of grpo, bnpo, dapo, dr_grpo, gspo, cispo, rloo"),
    "kl": ({"kl": "k4"}, "k1_in_reward"),
    "reward": ({"reward": "r4"}, "strict"),
    "scale_advantage": ({"scale_advantage": "std"}, "group, batch, none"),
    "cispo_cap": ({"cispo_cap": "vllm"}, "verl, trl"),
    "old_logps": ({"old_logps": "both"}, "sampler, recomputed"),
    "importance_level": (
        {"loss": "gspo", "old_logps": "recomputed", "importance_cap": 2.0},
        "gspo has one ratio per completion and takes no token-level weights",
    ),
    "importance_cap": ({"importance_cap": 2.0}, "holds the gap already"),
    "dual_clip": ({"loss": "cispo", "dual_clip": 3.0}, "cispo caps the ratio"),
    "clip_high": ({"loss": "cispo", "cispo_cap": "trl"}, "would cut every token"),
    "resample_flat": ({"kl": "k1_in_reward", "resample_flat": 1}, "no group is flat"),
    "overlong_tokens": ({"overlong_tokens": 57}, "more than max_new_tokens 56"),
    "suffix_buckets": ({"suffix_buckets": (28, 56)}, "stay below max_new_tokens 56"),
    "compact": ({"compact": (128, 16)}, "between the 128 samples of a rollout and 0"),
    "micro_groups": ({"micro_groups": 3}, "does not divide batch_prompts 16"),
    "micro_samples": ({"micro_samples": 3}, "does not divide group 8"),
    "logit_chunk": ({"logit_chunk": 0}, "at least 1"),
    "update_hbm_mib": ({"update_hbm_mib": 0}, "at least 1"),
    "entropy_weight": ({"entropy_weight": -0.1}, "at least 0"),
    "group": ({"group": 1}, "at least 2"),
    "temperature": ({"temperature": 0.0}, "no variance"),
    "top_p": ({"top_p": 0.0}, "above 0 and at most 1"),
}


@pytest.mark.parametrize("field", REFUSED)
def test_what_does_not_is_refused_with_one_line_that_names_the_field(field):
    changes, reason = REFUSED[field]
    with pytest.raises(UserError) as refused:
        check(rl(**changes))
    assert f"config.rl.{field}]" in str(refused.value)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("cap", [{"dual_clip": 1.0}, {"old_logps": "recomputed", "importance_cap": 0.0}], ids=str)
def test_a_bound_that_bounds_everything_is_refused(cap):
    with pytest.raises(UserError, match="must be above"):
        check(rl(**cap))
